//! What one event costs beside the number of objects in the cluster: the work of the watch stream, the
//! objects that it wakes, and one reconcile up to its status, without the calls to the API server.
//!
//! `make bench-event` runs it. It needs no cluster, prints figures, and asserts nothing.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_types, reason = "effects: the context holds a client, which is not used")]
#![expect(clippy::disallowed_methods, reason = "effects: measures time")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use clap::Parser;
use futures::StreamExt;
use jiff::Timestamp;
use kube::{Client, Config, Resource, runtime::watcher::Event};
use laurel::{
    api::{
        ModelAlias, ModelRegistry, RegisteredModel,
        metric::Metric,
        names::{AliasName, ModelName, Version},
    },
    cluster::{Guarded, RequeueStreams},
    controllers::{
        Context, Leadership, context::Writers, model_alias, model_registry, registered_model, wake,
    },
    decide::decide,
    fence::Fence,
    observe::{observe, poll_plan},
    options::RunOptions,
    registry::{
        Capabilities, InputExample, RegisteredModelFacts, Registry, RegistryError, VersionFacts,
        VersionState,
        limiter::{Limits, Priority},
        polled::{RegistryKey, Settings},
        webhook::{DesiredWebhook, WebhookError, WebhookFacts},
    },
    render::RegistryForPods,
    resolve::Subject,
    status::{self, Applied},
};
use serde_json::{Value, json};

/// How often each event is measured.
const TIMES: usize = 50;
/// Models of one registry, which is the default of its namespace.
const PER_REGISTRY: usize = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let sizes = [100, 1_000, 10_000];
    let mut table: Vec<(&str, Vec<Cost>)> = Vec::new();
    for size in sizes {
        let mut cluster = Cluster::new(size).await?;
        for (row, (what, cost)) in cluster.measure().await?.into_iter().enumerate() {
            if table.len() <= row {
                table.push((what, Vec::new()));
            }
            table[row].1.push(cost);
        }
    }
    println!("CPU µs of one event (median of {TIMES}), by ModelAliases with one RegisteredModel each,");
    println!(
        "{PER_REGISTRY} to a namespace with a registry of its own; in brackets the objects that it wakes"
    );
    println!("{:34}{:>16}{:>16}{:>16}{:>8}", "", sizes[0], sizes[1], sizes[2], "ratio");
    for (what, costs) in table {
        let ratio = costs[2].took.as_secs_f64() / costs[0].took.as_secs_f64();
        let [few, more, many] = [0, 1, 2].map(|size| costs[size].to_string());
        println!("{what:34}{few:>16}{more:>16}{many:>16}{ratio:>8.1}");
    }
    Ok(())
}

/// Returns the object that a turn is about: spread over the cluster.
fn place(turn: usize, size: usize) -> usize {
    (turn * 7919) % size
}

struct Cost {
    took: Duration,
    woken: usize,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} ({})", self.took.as_secs_f64() * 1e6, self.woken)
    }
}

type Seen<K> = Box<dyn FnMut(&Event<Guarded<K>>)>;

struct Cluster {
    context: Arc<Context>,
    writers: Writers,
    requeue: RequeueStreams,
    alias_seen: Seen<ModelAlias>,
    model_seen: Seen<RegisteredModel>,
    registry_seen: Seen<ModelRegistry>,
    size: usize,
}

fn namespace(number: usize) -> String {
    format!("team-{}", number / PER_REGISTRY)
}

fn metadata(name: &str, number: usize) -> Value {
    json!({
        "name": name, "namespace": namespace(number), "uid": format!("{name}-{number}"), "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "1"
    })
}

