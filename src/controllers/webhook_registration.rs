//! Keeps a registry's webhook registered in MLflow, beside the reconciles.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    api::condition::{Reason, ReasonMessage},
    controllers::{context::Context, wake::wake_object},
    registry::{
        polled::{PolledRegistry, RegistryKey},
        webhook::DesiredWebhook,
    },
    webhook::{
        plan,
        registration::{register, unregister},
        registrations::{Ended, LastRegistration},
    },
};

/// How often a failed registration is retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// How often a working webhook is checked: somebody may have deleted it.
const CHECK_INTERVAL: Duration = Duration::from_mins(10);

/// How long a registration may take in all, whatever the server does.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(20);

/// What the registry should have.
pub(super) enum Desired {
    /// This webhook. The text is the value of the retry annotation.
    Webhook(DesiredWebhook, String),
    /// No webhook for the object with this UID.
    None(String),
}

impl Desired {
    /// Identifies what is desired in which registry.
    fn fingerprint(&self, registry: &PolledRegistry) -> String {
        let identity = registry.identity();
        let (server, workspace) = (&identity.url, identity.workspace.as_deref().unwrap_or_default());
        match self {
            Self::Webhook(desired, retry) => {
                format!("{server} {workspace} {} {} {retry}", desired.url, desired.description)
            }
            Self::None(uid) => format!("{server} {workspace} none {uid}"),
        }
    }
}

/// Returns what is known of the registration, and begins what is due. Its end wakes the object. `id` is set
/// to the id of the webhook known to be ours.
///
/// # Errors
/// Why the registry does not have what is desired.
pub(super) fn registration(
    context: &Arc<Context>,
    key: &RegistryKey,
    registry: &Arc<PolledRegistry>,
    desired: Desired,
    id: &mut Option<String>,
) -> Result<(), ReasonMessage> {
    let registrations = &context.webhooks.registrations;
    let last = registrations.last(key);
    if let Some(last) = &last {
        // The status may be older than the last registration.
        id.clone_from(&last.id);
    }
    if matches!(desired, Desired::None(_)) && id.is_none() {
        return Ok(());
    }
    let fingerprint = desired.fingerprint(registry);
    let last = last.filter(|last| last.fingerprint == fingerprint);
    let is_due =
        !last.as_ref().is_some_and(|last| last.is_recent(Instant::now(), CHECK_INTERVAL, RETRY_INTERVAL));
    let is_reachable = matches!(registry.health().0, Some(Ok(())));
    if is_due
        && is_reachable
        && let Some(running) = registrations.begin(key, || context.registry_objects.exists(key))
    {
        let (context, key, registry) = (context.clone(), key.clone(), registry.clone());
        let (known, before) = (id.clone(), last.as_ref().map(|last| last.outcome.clone()));
        tokio::spawn(async move {
            let (outcome, id) = attempt(&context, &key, &registry, &desired, known).await;
            report(&key, &desired, id.as_deref(), &outcome, before.as_ref());
            let last = LastRegistration { fingerprint, id, outcome, at: Instant::now() };
            match running.end(last) {
                Ended::Unchanged | Ended::Orphaned(None) => {}
                Ended::Changed => wake_object(&context, &key),
                Ended::Orphaned(Some(id)) => drop(unregister(&registry, "", Some(&id)).await),
            }
        });
    }
    match last {
        Some(last) => last.outcome,
        None if id.is_some() => Ok(()),
        None => {
            let message = if is_reachable {
                "the webhook is being registered"
            } else {
                "waiting for the registry before registering the webhook"
            };
            Err(ReasonMessage::new(Reason::WebhookWaiting, message))
        }
    }
}

/// Registers the webhook, or deletes it. Returns how that ended, and the webhook's id.
async fn attempt(
    context: &Context,
    key: &RegistryKey,
    registry: &PolledRegistry,
    desired: &Desired,
    mut id: Option<String>,
) -> (Result<(), ReasonMessage>, Option<String>) {
    let outcome = match desired {
        Desired::Webhook(desired, _) => {
            let receiver = context.webhooks.receivers.get(key);
            let is_waiting = receiver.is_none_or(|receiver| receiver.seen().hour.is_none());
            let work = register(registry, desired, is_waiting, &mut id);
            tokio::time::timeout(REGISTER_TIMEOUT, work).await.unwrap_or_else(|_| {
                let message = format!(
                    "the webhook could not be registered within {} s; trying again",
                    REGISTER_TIMEOUT.as_secs()
                );
                Err(ReasonMessage::new(Reason::WebhookWaiting, message))
            })
        }
        Desired::None(uid) => {
            let outcome = unregister(registry, &plan::name_of(uid), id.as_deref()).await;
            if outcome.is_ok() {
                id = None;
            }
            outcome
        }
    };
    (outcome, id)
}

/// Logs a registration that ended otherwise than the one before.
fn report(
    key: &RegistryKey,
    desired: &Desired,
    id: Option<&str>,
    outcome: &Result<(), ReasonMessage>,
    before: Option<&Result<(), ReasonMessage>>,
) {
    let Desired::Webhook(desired, _) = desired else { return };
    match outcome {
        same if before == Some(same) => {}
        Ok(()) => tracing::info!(registry = %key, id, url = desired.url, "webhook registered"),
        Err(error) => {
            let (reason, message) = (error.reason.to_string(), &error.message);
            tracing::warn!(registry = %key, reason, message, "webhook not registered");
        }
    }
}
