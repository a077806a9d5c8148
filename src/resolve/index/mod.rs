//! Who refers to what, and who claims which alias: kept up to date by the watches, so that one event costs
//! what it touches and not a walk over all objects.
//!
//! ```text
//! facts   what one object says of its references (pure)
//! experiments  which ModelAliases are compared (pure)
//! graph   what follows from all of them: claims, dependents, users of a registry (pure)
//! relist  events of a watch as changes, with what is missing from a new list
//! ```
//!
//! An object that cannot be parsed still claims and refers to what it says, or said before: unknown is not
//! absent.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{ResourceExt, core::PartialObjectMeta, runtime::watcher::Event};
use parking_lot::Mutex;

use self::{
    experiments::{ExperimentFacts, Experiments},
    facts::{AliasFacts, ModelFacts, RegistryFacts, key, labels},
    graph::Graph,
    relist::Relist,
};
use crate::{
    api::{
        ModelAlias, ModelExperiment, RegisteredModel,
        model_alias::AliasKey,
        model_experiment::ExperimentKey,
        names::{AliasName, ModelName, Version},
    },
    cluster::Guarded,
    options::RegistryHosts,
    registry::polled::RegistryKey,
};

mod experiments;
mod facts;
mod graph;
mod relist;
#[cfg(test)]
mod tests;

pub use facts::{Age, Describes, ModelKey, Place};
pub use graph::Affected;

/// The index over all objects.
#[derive(Debug, Default)]
pub struct Index {
    inner: Mutex<Inner>,
    /// The hosts that `ModelRegistries` may name. One that names another describes no registry.
    hosts: RegistryHosts,
}

#[derive(Debug, Default)]
struct Inner {
    graph: Graph,
    aliases: Relist<AliasKey>,
    models: Relist<ModelKey>,
    registries: Relist<RegistryKey>,
    cluster_registries: Relist<RegistryKey>,
    namespaces: Relist<String>,
    experiments: Experiments,
    listed_experiments: Relist<ExperimentKey>,
}

/// Changes, as watches deliver them. Each returns the objects that it concerns.
impl Index {
    /// Creates an empty one.
    #[must_use]
    pub fn new(hosts: RegistryHosts) -> Self {
        Self { inner: Mutex::default(), hosts }
    }

    /// An event of a ModelAlias.
    pub fn alias_event(&self, event: &Event<Guarded<ModelAlias>>) -> Affected {
        let (mut inner, mut affected) = (self.inner.lock(), Affected::default());
        let Inner { graph, aliases, .. } = &mut *inner;
        for change in aliases.changes(event, key, || graph.alias_keys()) {
            let (key, object) = change.parts();
            graph.set_alias(&key, object.map(AliasFacts::of), &mut affected);
        }
        affected
    }

    /// An event of a RegisteredModel.
    pub fn model_event(&self, event: &Event<Guarded<RegisteredModel>>) -> Affected {
        let (mut inner, mut affected) = (self.inner.lock(), Affected::default());
        let Inner { graph, models, .. } = &mut *inner;
        for change in models.changes(event, key, || graph.model_keys()) {
            let (key, object) = change.parts();
            graph.set_model(&key, object.map(ModelFacts::of), &mut affected);
        }
        affected
    }

    /// An event of a ModelExperiment. The UIDs of those that are gone are among `gone`.
    pub fn experiment_event(&self, event: &Event<Guarded<ModelExperiment>>) -> Affected {
        let (mut inner, mut affected) = (self.inner.lock(), Affected::default());
        let Inner { experiments, listed_experiments, .. } = &mut *inner;
        for change in listed_experiments.changes(event, key, || experiments.keys()) {
            let (key, object) = change.parts();
            experiments.set(&key, object.map(ExperimentFacts::of), &mut affected);
        }
        affected
    }

    /// An event of an object that describes a registry.
    pub fn registry_event<K: Describes>(&self, event: &Event<Guarded<K>>) -> Affected {
        let (mut inner, mut affected) = (self.inner.lock(), Affected::default());
        let Inner { graph, registries, cluster_registries, .. } = &mut *inner;
        let relist = if K::IS_CLUSTER_WIDE { cluster_registries } else { registries };
        let of_kind = || {
            let is_of_kind =
                |key: &RegistryKey| matches!(key, RegistryKey::Cluster { .. }) == K::IS_CLUSTER_WIDE;
            graph.registry_keys().into_iter().filter(is_of_kind).collect()
        };
        for change in relist.changes(event, K::key_of, of_kind) {
            let (key, object) = change.parts();
            graph.set_registry(
                &key,
                object.map(|object| RegistryFacts::of(object, &self.hosts)),
                &mut affected,
            );
        }
        affected
    }

    /// An event of a namespace, which has labels.
    pub fn namespace_event(&self, event: &Event<PartialObjectMeta<Namespace>>) -> Affected {
        let (mut inner, mut affected) = (self.inner.lock(), Affected::default());
        let Inner { graph, namespaces, .. } = &mut *inner;
        for change in namespaces.changes(event, ResourceExt::name_any, || graph.namespaces()) {
            let (name, object) = change.parts();
            graph.set_labels(&name, object.map(labels), &mut affected);
        }
        affected
    }
}