fn alias(number: usize) -> Result<Guarded<ModelAlias>> {
    let status = json!({
        "modelName": format!("model-{number}"), "version": "4", "targetVersion": "4", "registryVersion": "4",
        "registry": { "kind": "ModelRegistry", "name": "mlflow", "url": url(number) },
    });
    let spec =
        json!({ "modelRef": { "name": format!("model-{number}") }, "alias": "champion", "version": "4" });
    let name = format!("champion-{number}");
    let object = json!({ "metadata": metadata(&name, number), "spec": spec, "status": status });
    Ok(Guarded(Ok(serde_json::from_value(object)?)))
}

fn model(number: usize) -> Result<Guarded<RegisteredModel>> {
    let object = json!({ "metadata": metadata(&format!("model-{number}"), number), "spec": {} });
    Ok(Guarded(Ok(serde_json::from_value(object)?)))
}

fn url(number: usize) -> String {
    format!("http://mlflow.{}:5000", namespace(number))
}

fn registry(number: usize) -> Result<Guarded<ModelRegistry>> {
    let mut metadata = metadata("mlflow", number);
    metadata["annotations"] = json!({ "laurel.dev/default": "true" });
    let object = json!({ "metadata": metadata, "spec": { "mlflow": { "url": url(number) } } });
    Ok(Guarded(Ok(serde_json::from_value(object)?)))
}

fn key(number: usize) -> RegistryKey {
    RegistryKey::Object { namespace: namespace(number), name: "mlflow".to_owned() }
}

fn settings(number: usize) -> Result<Settings> {
    let url: url::Url = url(number).parse()?;
    let pods = RegistryForPods { tracking_uri: url.clone(), workspace: None, ca: None, env_from: Vec::new() };
    Ok(Settings {
        url,
        workspace: None,
        poll_interval: Duration::from_secs(30),
        limits: Limits::default(),
        pods,
    })
}

