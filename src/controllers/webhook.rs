//! The webhook of a registry: its secret, its registration in MLflow, and its condition.
//!
//! It supplements polling, and nothing waits for it: if it fails, the next poll sees the change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::ResourceExt;
use secrecy::SecretString;
use tokio::net::TcpListener;
use url::Url;

use crate::{
    api::{
        RETRY_ANNOTATION,
        condition::{ConditionStatus, ConditionType, DesiredCondition, Reason, ReasonMessage},
        model_registry::WebhookStatus,
    },
    cluster::secrets,
    controllers::{context::Context, registry_object::RegistryObject, wake::wake_object},
    options::{RunOptions, WebhookScheme},
    registry::{
        polled::{PolledRegistry, RegistryIdentity, RegistryKey},
        webhook::DesiredWebhook,
    },
    status::WebhookReport,
    webhook::{
        DeliveryOutcome, LastRegistration,
        certificate::Certificate,
        content::About,
        endpoint::{Endpoint, Limits},
        plan,
        receiver::{InvalidDelivery, Received, Seen},
        registration::{register, unregister},
    },
};

/// How often the Secret is read again and a failed registration is retried.
pub(super) const SOON: Duration = Duration::from_mins(1);

/// How often a working webhook is checked: somebody may have deleted it.
const CHECK_INTERVAL: Duration = Duration::from_mins(10);

/// How long a registration may take in all, whatever the server does.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(20);

/// Registers the webhook of an object, or deletes the one that it no longer has.
pub(super) async fn look_after<K: RegistryObject>(
    context: &Context,
    object: &K,
    registry: &PolledRegistry,
) -> WebhookReport {
    let namespace = object.secrets_namespace(context.client.default_namespace());
    let key = K::key_of(object);
    let mut status = object.known_status().and_then(|status| status.webhook.clone()).unwrap_or_default();
    let uid = object.uid().unwrap_or_default();
    let desired = object.spec().webhook.as_ref();
    if desired.is_none_or(|desired| desired.register.is_none()) {
        context.webhooks.remember_registration(&key, None);
        if let Some(id) = status.id.as_deref()
            && unregister(registry, &plan::name_of(&uid), Some(id)).await.is_ok()
        {
            status.id = None;
        }
    }
    let Some(desired) = desired else {
        context.webhooks.receivers.close(&key);
        status.last_delivery = None;
        return WebhookReport { condition: None, status: status.id.is_some().then_some(status) };
    };
    let reference = &desired.secret_ref;
    let field = "spec.webhook.secretRef";
    let secret =
        secrets::read_text(&context.client, &namespace, &reference.name, &reference.key, field).await;
    let receiver = context.webhooks.receivers.open(&key);
    let registered = match secret {
        Ok(secret) => {
            let secret = SecretString::from(secret);
            receiver.set_secret(Some(secret.clone()), Instant::now());
            match (context.webhooks.error(), &desired.register) {
                (Some(error), _) => Err(error),
                (None, None) => Ok(()),
                (None, Some(register)) => {
                    let retry = object.annotations().get(RETRY_ANNOTATION).cloned().unwrap_or_default();
                    let desired = desired_webhook(&key, &uid, &register.url, &secret);
                    match desired {
                        Ok(desired) => {
                            registration(context, &key, registry, &desired, &retry, &mut status.id).await
                        }
                        Err(invalid) => Err(invalid),
                    }
                }
            }
        }
        // A Secret that cannot be read now still exists: its last value stays in use.
        Err(error) => {
            if !error.reason.is_api_server_error() {
                receiver.set_secret(None, Instant::now());
            }
            Err(error)
        }
    };
    let seen = receiver.seen();
    status.last_delivery = status.last_delivery.max(seen.hour);
    let (holds, cause) = condition(registered, seen, &status, &key);
    WebhookReport {
        condition: Some(DesiredCondition { type_: ConditionType::WebhookReady, status: holds, cause }),
        status: Some(status),
    }
}

/// Returns the status of the condition and its cause: first why MLflow does not send deliveries, then the
/// deliveries seen.
fn condition(
    registered: Result<(), ReasonMessage>,
    seen: Seen,
    status: &WebhookStatus,
    key: &RegistryKey,
) -> (ConditionStatus, ReasonMessage) {
    if let Err(error) = registered {
        let is_waiting = error.reason == Reason::WebhookWaiting;
        return (if is_waiting { ConditionStatus::Unknown } else { ConditionStatus::False }, error);
    }
    let path = plan::path(key);
    match (seen.invalid, status.last_delivery) {
        (Some(invalid), _) => {
            let message = match invalid {
                InvalidDelivery::WrongSignature => format!(
                    "deliveries at {path} are not signed with the Secret of spec.webhook.secretRef; use the \
                     same secret in MLflow's webhook and in the Secret"
                ),
                InvalidDelivery::WrongTime => format!(
                    "deliveries at {path} differ from the operator's clock by more than five minutes; set \
                     the clocks of MLflow's server and of the operator's node"
                ),
            };
            (ConditionStatus::False, ReasonMessage::new(Reason::WebhookDeliveriesRefused, message))
        }
        (None, Some(hour)) => {
            let message = format!("deliveries arrive at {path}; the last one in the hour from {hour}");
            (ConditionStatus::True, ReasonMessage::new(Reason::WebhookReceiving, message))
        }
        (None, None) => {
            let message = format!("no delivery has arrived at {path} yet; polling continues");
            (ConditionStatus::Unknown, ReasonMessage::new(Reason::WebhookWaiting, message))
        }
    }
}

