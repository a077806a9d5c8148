//! Claims of an alias, through an observation.

use std::{sync::Arc, time::Duration};

use clap::Parser;
use jiff::Timestamp;
use kube::{
    Client, Config,
    runtime::{reflector::ObjectRef, watcher::Event},
};
use serde_json::{Value, json};

use crate::{
    api::{ModelAlias, ModelRegistry, RegisteredModel, condition::Reason},
    cluster::{Guarded, RequeueStreams, Unreadable},
    controllers::{Context, Leadership, context::Writers, model_alias, model_registry, registered_model},
    fence::Fence,
    observe::observe,
    options::RunOptions,
    registry::{
        limiter::Limits,
        polled::{RegistryKey, Settings},
    },
    render::RegistryForPods,
    resolve::Subject,
};

struct Fixture {
    context: Arc<Context>,
    writers: Writers,
    _requeue: RequeueStreams,
}

fn metadata(namespace: &str, name: &str, age: usize) -> Value {
    json!({
        "namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"),
        "creationTimestamp": format!("2026-01-0{age}T00:00:00Z"),
    })
}

impl Fixture {
    fn new() -> Self {
        #[derive(Parser)]
        struct Options {
            #[command(flatten)]
            run: RunOptions,
        }
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let options = Options::try_parse_from(["laurel"]).unwrap().run;
        let (context, writers, requeue) =
            Context::new(client, &options, Leadership::alone(), Fence::default()).unwrap();
        Self { context, writers, _requeue: requeue }
    }

    /// A registry of a namespace, its default, read by now.
    fn registry(&mut self, namespace: &str, url: &str) {
        let mut metadata = metadata(namespace, "mlflow", 1);
        metadata["annotations"] = json!({ "laurel.dev/default": "true" });
        let object = json!({ "metadata": metadata, "spec": { "mlflow": { "url": url } } });
        let object: ModelRegistry = serde_json::from_value(object).unwrap();
        let event = Event::Apply(Guarded(Ok(object)));
        self.writers.registries.apply_watcher_event(&event);
        model_registry::seen(&self.context)(&event);
        let key = RegistryKey::Object { namespace: namespace.to_owned(), name: "mlflow".to_owned() };
        let url: url::Url = url.parse().unwrap();
        let pods =
            RegistryForPods { tracking_uri: url.clone(), workspace: None, ca: None, env_from: Vec::new() };
        let poll_interval = Duration::from_secs(30);
        self.context
            .registries
            .set(&key, Settings { url, workspace: None, poll_interval, limits: Limits::default(), pods });
    }

    fn model(&mut self, namespace: &str) {
        let object = json!({ "metadata": metadata(namespace, "fraud", 1), "spec": {} });
        let object: RegisteredModel = serde_json::from_value(object).unwrap();
        let event = Event::Apply(Guarded(Ok(object)));
        self.writers.models.apply_watcher_event(&event);
        registered_model::seen(&self.context)(&event);
    }

    fn alias(&mut self, namespace: &str, age: usize, registry: Option<&str>) {
        let registry = registry.map(|url| json!({ "kind": "ModelRegistry", "name": "mlflow", "url": url }));
        let object = json!({
            "metadata": metadata(namespace, "champion", age),
            "spec": { "modelRef": { "name": "fraud" }, "alias": "champion", "version": "1" },
            "status": { "modelName": "fraud", "registry": registry },
        });
        let object: ModelAlias = serde_json::from_value(object).unwrap();
        self.alias_event(&Event::Apply(Guarded(Ok(object))));
    }

    fn alias_event(&mut self, event: &Event<Guarded<ModelAlias>>) {
        self.writers.aliases.apply_watcher_event(event);
        model_alias::seen(&self.context)(event);
    }

    /// Why the ModelAlias of a namespace is blocked.
    fn blocker(&self, namespace: &str) -> Option<Reason> {
        let key = ObjectRef::new("champion").within(namespace);
        let stored = self.context.aliases.get(&key)?;
        let alias = stored.0.as_ref().ok()?;
        let now = Timestamp::UNIX_EPOCH;
        let recalled = self.context.memory.recall(alias, now);
        let subject = Subject::resolve(alias, self.context.references(), recalled);
        observe(&self.context.sources(), &subject, now).intent.blocker.map(|blocker| blocker.cause.reason)
    }
}

const OURS: &str = "http://ours:5000";
const THEIRS: &str = "http://theirs:5000";

#[tokio::test]
async fn an_older_alias_that_cannot_be_resolved_claims_nothing_in_another_registry() {
    let mut fixture = Fixture::new();
    // The tenant `theirs` deleted its RegisteredModel. Its ModelAlias is older and names the same alias of a
    // model of the same name.
    fixture.registry("theirs", THEIRS);
    fixture.alias("theirs", 1, Some(THEIRS));
    fixture.registry("ours", OURS);
    fixture.model("ours");
    fixture.alias("ours", 2, Some(OURS));
    assert_eq!(fixture.blocker("theirs"), Some(Reason::RegisteredModelNotFound));
    assert_eq!(fixture.blocker("ours"), None);
}

#[tokio::test]
async fn an_older_alias_that_cannot_be_resolved_keeps_its_claim_in_its_registry() {
    let mut fixture = Fixture::new();
    fixture.alias("theirs", 1, Some(OURS));
    fixture.registry("ours", OURS);
    fixture.model("ours");
    fixture.alias("ours", 2, Some(OURS));
    assert_eq!(fixture.blocker("ours"), Some(Reason::Conflict));
}

#[tokio::test]
async fn promise_3_an_alias_may_be_claimed_by_whoever_cannot_be_parsed_and_says_nothing() {
    let fixture = Fixture::new();
    let unreadable = |name: &str, spec: Value| {
        let metadata = metadata("risk", name, 1);
        let raw = json!({ "metadata": metadata, "spec": spec });
        let metadata = serde_json::from_value(metadata).unwrap();
        let object = Guarded(Err(Unreadable { error: "no".to_owned(), metadata, raw }));
        fixture.context.index().alias_event(&Event::Apply(object));
        fixture.context.index().unknown_claimant()
    };
    assert_eq!(fixture.context.index().unknown_claimant(), None);
    let by = unreadable("b", json!({ "modelRef": { "name": "fraud" }, "alias": 7 }));
    assert_eq!(by, Some(("risk".to_owned(), "b".to_owned())));
}