impl Cluster {
    /// Creates one of that many ModelAliases, all read and at rest.
    async fn new(size: usize) -> Result<Self> {
        #[derive(Parser)]
        struct Options {
            #[command(flatten)]
            run: RunOptions,
        }
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse()?))?;
        let options = Options::try_parse_from(["laurel"])?.run;
        let (context, writers, requeue) =
            Context::new(client, &options, Leadership::alone(), Fence::default())?;
        let mut cluster = Self {
            alias_seen: Box::new(model_alias::seen(&context)),
            model_seen: Box::new(registered_model::seen(&context)),
            registry_seen: Box::new(model_registry::seen(&context)),
            context,
            writers,
            requeue,
            size,
        };
        for number in (0..size).step_by(PER_REGISTRY) {
            cluster.registry(&Event::Apply(registry(number)?));
        }
        for number in 0..size {
            cluster.model(&Event::Apply(model(number)?));
        }
        for number in 0..size {
            cluster.alias(&Event::Apply(alias(number)?));
        }
        // Only the registries that are measured: together they would take longer than everything else.
        let measured: BTreeSet<usize> = (0..TIMES).map(|turn| place(turn, size) / PER_REGISTRY).collect();
        for number in measured.into_iter().map(|registry| registry * PER_REGISTRY) {
            let (registry, _) = cluster.context.registries.set(&key(number), settings(number)?);
            registry.set_client(Ok(Arc::new(AtRest)));
            registry.poll(|| poll_plan(&cluster.context.watched(), &key(number), &registry)).await;
        }
        cluster.woken();
        Ok(cluster)
    }

    fn alias(&mut self, event: &Event<Guarded<ModelAlias>>) {
        self.writers.aliases.apply_watcher_event(event);
        (self.alias_seen)(event);
    }

    fn model(&mut self, event: &Event<Guarded<RegisteredModel>>) {
        self.writers.models.apply_watcher_event(event);
        (self.model_seen)(event);
    }

    fn registry(&mut self, event: &Event<Guarded<ModelRegistry>>) {
        self.writers.registries.apply_watcher_event(event);
        (self.registry_seen)(event);
    }

    /// Returns the number of objects that were woken.
    fn woken(&mut self) -> usize {
        let mut objects = BTreeSet::new();
        let waker = futures::task::noop_waker();
        let mut poll = std::task::Context::from_waker(&waker);
        while let std::task::Poll::Ready(Some(object)) = self.requeue.aliases.poll_next_unpin(&mut poll) {
            objects.insert(object.to_string());
        }
        while let std::task::Poll::Ready(Some(object)) = self.requeue.models.poll_next_unpin(&mut poll) {
            objects.insert(object.to_string());
        }
        while let std::task::Poll::Ready(Some(object)) = self.requeue.registries.poll_next_unpin(&mut poll) {
            objects.insert(object.to_string());
        }
        objects.len()
    }

    /// Measures `event` of objects spread over the cluster.
    fn each(&mut self, mut event: impl FnMut(&mut Self, usize) -> Result<()>) -> Result<Cost> {
        let mut took = Vec::new();
        let mut woken = 0;
        for turn in 0..TIMES {
            let number = place(turn, self.size);
            self.woken();
            let began = Instant::now();
            event(self, number)?;
            took.push(began.elapsed());
            woken = woken.max(self.woken());
        }
        took.sort_unstable();
        Ok(Cost { took: took[TIMES / 2], woken })
    }

    fn reconcile(&self, number: usize) -> Result<()> {
        let alias = alias(number)?;
        let alias = alias.0.as_ref().ok().context("it is readable")?;
        let context = &self.context;
        let now = Timestamp::now();
        let subject = Subject::resolve(alias, context.references(), context.memory.recall(alias, now));
        let observed = observe(&context.sources(), &subject, now);
        let decision = decide(&observed);
        let identity = subject.identity(observed.counted_traffic());
        let next = status::next(&observed, &decision, &Applied::default(), &identity);
        std::hint::black_box(next);
        Ok(())
    }

    async fn measure(&mut self) -> Result<Vec<(&'static str, Cost)>> {
        // Reads of versions run beside, and are there for the second one.
        for turn in 0..TIMES {
            self.reconcile(place(turn, self.size))?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut costs = vec![(
            "ModelAlias changes",
            self.each(|it, number| {
                it.alias(&Event::Apply(alias(number)?));
                Ok(())
            })?,
        )];
        costs.push(("its reconcile", self.each(|it, number| it.reconcile(number))?));
        costs.push((
            "ModelAlias is created",
            self.each(|it, number| {
                let mut new = alias(number)?;
                if let Ok(new) = &mut new.0 {
                    new.metadata.name = Some(format!("new-{number}"));
                    new.metadata.uid = Some(format!("new-{number}"));
                    new.spec.model_ref.name = format!("other-{number}");
                    new.status = None;
                }
                it.alias(&Event::Apply(new.clone()));
                it.alias(&Event::Delete(new));
                Ok(())
            })?,
        ));
        costs.push((
            "RegisteredModel changes",
            self.each(|it, number| {
                it.model(&Event::Apply(model(number)?));
                Ok(())
            })?,
        ));
        costs.push((
            "a poll finds one changed model",
            self.each(|it, number| {
                let name: ModelName = format!("model-{number}").parse()?;
                wake::changed(&it.context, &key(number), &BTreeSet::from([name]));
                Ok(())
            })?,
        ));
        costs.push((
            "plan of a poll",
            self.each(|it, number| {
                let registry = it.context.registries.get(&key(number)).context("it is there")?;
                std::hint::black_box(poll_plan(&it.context.watched(), &key(number), &registry));
                Ok(())
            })?,
        ));
        costs.push((
            "ModelRegistry changes",
            self.each(|it, number| {
                let mut changed = registry(number)?;
                changed.meta_mut().generation = Some(i64::try_from(it.woken())? + 2);
                it.registry(&Event::Apply(changed));
                it.registry(&Event::Apply(registry(number)?));
                Ok(())
            })?,
        ));
        Ok(costs)
    }
}

/// A registry in which every model exists and its champion is version 4.
#[derive(Debug)]
struct AtRest;

