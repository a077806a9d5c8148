//! Requests for a reconcile of an object, from anywhere in the operator.

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::runtime::reflector::ObjectRef;

use super::Guarded;
use crate::api::{
    ClusterModelRegistry, ModelAlias, ModelExperiment, ModelRegistry, RegisteredModel, model_alias::AliasKey,
    model_experiment::ExperimentKey,
};

/// Requests a reconcile of an object.
#[derive(Clone, Debug)]
pub struct Requeue {
    aliases: UnboundedSender<ObjectRef<Guarded<ModelAlias>>>,
    models: UnboundedSender<ObjectRef<Guarded<RegisteredModel>>>,
    registries: UnboundedSender<ObjectRef<Guarded<ModelRegistry>>>,
    cluster_registries: UnboundedSender<ObjectRef<Guarded<ClusterModelRegistry>>>,
    experiments: UnboundedSender<ObjectRef<Guarded<ModelExperiment>>>,
}

/// The receiving ends, one per controller.
pub struct RequeueStreams {
    /// Requests for `ModelAliases`.
    pub aliases: UnboundedReceiver<ObjectRef<Guarded<ModelAlias>>>,
    /// Requests for `RegisteredModels`.
    pub models: UnboundedReceiver<ObjectRef<Guarded<RegisteredModel>>>,
    /// Requests for `ModelRegistries`.
    pub registries: UnboundedReceiver<ObjectRef<Guarded<ModelRegistry>>>,
    /// Of `ClusterModelRegistries`.
    pub cluster_registries: UnboundedReceiver<ObjectRef<Guarded<ClusterModelRegistry>>>,
    /// Of `ModelExperiments`.
    pub experiments: UnboundedReceiver<ObjectRef<Guarded<ModelExperiment>>>,
}

impl Requeue {
    /// Creates the sending and the receiving ends.
    #[must_use]
    pub fn new() -> (Self, RequeueStreams) {
        let (aliases, alias_stream) = unbounded();
        let (models, model_stream) = unbounded();
        let (registries, registry_stream) = unbounded();
        let (cluster_registries, cluster_registry_stream) = unbounded();
        let (experiments, experiment_stream) = unbounded();
        (
            Self { aliases, models, registries, cluster_registries, experiments },
            RequeueStreams {
                aliases: alias_stream,
                models: model_stream,
                registries: registry_stream,
                cluster_registries: cluster_registry_stream,
                experiments: experiment_stream,
            },
        )
    }

    /// Requests a reconcile of a ModelAlias. During shutdown nobody listens; the next operator reconciles
    /// everything.
    pub fn alias(&self, (namespace, name): &AliasKey) {
        drop(self.aliases.unbounded_send(ObjectRef::new(name).within(namespace)));
    }

    /// Requests a reconcile of a RegisteredModel.
    pub fn model(&self, namespace: &str, name: &str) {
        drop(self.models.unbounded_send(ObjectRef::new(name).within(namespace)));
    }

    /// Requests a reconcile of a ModelRegistry.
    pub fn registry(&self, namespace: &str, name: &str) {
        drop(self.registries.unbounded_send(ObjectRef::new(name).within(namespace)));
    }

    /// Requests a reconcile of a ModelExperiment.
    pub fn experiment(&self, (namespace, name): &ExperimentKey) {
        drop(self.experiments.unbounded_send(ObjectRef::new(name).within(namespace)));
    }

    /// Asks for a reconcile of a ClusterModelRegistry.
    pub fn cluster_registry(&self, name: &str) {
        drop(self.cluster_registries.unbounded_send(ObjectRef::new(name)));
    }
}
