//! State shared by the controllers. Each step gets only the part that it needs.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::reflector::{self, ObjectRef, Store, store::Writer},
};

use super::leadership::Leadership;
use crate::{
    api::{
        ClusterModelRegistry, ModelAlias, ModelExperiment, ModelRegistry, RegisteredModel,
        model_alias::AliasKey,
    },
    apply::Effects,
    cluster::{Events, Guarded, Readiness, Requeue, RequeueStreams, cache::Cache, watch::Watching},
    fence::Fence,
    observe::{
        EvidenceReads, ListingReads, Sources, VersionReads, Watched, evidence_reads,
        experiment::ExperimentSources, listing_reads, registered_model::ModelSources, version_reads,
    },
    options::{RegistryHosts, RunOptions},
    registry::polled::Registries,
    resolve::{ClusterObjects, References, RegistryObjects, index::Index},
    state::{
        Memory, Meters, PodAccess, Throttle,
        alias_writes::AliasWrites,
        audit_writes::AuditWrites,
        experiments::Experiments,
        live::LiveWatches,
        object_writes::{ExperimentWrites, ModelWrites},
        pod_events::PodEvents,
        smoke_tests::SmokeTests,
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
    /// All `ModelExperiments`.
    pub experiment_objects: Store<Guarded<ModelExperiment>>,
    /// The objects that describe registries.
    pub registry_objects: RegistryObjects,
    /// Requests a reconcile of an object.
    pub requeue: Requeue,
    /// The smoke tests.
    pub smoke: SmokeTests,
    /// The versions that are judged by their live traffic.
    pub live: LiveWatches,
    /// The experiments that are counted.
    pub experiments: Experiments,
    /// The Events about pods that are waited for.
    pub pod_events: PodEvents,
    /// Alias writes in progress.
    pub alias_writes: AliasWrites,
    /// Writes of models in progress.
    pub model_writes: ModelWrites,
    /// Writes of the verdicts of experiments in progress.
    pub experiment_writes: ExperimentWrites,
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
    /// Whether `HTTPRoutes` are managed.
    pub manages_routes: bool,
    /// The hosts that `ModelRegistries` may name.
    pub registry_hosts: RegistryHosts,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The reconciles in progress.
    pub progress: Arc<Progress>,
    /// What has been read from the cluster.
    pub readiness: Arc<Readiness>,
    /// Memory of single objects.
    pub memory: Memory,
    /// Where the meter was written lately.
    pub meters: Meters,
    /// Limits failed reconciles and repeated writes.
    pub throttle: Throttle,
    /// Publishes Events.
    pub events: Events,
}

/// Returns whether there is a ModelAlias with a key and a UID.
fn exists(aliases: &Store<Guarded<ModelAlias>>) -> impl Fn(&AliasKey, &str) -> bool + Send + Sync + 'static {
    let aliases = aliases.clone();
    move |(namespace, name), uid| {
        let known = aliases.get(&ObjectRef::new(name).within(namespace));
        known.is_some_and(|known| known.uid().as_deref() == Some(uid))
    }
}

/// The writing ends of the stores.
pub struct Writers {
    /// Of the `ModelAliases`.
    pub aliases: Writer<Guarded<ModelAlias>>,
    /// Of the `RegisteredModels`.
    pub models: Writer<Guarded<RegisteredModel>>,
    /// Of the `ModelRegistries`.
    pub registries: Writer<Guarded<ModelRegistry>>,
    /// Of the `ClusterModelRegistries`.
    pub cluster_registries: Writer<Guarded<ClusterModelRegistry>>,
    /// Of the `ModelExperiments`.
    pub experiments: Writer<Guarded<ModelExperiment>>,
    /// Of the namespaces.
    pub namespaces: Writer<PartialObjectMeta<Namespace>>,
}

