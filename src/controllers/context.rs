//! What every shell and every effect shares: the clients, what is known of the cluster and of the registries, and what is under
//! way beside the passes.
//!
//! ```text
//! wakeups     asks for a pass over an object
//! haste       what must not be done again and again as fast as it can be
//! readiness   what has still to be read before anything may be decided
//! memory      what is remembered of single objects between passes
//! ```
#![expect(clippy::disallowed_types, reason = "effects: holds the clients")]

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::{
        events::{Event, EventType, Recorder, Reporter},
        reflector::Store,
    },
};

use crate::{
    api::{ModelAlias, ModelRegistry, RegisteredModel, condition::shortened},
    cluster::{Guarded, Readiness, Wakeups, cache::Cache},
    registry::polled::Hub,
    state::{Haste, Memory, alias_writes::AliasWrites, audit_writes::RecordWrites, smoke_tests::SmokeTests},
    status::Announcement,
    telemetry::metrics::Metrics,
    webhook::Push,
};

/// What every shell needs.
pub struct Context {
    /// The client for the cluster.
    pub client: Client,
    /// What our own objects look like there.
    pub cluster: Arc<Cache>,
    /// The registries that are watched.
    pub registries: Hub,
    /// Their webhooks.
    pub push: Push,
    /// All `ModelAliases`.
    pub aliases: Store<Guarded<ModelAlias>>,
    /// All `RegisteredModels`.
    pub models: Store<Guarded<RegisteredModel>>,
    /// All `ModelRegistries`.
    pub model_registries: Store<Guarded<ModelRegistry>>,
    /// Asks for a pass over an object.
    pub wakeups: Wakeups,
    /// The smoke tests.
    pub smoke: SmokeTests,
    /// The aliases that are being set in registries.
    pub alias_writes: AliasWrites,
    /// What is being written into the tags of versions in registries.
    pub records: RecordWrites,
    /// Whether the API server stamps who changed a ModelAlias, so that the annotation is to be believed.
    pub trusts_changed_by: bool,
    /// The metrics.
    pub metrics: Metrics,
    /// What has been read from the cluster.
    pub readiness: Readiness,
    /// What is remembered of single objects.
    pub memory: Memory,
    /// What was done or failed a moment ago.
    pub haste: Haste,
    /// Publishes Events.
    pub recorder: Recorder,
}

impl Context {
    /// Forgets what is kept in memory about a ModelAlias that is gone.
    pub fn forget_alias(&self, uid: &str) {
        self.memory.forget_alias(uid);
        self.smoke.forget(uid);
        self.alias_writes.forget(uid);
        self.records.forget(uid);
        self.haste.forget(uid);
    }

    /// What publishes Events, in Laurel's name.
    #[must_use]
    pub fn recorder(client: &Client) -> Recorder {
        let instance = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).ok();
        Recorder::new(client.clone(), Reporter { controller: "laurel.dev/laurel".to_owned(), instance })
    }

    /// Publishes Events about an object, beside the pass. That one fails is logged and nothing more: an Event is a
    /// courtesy.
    pub fn announce<K: Resource<DynamicType = ()>>(&self, object: &K, news: Vec<Announcement>) {
        self.announce_about(object.object_ref(&()), news);
    }

    /// The same about an object of which only the reference is known.
    pub fn announce_about(&self, regarding: ObjectReference, news: Vec<Announcement>) {
        // The API server takes at most 1 kB.
        const NOTE_MAX: usize = 1000;
        let recorder = self.recorder.clone();
        let publish = async move {
            for news in news {
                let event = Event {
                    type_: if news.warning { EventType::Warning } else { EventType::Normal },
                    reason: news.reason,
                    note: Some(shortened(&news.message, NOTE_MAX)),
                    action: news.action,
                    secondary: None,
                };
                if let Err(error) = recorder.publish(&event, &regarding).await {
                    tracing::debug!(%error, reason = event.reason, "an Event could not be published");
                }
            }
        };
        tokio::spawn(publish);
    }
}
