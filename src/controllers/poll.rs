//! Polls every registry and wakes the objects that its changes concern.
#![expect(clippy::disallowed_methods, reason = "effects: reads the clock")]

use std::{collections::HashSet, sync::Arc, time::Instant};

use kube::ResourceExt;

use super::{registered_model, webhook};
use crate::{
    api::RegisteredModel,
    controllers::context::Context,
    observe::{models_of, poll_plan},
    registry::polled::{PolledRegistry, RegistryKey},
};

/// Polls a registry until it is forgotten, and wakes the objects that changes concern.
pub(super) async fn poll_forever(context: Arc<Context>, key: RegistryKey, registry: Arc<PolledRegistry>) {
    context.readiness.reached().await;
    let mut known = None;
    while context.registry_objects.exists(&key) {
        let began = Instant::now();
        let outcome = registry.poll(|| poll_plan(&context.watched(), &key, &registry)).await;
        let (health, _) = registry.health();
        context.metrics.poll(matches!(health, Some(Ok(()))), began.elapsed());
        if outcome.health_changed {
            if let Some(Err(cause)) = &health {
                tracing::warn!(registry = %key, reason = %cause.reason, message = cause.message, "registry \
                     not reachable");
            } else {
                tracing::info!(registry = %key, url = %registry.settings.url, "registry reachable");
            }
            wake_all(&context, &key);
        } else if !outcome.changed.is_empty() {
            wake(&context, &key, |model| {
                model.model_name().is_ok_and(|name| outcome.changed.contains(&name))
            });
        }
        // The status of the object counts them.
        let watched = models_of(&context.watched(), &key).len();
        if known.replace(watched) != Some(watched) {
            wake_object(&context, &key);
        }
        tokio::select! {
            () = registry.next_poll() => {}
            () = registry.retirement() => return,
        }
    }
    context.registries.remove(&key);
    wake_all(&context, &key);
    if !context.registry_objects.exists(&key) {
        webhook::end(&context, &key, &registry).await;
    }
}

/// Wakes the object of a registry, and everything that uses it.
fn wake_all(context: &Context, key: &RegistryKey) {
    wake_object(context, key);
    wake(context, key, |_| true);
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
