//! What the controllers share. Each step is handed only the part of it that it needs.

use std::{sync::Arc, time::Instant};

use kube::{Client, Resource, runtime::reflector::Store};

use crate::{
    api::{ModelAlias, RegisteredModel},
    apply::Effects,
    cluster::{Events, Guarded, Readiness, Requeue, cache::Cache, watch::Watching},
    observe::{Sources, Watched, registered_model::ModelSources},
    registry::polled::Registries,
    resolve::{References, RegistryObjects},
    state::{
        Memory, Throttle, alias_writes::AliasWrites, audit_writes::AuditWrites, pod_events::PodEvents,
        smoke_tests::SmokeTests,
    },
    status::NewEvent,
    telemetry::metrics::Metrics,
    webhook::Webhooks,
};

/// What every shell needs.
pub struct Context {
    /// When this process began.
    pub started: Instant,
    /// The client for the cluster.
    pub client: Client,
    /// What our own objects look like there.
    pub cluster: Arc<Cache>,
    /// The registries that are watched.
    pub registries: Registries,
    /// Their webhooks.
    pub push: Webhooks,
    /// All `ModelAliases`.
    pub aliases: Store<Guarded<ModelAlias>>,
    /// All `RegisteredModels`.
    pub models: Store<Guarded<RegisteredModel>>,
    /// The objects that describe registries.
    pub registry_objects: RegistryObjects,
    /// Asks for a pass over an object.
    pub requeue: Requeue,
    /// The smoke tests.
    pub smoke: SmokeTests,
    /// What Events say about pods that are waited for.
    pub pod_events: PodEvents,
    /// The aliases that are being set in registries.
    pub alias_writes: AliasWrites,
    /// What is being written into the tags of versions in registries.
    pub audit_writes: AuditWrites,
    /// Whether the API server stamps who changed a ModelAlias, so that the annotation is to be believed.
    pub trusts_changed_by: bool,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What has been read from the cluster.
    pub readiness: Arc<Readiness>,
    /// What is remembered of single objects.
    pub memory: Memory,
    /// What was done or failed a moment ago.
    pub throttle: Throttle,
    /// Publishes Events.
    pub events: Events,
}

impl Context {
    /// Forgets what is kept in memory about a ModelAlias that is gone.
    pub fn forget_alias(&self, uid: &str) {
        self.memory.forget_alias(uid);
        self.smoke.forget(uid);
        self.pod_events.forget(uid);
        self.alias_writes.forget(uid);
        self.audit_writes.forget(uid);
        self.throttle.forget(uid);
    }

    /// Where references lead.
    #[must_use]
    pub fn references(&self) -> References<'_> {
        References {
            models: &self.models,
            registry_objects: &self.registry_objects,
            registries: &self.registries,
        }
    }

    /// What an observation of a ModelAlias is made from.
    #[must_use]
    pub fn sources(&self) -> Sources<'_> {
        Sources {
            cluster: &self.cluster,
            readiness: &self.readiness,
            aliases: &self.aliases,
            references: self.references(),
            smoke: &self.smoke,
            pod_events: &self.pod_events,
            alias_writes: &self.alias_writes,
            audit_writes: &self.audit_writes,
            requeue: &self.requeue,
            trusts_changed_by: self.trusts_changed_by,
        }
    }

    /// What an observation of a RegisteredModel is made from.
    #[must_use]
    pub fn model_sources(&self) -> ModelSources<'_> {
        ModelSources {
            aliases: &self.aliases,
            models: &self.models,
            references: self.references(),
            memory: &self.memory,
        }
    }

    /// What the actions of a ModelAlias are performed with.
    #[must_use]
    pub fn effects(&self) -> Effects<'_> {
        Effects {
            client: &self.client,
            cluster: &self.cluster,
            smoke: &self.smoke,
            alias_writes: &self.alias_writes,
            audit_writes: &self.audit_writes,
            throttle: &self.throttle,
            metrics: &self.metrics,
            events: &self.events,
        }
    }

    /// What the plan of a poll is made from.
    #[must_use]
    pub fn watched(&self) -> Watched<'_> {
        Watched {
            aliases: &self.aliases,
            models: &self.models,
            registry_objects: &self.registry_objects,
            memory: &self.memory,
        }
    }

    /// What the watches write to.
    #[must_use]
    pub fn watching(&self) -> Watching {
        Watching {
            readiness: self.readiness.clone(),
            cluster: self.cluster.clone(),
            requeue: self.requeue.clone(),
            aliases: self.aliases.clone(),
        }
    }

    /// Publishes Events about an object.
    pub fn publish_events<K: Resource<DynamicType = ()>>(&self, object: &K, events: Vec<NewEvent>) {
        self.events.publish(object.object_ref(&()), events);
    }
}