/// Questions.
impl Index {
    /// Returns the oldest ModelAlias that claims an alias of a model in a registry and is older than this
    /// one.
    #[must_use]
    pub fn older_claimant(
        &self,
        place: &Place,
        alias: &AliasName,
        metadata: &ObjectMeta,
    ) -> Option<AliasKey> {
        let age = Age::of(metadata);
        let inner = self.inner.lock();
        let (oldest, key) = inner.graph.claimants(place, alias).next()?;
        (*oldest < age && oldest.uid() != age.uid()).then(|| key.clone())
    }

    /// Whether a ModelAlias other than the one with this UID claims an alias of a model in a registry.
    #[must_use]
    pub fn is_claimed_by_another(&self, place: &Place, alias: &AliasName, uid: &str) -> bool {
        self.inner.lock().graph.claimants(place, alias).any(|(age, _)| age.uid() != uid)
    }

    /// Returns a ModelAlias that cannot be parsed and does not say what it claims: it may claim any alias.
    #[must_use]
    pub fn unknown_claimant(&self) -> Option<AliasKey> {
        self.inner.lock().graph.unknown_claimant().cloned()
    }

    /// Returns the model whose aliases a ModelAlias claims, with its registry.
    #[must_use]
    pub fn place_of(&self, alias: &AliasKey) -> Option<Place> {
        self.inner.lock().graph.place_of(alias).cloned()
    }

    /// Returns the `ModelAliases` that name a RegisteredModel.
    #[must_use]
    pub fn dependents(&self, model: &ModelKey) -> Vec<AliasKey> {
        self.inner.lock().graph.dependents(model).cloned().collect()
    }

    /// Returns the `ModelAliases` that name one as a challenger.
    #[must_use]
    pub fn champions(&self, alias: &AliasKey) -> Vec<AliasKey> {
        self.inner.lock().graph.champions(alias).cloned().collect()
    }

    /// Returns the `ModelExperiments` that are about a ModelAlias.
    #[must_use]
    pub fn experiments(&self, alias: &AliasKey) -> Vec<ExperimentKey> {
        self.inner.lock().experiments.about(alias).cloned().collect()
    }

    /// Returns the champions of the `ModelExperiments` that have withdrawn a version of a challenger.
    #[must_use]
    pub fn withdrawn_from(&self, challenger: &AliasKey) -> BTreeSet<AliasKey> {
        self.inner.lock().experiments.withdrawn_from(challenger)
    }

    /// Returns the ModelExperiment of a champion that has withdrawn a version of a challenger.
    #[must_use]
    pub fn withdrawn_by(&self, champion: &AliasKey, challenger: &str, version: Version) -> Option<String> {
        let inner = self.inner.lock();
        inner.experiments.withdrawn_by(champion, challenger, version).map(|(_, name)| name.clone())
    }

    /// Returns the `ModelAliases` that refer to the HTTPRoute with a namespace and a name.
    #[must_use]
    pub fn route_referrers(&self, route: &AliasKey) -> Vec<AliasKey> {
        self.inner.lock().graph.route_referrers(route).cloned().collect()
    }

    /// Returns the models of a registry that some RegisteredModel is about.
    #[must_use]
    pub fn models_of(&self, registry: &RegistryKey) -> BTreeSet<ModelName> {
        self.inner.lock().graph.users(registry).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// Returns the number of these.
    #[must_use]
    pub fn model_count(&self, registry: &RegistryKey) -> usize {
        self.inner.lock().graph.users(registry).map_or(0, BTreeMap::len)
    }

    /// Returns the `RegisteredModels` that use a registry.
    #[must_use]
    pub fn users(&self, registry: &RegistryKey) -> BTreeSet<ModelKey> {
        let inner = self.inner.lock();
        inner.graph.users(registry).into_iter().flat_map(BTreeMap::values).flatten().cloned().collect()
    }

    /// Returns the `RegisteredModels` about one of these models of a registry.
    #[must_use]
    pub fn about(&self, registry: &RegistryKey, models: &BTreeSet<ModelName>) -> BTreeSet<ModelKey> {
        let inner = self.inner.lock();
        let Some(users) = inner.graph.users(registry) else { return BTreeSet::new() };
        models.iter().filter_map(|name| users.get(name)).flatten().cloned().collect()
    }

    /// Returns the `RegisteredModels` about models of this name, in any registry, and those that cannot be
    /// parsed.
    #[must_use]
    pub fn namesakes(&self, name: &ModelName) -> BTreeSet<ModelKey> {
        let inner = self.inner.lock();
        inner.graph.namesakes(name).chain(inner.graph.unreadable_models()).cloned().collect()
    }

    /// Returns the `ModelAliases` that name a RegisteredModel, and those of its namespace that cannot be
    /// parsed.
    #[must_use]
    pub fn may_refer(&self, model: &ModelKey) -> BTreeSet<AliasKey> {
        let inner = self.inner.lock();
        inner.graph.dependents(model).chain(inner.graph.unreadable_aliases(&model.0)).cloned().collect()
    }

    /// Returns the registry for `RegisteredModels` of a namespace that name none.
    #[must_use]
    pub fn default_of(&self, namespace: &str) -> Option<RegistryKey> {
        self.inner.lock().graph.default_of(namespace)
    }

    /// Returns the objects marked as defaults of a namespace or, without one, of the cluster: the one that is
    /// used comes last.
    #[must_use]
    pub fn defaults(&self, namespace: Option<&str>) -> Vec<RegistryKey> {
        self.inner.lock().graph.defaults(namespace).cloned().collect()
    }
}
