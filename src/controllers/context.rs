//! State shared by the controllers. Each step gets only the part that it needs.

use std::sync::Arc;

use kube::{Client, Resource, runtime::reflector::Store};

use super::leadership::Leadership;
use crate::{
    api::{ModelAlias, RegisteredModel},
    apply::Effects,
    cluster::{Events, Guarded, Readiness, Requeue, cache::Cache, watch::Watching},
    fence::Fence,
    observe::{EvidenceReads, ListingReads, Sources, VersionReads, Watched, registered_model::ModelSources},
    registry::polled::Registries,
    resolve::{References, RegistryObjects},
    state::{
        Memory, Throttle, alias_writes::AliasWrites, audit_writes::AuditWrites, model_writes::ModelWrites,
        pod_events::PodEvents, smoke_tests::SmokeTests,
    },
    status::NewEvent,
    telemetry::{metrics::Metrics, progress::Progress, server::Reports},
    webhook::Webhooks,
};

/// Everything that the controllers share.
pub struct Context {
    /// Whether this process acts, and since when.
    pub leadership: Leadership,
    /// Permits writes.
    pub fence: Fence,
    /// The client for the cluster.
    pub client: Client,
    /// The cache of our own objects.
    pub cluster: Arc<Cache>,
    /// The registries that are watched.
    pub registries: Registries,
    /// Their webhooks.
    pub webhooks: Webhooks,
    /// All `ModelAliases`.
    pub aliases: Store<Guarded<ModelAlias>>,
    /// All `RegisteredModels`.
    pub models: Store<Guarded<RegisteredModel>>,
    /// The objects that describe registries.
    pub registry_objects: RegistryObjects,
    /// Requests a reconcile of an object.
    pub requeue: Requeue,
    /// The smoke tests.
    pub smoke: SmokeTests,
    /// The Events about pods that are waited for.
    pub pod_events: PodEvents,
    /// Alias writes in progress.
    pub alias_writes: AliasWrites,
    /// Writes of models in progress.
    pub model_writes: ModelWrites,
    /// Reads of the newest versions of models.
    pub listing_reads: ListingReads,
    /// Reads of versions.
    pub version_reads: VersionReads,
    /// Reads of evidence about versions.
    pub evidence_reads: EvidenceReads,
    /// Audit writes in progress.
    pub audit_writes: AuditWrites,
    /// Whether the API server records who changed a ModelAlias, so that the annotation can be trusted.
    pub trusts_changed_by: bool,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The reconciles in progress.
    pub progress: Arc<Progress>,
    /// What has been read from the cluster.
    pub readiness: Arc<Readiness>,
    /// Memory of single objects.
    pub memory: Memory,
    /// Limits failed reconciles and repeated writes.
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

    /// Returns what is needed to follow references.
    #[must_use]
    pub fn references(&self) -> References<'_> {
        References {
            models: &self.models,
            registry_objects: &self.registry_objects,
            registries: &self.registries,
        }
    }

    /// Returns what an observation of a ModelAlias needs.
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
            version_reads: &self.version_reads,
            evidence_reads: &self.evidence_reads,
            trusts_changed_by: self.trusts_changed_by,
        }
    }

    /// Returns what an observation of a RegisteredModel needs.
    #[must_use]
    pub fn model_sources(&self) -> ModelSources<'_> {
        ModelSources {
            aliases: &self.aliases,
            models: &self.models,
            references: self.references(),
            memory: &self.memory,
            listing_reads: &self.listing_reads,
        }
    }

    /// Returns what the actions of a ModelAlias need.
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

    /// Returns what a poll plan needs.
    #[must_use]
    pub fn watched(&self) -> Watched<'_> {
        Watched {
            aliases: &self.aliases,
            models: &self.models,
            registry_objects: &self.registry_objects,
            memory: &self.memory,
        }
    }

    /// Returns what the HTTP endpoints report.
    #[must_use]
    pub fn reports(&self) -> Reports {
        Reports {
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Returns what the watches write to.
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
