//! Polls every registry and wakes the objects that its changes concern.
#![expect(clippy::disallowed_methods, reason = "effects: reads the clock")]

use std::{sync::Arc, time::Instant};

use tokio::task::JoinHandle;

use super::{
    wake::{self, wake_all, wake_object, wake_unsettled},
    webhook,
};
use crate::{
    controllers::context::Context,
    observe::{plan_of_models, poll_plan},
    registry::polled::{Due, PollOutcome, PolledRegistry, RegistryKey},
};

/// How many polls after a change of the registry's health wake the objects that wait for something. The second
/// one finds those whose reconcile saw the health of before.
const SWEEPS: u32 = 2;

/// Polls a registry until it is forgotten, and wakes the objects that changes concern.
pub(super) async fn poll_forever(context: Arc<Context>, key: RegistryKey, registry: Arc<PolledRegistry>) {
    context.readiness.reached().await;
    let mut known = None;
    let mut sweeps = 0;
    let mut display: Option<JoinHandle<()>> = None;
    while context.registry_objects.exists(&key) {
        let began = Instant::now();
        let outcome = registry.poll(|| poll_plan(&context.watched(), &key, &registry)).await;
        context.metrics.poll(outcome.failure.is_none(), began.elapsed());
        if outcome.health_changed {
            sweeps = SWEEPS;
            wake_object(&context, &key);
        }
        report(&key, &registry, &outcome);
        wake::changed(&context, &key, &outcome.changed);
        if sweeps > 0 {
            sweeps -= 1;
            wake_unsettled(&context, &key);
        }
        // These are the least urgent reads: nothing else waits for them.
        if outcome.failure.is_none() && display.as_ref().is_none_or(JoinHandle::is_finished) {
            let (context, key, registry) = (context.clone(), key.clone(), registry.clone());
            display = Some(tokio::spawn(async move {
                let changed = registry.read_display_metrics().await;
                wake::changed(&context, &key, &changed);
            }));
        }
        // The status of the object counts them.
        let watched = context.index().model_count(&key);
        if known.replace(watched) != Some(watched) {
            wake_object(&context, &key);
        }
        tokio::select! {
            () = read_until_next_poll(&context, &key, &registry) => {}
            () = registry.retirement() => return,
        }
    }
    context.registries.remove(&key);
    wake_all(&context, &key);
    if !context.registry_objects.exists(&key) {
        webhook::end(&context, &key, &registry).await;
    }
}

/// Reads the models that webhook deliveries name, until the next poll is due.
async fn read_until_next_poll(context: &Arc<Context>, key: &RegistryKey, registry: &PolledRegistry) {
    let regular = registry.next_regular_poll();
    while let Due::Models(names) = registry.next_due(regular).await {
        let plan = plan_of_models(&context.watched(), key, registry, &names);
        let changed = registry.read_named(plan).await;
        wake::changed(context, key, &changed);
    }
}

fn report(key: &RegistryKey, registry: &PolledRegistry, outcome: &PollOutcome) {
    if let Some(cause) = &outcome.failure {
        tracing::debug!(registry = %key, reason = %cause.reason, message = cause.message, "poll failed");
    }
    if outcome.health_changed {
        if let (Some(Err(cause)), _) = registry.health() {
            tracing::warn!(registry = %key, reason = %cause.reason, message = cause.message, "registry not \
                 reachable");
        } else {
            tracing::info!(registry = %key, url = %registry.settings.url, "registry reachable");
        }
    }
}