/// Returns the webhook as it should be in the registry.
fn desired_webhook(
    key: &RegistryKey,
    uid: &str,
    base: &str,
    secret: &SecretString,
) -> Result<DesiredWebhook, ReasonMessage> {
    let base: Url = base.parse().map_err(|error| {
        let message = format!("spec.webhook.register.url: {base:?} is not a valid URL: {error}; correct it");
        ReasonMessage::new(Reason::RegistryInvalid, message)
    })?;
    Ok(plan::desired_webhook(key, uid, &base, secret))
}

/// Identifies a desired webhook and its registry; `retry` is the value of the retry annotation.
fn fingerprint(registry: &RegistryIdentity, desired: &DesiredWebhook, retry: &str) -> String {
    let (server, workspace) = (&registry.url, registry.workspace.as_deref().unwrap_or_default());
    format!("{server} {workspace} {} {} {retry}", desired.url, desired.description)
}

/// Registers the webhook, unless that was done recently for the same fingerprint. `id` is the id of the
/// webhook known to be ours.
async fn registration(
    context: &Context,
    key: &RegistryKey,
    registry: &PolledRegistry,
    desired: &DesiredWebhook,
    retry: &str,
    id: &mut Option<String>,
) -> Result<(), ReasonMessage> {
    let fingerprint = fingerprint(&registry.identity(), desired, retry);
    let last = context.webhooks.last_registration(key);
    // The status may be older than the last registration.
    *id = last.as_ref().and_then(|last| last.id.clone()).or_else(|| id.take());
    let last = last.filter(|last| last.fingerprint == fingerprint);
    if let Some(last) = &last
        && last.at.elapsed() < if last.outcome.is_ok() { CHECK_INTERVAL } else { SOON / 2 }
    {
        return last.outcome.clone();
    }
    if !matches!(registry.health().0, Some(Ok(()))) {
        let waiting = ReasonMessage::new(
            Reason::WebhookWaiting,
            "waiting for the registry before registering the webhook",
        );
        return match last {
            Some(last) => last.outcome,
            None if id.is_some() => Ok(()),
            None => Err(waiting),
        };
    }
    let is_waiting =
        context.webhooks.receivers.get(key).is_none_or(|receiver| receiver.seen().hour.is_none());
    let work = register(registry, desired, is_waiting, id);
    let outcome = tokio::time::timeout(REGISTER_TIMEOUT, work).await.unwrap_or_else(|_| {
        let message = format!(
            "the webhook could not be registered within {} s; trying again",
            REGISTER_TIMEOUT.as_secs()
        );
        Err(ReasonMessage::new(Reason::WebhookWaiting, message))
    });
    match (&outcome, last.is_some_and(|last| last.outcome == outcome)) {
        (_, true) => {}
        (Ok(()), false) => {
            tracing::info!(registry = %key, id, url = desired.url, "webhook registered");
        }
        (Err(error), false) => {
            let (reason, message) = (error.reason.to_string(), &error.message);
            tracing::warn!(registry = %key, reason, message, "webhook not registered");
        }
    }
    let last = LastRegistration { fingerprint, id: id.clone(), outcome: outcome.clone(), at: Instant::now() };
    context.webhooks.remember_registration(key, Some(last));
    outcome
}

/// Removes the receiver of a deleted object, and its webhook if the registry can be reached now. Nothing
/// waits for it: deliveries of a webhook that remains are not accepted.
pub(super) async fn end(context: &Context, key: &RegistryKey, registry: &PolledRegistry) {
    context.webhooks.receivers.close(key);
    let last = context.webhooks.last_registration(key);
    context.webhooks.remember_registration(key, None);
    if let Some(id) = last.and_then(|last| last.id) {
        // By its id only: the name contains the object's UID, which is not known any more.
        drop(unregister(registry, "", Some(&id)).await);
    }
}

/// Starts the endpoint for webhooks, if it is enabled.
///
/// # Errors
/// When its address cannot be bound, or TLS cannot be set up.
pub(super) async fn listen(
    context: &Arc<Context>,
    options: &RunOptions,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let Some(address) = options.webhook_address else { return Ok(()) };
    let listener = TcpListener::bind(address).await.map_err(|error| format!("--webhook-address: {error}"))?;
    let certificate = match options.webhook_scheme {
        WebhookScheme::Https => Some(Certificate::read(&options.webhook_tls_dir)),
        WebhookScheme::Http => None,
    };
    let server = certificate.as_ref().map(Certificate::server).transpose();
    let tls = server.map_err(|error| error.to_string())?;
    if let Some(certificate) = certificate.clone() {
        tokio::spawn(certificate.keep_fresh());
    }
    context.webhooks.set_listening(certificate);
    let shared = context.clone();
    let on_delivery = move |key: Option<&RegistryKey>, received: Received, about: About| {
        shared.metrics.delivery(received.outcome);
        let Some(key) = key else { return };
        if received.outcome == DeliveryOutcome::Accepted
            && let Some(registry) = shared.registries.get(key)
        {
            match about {
                About::Model(name) if registry.watches(&name) => registry.read_soon(&name),
                About::Model(_) | About::AuditLog => {}
                About::Unknown => registry.delivery_arrived(),
            }
        }
        if received.needs_reconcile {
            wake_object(&shared, key);
        }
    };
    let leadership = context.leadership.clone();
    let endpoint = Endpoint {
        receivers: context.webhooks.receivers.clone(),
        tls,
        limits: Limits::default(),
        leader: Box::new(move || leadership.webhook_address_of_leader()),
        on_delivery: Box::new(on_delivery),
    };
    tracing::info!(%address, scheme = ?options.webhook_scheme, "the webhook endpoint is listening");
    tokio::spawn(endpoint.serve(listener, stop));
    Ok(())
}
