//! Requests reconciles of the objects that a change concerns.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::runtime::reflector::ObjectRef;

use crate::{
    api::{model_alias::AliasKey, names::ModelName},
    controllers::context::Context,
    registry::polled::{RegistryKey, spread},
    resolve::index::{Affected, ModelKey},
    status::{is_alias_settled, is_model_settled},
};

/// How many objects are woken at once, where it may be thousands.
const AT_ONCE: usize = 100;

/// The pause after so many.
const PAUSE: Duration = Duration::from_millis(500);

/// Which objects that use a registry are woken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Users {
    All,
    /// Those that wait for something.
    Unsettled,
}

/// Wakes the object of a registry, and everything that uses it.
pub(super) fn wake_all(context: &Arc<Context>, key: &RegistryKey) {
    wake_object(context, key);
    wake_users(context, key);
}

/// Requests a reconcile of the object that describes a registry.
pub(super) fn wake_object(context: &Context, key: &RegistryKey) {
    match key {
        RegistryKey::Cluster { name } => context.requeue.cluster_registry(name),
        RegistryKey::Object { namespace, name } => context.requeue.registry(namespace, name),
    }
}

/// Wakes the `RegisteredModels` of a registry, and the `ModelAliases` of those, a few at a time.
pub(super) fn wake_users(context: &Arc<Context>, key: &RegistryKey) {
    tokio::spawn(wake_in_turn(context.clone(), context.index().users(key), Users::All));
}

/// Wakes those that wait for something, a few at a time. An object at rest has nothing to do when its registry
/// fails or recovers, and the object of the registry reports that: thousands of statuses are not rewritten.
pub(super) fn wake_unsettled(context: &Arc<Context>, key: &RegistryKey) {
    tokio::spawn(wake_in_turn(context.clone(), context.index().users(key), Users::Unsettled));
}

