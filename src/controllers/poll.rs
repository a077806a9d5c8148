//! Polls every registry and wakes the objects that its changes concern.
#![expect(clippy::disallowed_methods, reason = "effects: reads the clock")]

use std::{sync::Arc, time::Instant};

use super::{
    wake::{self, wake_all, wake_object},
    webhook,
};
use crate::{
    controllers::context::Context,
    observe::poll_plan,
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
            wake::changed(&context, &key, &outcome.changed);
        }
        // The status of the object counts them.
        let watched = context.index().model_count(&key);
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