fn facts(name: &ModelName) -> RegisteredModelFacts {
    let version = Version::new(4).unwrap_or_else(|| unreachable!("4 is a version"));
    RegisteredModelFacts {
        name: name.clone(),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        description: String::new(),
        tags: BTreeMap::new(),
        aliases: "champion".parse::<AliasName>().map(|alias| (alias, version)).into_iter().collect(),
    }
}

#[async_trait]
impl Registry for AtRest {
    fn with_priority(self: Arc<Self>, _: Priority) -> Arc<dyn Registry> {
        self
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { aliases: true, batch_listing: true, tags: true, metrics: true }
    }

    async fn probe(&self) -> Result<Option<String>, RegistryError> {
        Ok(None)
    }

    async fn models(
        &self,
        names: &BTreeSet<ModelName>,
    ) -> Result<BTreeMap<ModelName, RegisteredModelFacts>, RegistryError> {
        Ok(names.iter().map(|name| (name.clone(), facts(name))).collect())
    }

    async fn model(&self, name: &ModelName) -> Result<Option<RegisteredModelFacts>, RegistryError> {
        Ok(Some(facts(name)))
    }

    async fn version(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionFacts>, RegistryError> {
        let uri = format!("models:/{name}/{version}").parse();
        Ok(uri.ok().map(|model_uri| VersionFacts {
            version,
            created_at: Timestamp::UNIX_EPOCH,
            state: VersionState::Ready,
            model_uri,
            run_id: None,
            description: String::new(),
            tags: BTreeMap::new(),
        }))
    }

    async fn newest_versions(&self, _: &ModelName, _: usize) -> Result<Vec<VersionFacts>, RegistryError> {
        Ok(Vec::new())
    }

    async fn newest_versions_of(
        &self,
        _: &BTreeSet<ModelName>,
        _: usize,
    ) -> Result<BTreeMap<ModelName, Vec<VersionFacts>>, RegistryError> {
        Ok(BTreeMap::new())
    }

    async fn metrics(&self, _: &str) -> Result<Option<BTreeMap<String, Metric>>, RegistryError> {
        Ok(None)
    }

    async fn logged_model_metrics(
        &self,
        _: &str,
        _: &BTreeMap<String, Metric>,
    ) -> Result<Option<BTreeMap<String, Metric>>, RegistryError> {
        Ok(None)
    }

    async fn input_example(
        &self,
        _: &ModelName,
        _: Version,
        _: usize,
    ) -> Result<Option<InputExample>, RegistryError> {
        Ok(None)
    }

    async fn create_model(
        &self,
        _: &ModelName,
        _: &str,
        _: &BTreeMap<String, String>,
    ) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn set_description(&self, _: &ModelName, _: &str) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn set_model_tag(&self, _: &ModelName, _: &str, _: &str) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn delete_model_tag(&self, _: &ModelName, _: &str) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn set_version_tag(
        &self,
        _: &ModelName,
        _: Version,
        _: &str,
        _: &str,
    ) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn delete_version_tag(&self, _: &ModelName, _: Version, _: &str) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn delete_model(&self, _: &ModelName) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn set_alias(&self, _: &ModelName, _: &AliasName, _: Version) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn delete_alias(&self, _: &ModelName, _: &AliasName) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn webhooks(&self) -> Result<Vec<WebhookFacts>, WebhookError> {
        Ok(Vec::new())
    }

    async fn create_webhook(&self, _: &DesiredWebhook) -> Result<String, WebhookError> {
        Ok(String::new())
    }

    async fn update_webhook(&self, _: &str, _: &DesiredWebhook) -> Result<(), WebhookError> {
        Ok(())
    }

    async fn delete_webhook(&self, _: &str) -> Result<(), WebhookError> {
        Ok(())
    }

    async fn test_webhook(&self, _: &str) -> Result<Result<(), String>, WebhookError> {
        Ok(Ok(()))
    }
}