async fn wake_in_turn(context: Arc<Context>, models: BTreeSet<ModelKey>, users: Users) {
    let mut woken = 0;
    for model in models {
        if users == Users::All || !is_model_at_rest(&context, &model) {
            context.requeue.model(&model.0, &model.1);
            woken += 1;
        }
        for alias in context.index().dependents(&model) {
            if users == Users::All || !is_alias_at_rest(&context, &alias) {
                context.requeue.alias(&alias);
                woken += 1;
            }
        }
        if woken >= AT_ONCE {
            woken = 0;
            tokio::time::sleep(spread(PAUSE, 50)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

fn is_model_at_rest(context: &Context, (namespace, name): &ModelKey) -> bool {
    let model = context.models.get(&ObjectRef::new(name).within(namespace));
    model.is_some_and(|model| model.0.as_ref().is_ok_and(is_model_settled))
}

fn is_alias_at_rest(context: &Context, (namespace, name): &AliasKey) -> bool {
    let alias = context.aliases.get(&ObjectRef::new(name).within(namespace));
    alias.is_some_and(|alias| {
        alias.0.as_ref().is_ok_and(|alias| is_alias_settled(alias, &context.memory.latest_status(alias)))
    })
}

/// Wakes the `RegisteredModels` of a registry whose models changed there, and the `ModelAliases` of those.
pub fn changed(context: &Context, key: &RegistryKey, models: &BTreeSet<ModelName>) {
    for model in context.index().about(key, models) {
        context.requeue.model(&model.0, &model.1);
        for alias in context.index().dependents(&model) {
            context.requeue.alias(&alias);
        }
    }
    if models.is_empty() {
        return;
    }
    for (alias, _) in context.memory.ending(key).iter().filter(|(_, model)| models.contains(model)) {
        context.requeue.alias(alias);
    }
}

/// Wakes the objects that an event concerns.
pub(super) fn affected(context: &Context, affected: &Affected) {
    for (namespace, name) in &affected.models {
        context.requeue.model(namespace, name);
    }
    for alias in &affected.aliases {
        context.requeue.alias(alias);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll, time::Instant};

    use clap::Parser;
    use futures::StreamExt;
    use kube::{Client, Config, runtime::watcher::Event};
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::{ModelAlias, ModelExperiment, ModelRegistry, RegisteredModel},
        cluster::{Guarded, RequeueStreams},
        controllers::{
            Leadership, context::Writers, leadership::begin_to_act, model_alias, model_registry,
            registered_model,
        },
        fence::Fence,
        options::RunOptions,
    };

    struct Fixture {
        context: Arc<Context>,
        writers: Writers,
        streams: RequeueStreams,
    }

    fn metadata(name: &str) -> Value {
        json!({
            "namespace": "risk", "name": name, "uid": name, "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        })
    }

    fn condition(type_: &str, holds: bool) -> Value {
        json!({
            "type": type_, "status": if holds { "True" } else { "False" }, "reason": "AsDesired",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    }

    fn event<K: serde::de::DeserializeOwned>(object: Value) -> Event<Guarded<K>> {
        Event::Apply(Guarded(Ok(serde_json::from_value(object).unwrap())))
    }

    impl Fixture {
        fn new() -> Self {
            #[derive(Parser)]
            struct Options {
                #[command(flatten)]
                run: RunOptions,
            }
            let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
            let options = Options::try_parse_from(["laurel"]).unwrap().run;
            let (context, writers, streams) =
                Context::new(client, &options, Leadership::alone(), Fence::default()).unwrap();
            let mut fixture = Self { context, writers, streams };
            let spec = json!({ "mlflow": { "url": "http://mlflow:5000" } });
            let registry = event::<ModelRegistry>(json!({ "metadata": metadata("mlflow"), "spec": spec }));
            fixture.writers.registries.apply_watcher_event(&registry);
            model_registry::seen(&fixture.context)(&registry);
            fixture
        }

        /// A RegisteredModel with one ModelAlias, both at rest or both not.
        fn add(&mut self, name: &str, is_settled: bool) {
            let ready = condition("Ready", is_settled);
            let model = event::<RegisteredModel>(json!({
                "metadata": metadata(name),
                "spec": { "registryRef": { "kind": "ModelRegistry", "name": "mlflow" } },
                "status": { "observedGeneration": 1, "conditions": [ready] },
            }));
            self.writers.models.apply_watcher_event(&model);
            registered_model::seen(&self.context)(&model);
            let alias = event::<ModelAlias>(json!({
                "metadata": metadata(name),
                "spec": { "modelRef": { "name": name }, "alias": "champion", "version": "1" },
                "status": {
                    "observedGeneration": 1, "version": "1", "targetVersion": "1",
                    "conditions": [ready, condition("RegistrySynced", true)],
                },
            }));
            self.writers.aliases.apply_watcher_event(&alias);
            model_alias::seen(&self.context)(&alias);
        }

        /// Forgets what was woken by the events themselves.
        async fn drain(&mut self) {
            poll_fn(|context| {
                while let Poll::Ready(Some(_)) = self.streams.aliases.poll_next_unpin(context) {}
                while let Poll::Ready(Some(_)) = self.streams.models.poll_next_unpin(context) {}
                Poll::Ready(())
            })
            .await;
        }

        async fn next(&mut self) -> (String, String) {
            let alias = self.streams.aliases.next().await.unwrap().name;
            (alias, self.streams.models.next().await.unwrap().name)
        }
    }

    /// What was asked for before this process acts was not done, also by a standby that takes over.
    #[tokio::test]
    async fn every_object_is_woken_when_this_process_begins_to_act() {
        let mut fixture = Fixture::new();
        fixture.add("fraud", true);
        let experiment = event::<ModelExperiment>(json!({
            "metadata": metadata("q4"),
            "spec": {
                "championRef": { "name": "fraud" }, "challengers": [{ "aliasRef": { "name": "other" } }],
                "metrics": [{ "name": "failures", "role": "Primary", "failures": {} }],
            },
        }));
        fixture.writers.experiments.apply_watcher_event(&experiment);
        fixture.drain().await;
        fixture.context.readiness.read("everything");
        begin_to_act(fixture.context.clone()).await;
        let Fixture { streams, .. } = &mut fixture;
        assert_eq!(streams.aliases.next().await.unwrap().name, "fraud");
        assert_eq!(streams.models.next().await.unwrap().name, "fraud");
        assert_eq!(streams.registries.next().await.unwrap().name, "mlflow");
        let experiment = streams.experiments.try_recv().expect("the experiment is woken");
        assert_eq!(experiment.name, "q4");
    }

    fn key() -> RegistryKey {
        RegistryKey::Object { namespace: "risk".to_owned(), name: "mlflow".to_owned() }
    }

    #[tokio::test]
    async fn objects_at_rest_are_not_woken_when_their_registry_fails_or_recovers() {
        let mut fixture = Fixture::new();
        for number in 0..50 {
            fixture.add(&format!("m{number:02}"), number != 7 && number != 49);
        }
        fixture.drain().await;
        wake_unsettled(&fixture.context, &key());
        assert_eq!(fixture.next().await, ("m07".to_owned(), "m07".to_owned()));
        assert_eq!(fixture.next().await, ("m49".to_owned(), "m49".to_owned()), "nothing between them");
        wake_users(&fixture.context, &key());
        assert_eq!(fixture.next().await, ("m00".to_owned(), "m00".to_owned()), "all of them");
    }

    #[tokio::test]
    async fn hundreds_of_objects_are_woken_in_turn() {
        let mut fixture = Fixture::new();
        for number in 0..150 {
            fixture.add(&format!("m{number:03}"), false);
        }
        fixture.drain().await;
        let began = Instant::now();
        wake_unsettled(&fixture.context, &key());
        for number in 0..150 {
            let name = format!("m{number:03}");
            assert_eq!(fixture.next().await, (name.clone(), name));
        }
        assert!(began.elapsed() >= PAUSE, "two pauses of at least half of it: {:?}", began.elapsed());
    }
}
