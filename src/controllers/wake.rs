//! Requests reconciles of the objects that a change concerns.

use std::collections::BTreeSet;

use crate::{
    api::names::ModelName,
    controllers::context::Context,
    registry::polled::RegistryKey,
    resolve::index::{Affected, ModelKey},
};

/// Wakes the object of a registry, and everything that uses it.
pub(super) fn wake_all(context: &Context, key: &RegistryKey) {
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

/// Wakes the `RegisteredModels` of a registry, and the `ModelAliases` of those.
pub(super) fn wake_users(context: &Context, key: &RegistryKey) {
    wake_models(context, &context.index().users(key));
}

/// Wakes the `RegisteredModels` of a registry whose models changed there, and the `ModelAliases` of those.
pub fn changed(context: &Context, key: &RegistryKey, models: &BTreeSet<ModelName>) {
    wake_models(context, &context.index().about(key, models));
}

fn wake_models(context: &Context, models: &BTreeSet<ModelKey>) {
    for model in models {
        context.requeue.model(&model.0, &model.1);
        for alias in context.index().dependents(model) {
            context.requeue.alias(&alias);
        }
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