impl Context {
    /// Creates it with empty stores, and returns what fills them and what requests reconciles. `fence` is the
    /// one of `client`.
    ///
    /// # Errors
    /// When the HTTP client for pods cannot be created.
    pub fn new(
        client: Client,
        options: &RunOptions,
        leadership: Leadership,
        fence: Fence,
    ) -> Result<(Arc<Self>, Writers, RequeueStreams), reqwest::Error> {
        let (aliases, alias_writer) = reflector::store();
        let (models, model_writer) = reflector::store();
        let (experiment_objects, experiment_writer) = reflector::store();
        let (of_namespaces, registry_writer) = reflector::store();
        let (registries, cluster_registry_writer) = reflector::store();
        let (namespaces, namespace_writer) = reflector::store();
        let is_cluster_wide = options.namespace.is_none();
        let registry_hosts = RegistryHosts::new(options.registry_hosts.clone());
        let registry_objects = RegistryObjects {
            index: Arc::new(Index::new(registry_hosts.clone())),
            namespaced: of_namespaces,
            cluster: is_cluster_wide.then(|| ClusterObjects { registries, namespaces }),
        };
        let (requeue, streams) = Requeue::new();
        let cluster = Arc::<Cache>::default();
        let pods = PodAccess { cluster: cluster.clone(), http: pod_client()? };
        let metrics = Arc::<Metrics>::default();
        let pod_events = PodEvents::new(client.clone(), requeue.clone(), exists(&aliases));
        let context = Self {
            leadership,
            fence,
            cluster,
            registries: Registries::new(metrics.registry_waits()),
            webhooks: Webhooks::default(),
            aliases,
            models,
            experiment_objects,
            registry_objects,
            live: LiveWatches::new(pods.clone(), requeue.clone()),
            experiments: Experiments::new(pods.clone(), requeue.clone()),
            smoke: SmokeTests::new(pods, requeue.clone(), options.input_example_max_bytes),
            model_writes: ModelWrites::new(requeue.clone()),
            experiment_writes: ExperimentWrites::new(requeue.clone()),
            listing_reads: listing_reads(requeue.clone()),
            version_reads: version_reads(requeue.clone()),
            evidence_reads: evidence_reads(requeue.clone()),
            pod_events,
            alias_writes: AliasWrites::new(requeue.clone()),
            audit_writes: AuditWrites::new(requeue.clone()),
            trusts_changed_by: options.trust_changed_by,
            manages_routes: options.gateway_api,
            registry_hosts,
            metrics,
            progress: Arc::default(),
            readiness: Arc::default(),
            events: Events::new(&client, instance()),
            requeue,
            memory: Memory::default(),
            meters: Meters::default(),
            throttle: Throttle::default(),
            client,
        };
        let writers = Writers {
            aliases: alias_writer,
            models: model_writer,
            registries: registry_writer,
            cluster_registries: cluster_registry_writer,
            experiments: experiment_writer,
            namespaces: namespace_writer,
        };
        Ok((Arc::new(context), writers, streams))
    }

    /// Forgets what is kept in memory about a ModelAlias that is gone.
    pub fn forget_alias(&self, uid: &str) {
        self.memory.forget_alias(uid);
        self.smoke.forget(uid);
        self.live.forget(uid);
        self.pod_events.forget(uid);
        self.alias_writes.forget(uid);
        self.audit_writes.forget(uid);
        self.throttle.forget(uid);
    }

    /// Returns who refers to what.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.registry_objects.index
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
            aliases: &self.aliases,
            cluster: &self.cluster,
            readiness: &self.readiness,
            references: self.references(),
            smoke: &self.smoke,
            live: &self.live,
            pod_events: &self.pod_events,
            alias_writes: &self.alias_writes,
            audit_writes: &self.audit_writes,
            version_reads: &self.version_reads,
            evidence_reads: &self.evidence_reads,
            trusts_changed_by: self.trusts_changed_by,
            manages_routes: self.manages_routes,
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

    /// Returns what an observation of a ModelExperiment needs.
    #[must_use]
    pub fn experiment_sources(&self) -> ExperimentSources<'_> {
        ExperimentSources {
            aliases: &self.aliases,
            references: self.references(),
            memory: &self.memory,
            experiments: &self.experiments,
        }
    }

    /// Returns what the actions of a ModelAlias need.
    #[must_use]
    pub fn effects(&self) -> Effects<'_> {
        Effects {
            client: &self.client,
            cluster: &self.cluster,
            smoke: &self.smoke,
            live: &self.live,
            alias_writes: &self.alias_writes,
            audit_writes: &self.audit_writes,
            meters: &self.meters,
            throttle: &self.throttle,
            metrics: &self.metrics,
            events: &self.events,
            aliases: &self.aliases,
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
        let (index, routes) = (self.registry_objects.index.clone(), self.registry_objects.index.clone());
        Watching {
            champions: Arc::new(move |alias| index.champions(alias)),
            route_referrers: Arc::new(move |route| routes.route_referrers(route)),
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

/// Returns the name of Laurel's own pod, if it runs in one.
fn instance() -> Option<String> {
    std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).ok()
}

/// Creates the client for pods: no proxy, no redirects, no connection reuse.
fn pod_client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(Duration::from_secs(5))
        .build()
}
