//! Requests reconciles of the objects that a change of a registry concerns.

use std::collections::{BTreeSet, HashSet};

use kube::ResourceExt;

use super::registered_model;
use crate::{
    api::{RegisteredModel, names::ModelName},
    controllers::context::Context,
    registry::polled::RegistryKey,
};

/// Wakes the object of a registry, and everything that uses it.
pub(super) fn wake_all(context: &Context, key: &RegistryKey) {
    wake_object(context, key);
    wake(context, key, |_| true);
}

/// Wakes the `RegisteredModels` of a registry whose models changed there, and the `ModelAliases` of those.
pub fn changed(context: &Context, key: &RegistryKey, models: &BTreeSet<ModelName>) {
    wake(context, key, |model| model.model_name().is_ok_and(|name| models.contains(&name)));
}

/// Requests a reconcile of the object that describes a registry.
pub(super) fn wake_object(context: &Context, key: &RegistryKey) {
    match key {
        RegistryKey::Cluster { name } => context.requeue.cluster_registry(name),
        RegistryKey::Object { namespace, name } => context.requeue.registry(namespace, name),
    }
}

/// Wakes the chosen `RegisteredModels` of a registry, and the `ModelAliases` of those.
pub(super) fn wake(context: &Context, key: &RegistryKey, choose: impl Fn(&RegisteredModel) -> bool) {
    wake_models(context, |model| context.registry_objects.key(model).as_ref() == Ok(key) && choose(model));
}

/// Wakes `RegisteredModels`, and the `ModelAliases` of those.
pub(super) fn wake_models(context: &Context, choose: impl Fn(&RegisteredModel) -> bool) {
    let models = context.models.state();
    let chosen: HashSet<(String, String)> = models
        .iter()
        .filter_map(|model| model.0.as_ref().ok())
        .filter(|model| choose(model))
        .map(|model| (model.namespace().unwrap_or_default(), model.name_any()))
        .collect();
    for (namespace, name) in &chosen {
        context.requeue.model(namespace, name);
    }
    registered_model::wake_aliases(context, &chosen);
}
