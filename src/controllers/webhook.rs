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
    controllers::{
        context::Context,
        registry_object::RegistryObject,
        wake::wake_object,
        webhook_registration::{Desired, registration},
    },
    options::{RunOptions, WebhookScheme},
    registry::{
        polled::{PolledRegistry, RegistryKey},
        webhook::DesiredWebhook,
    },
    status::WebhookReport,
    webhook::{
        DeliveryOutcome,
        certificate::Certificate,
        content::About,
        endpoint::{Endpoint, Limits},
        plan,
        receiver::{InvalidDelivery, Received, Seen},
        registration::unregister,
    },
};

/// How often the Secret is read again.
pub(super) const SOON: Duration = Duration::from_mins(1);

/// Registers the webhook of an object, or deletes the one that it no longer has.
pub(super) async fn look_after<K: RegistryObject>(
    context: &Arc<Context>,
    object: &K,
    registry: &Arc<PolledRegistry>,
) -> WebhookReport {
    let namespace = object.secrets_namespace(context.client.default_namespace());
    let key = K::key_of(object);
    let mut status = object.known_status().and_then(|status| status.webhook.clone()).unwrap_or_default();
    let uid = object.uid().unwrap_or_default();
    let desired = object.spec().webhook.as_ref();
    if desired.is_none_or(|desired| desired.register.is_none()) {
        // A failure was logged, and the id stays in the status until the webhook is deleted.
        drop(registration(context, &key, registry, Desired::None(uid.clone()), &mut status.id));
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
                    desired_webhook(&key, &uid, &register.url, &secret).and_then(|desired| {
                        let desired = Desired::Webhook(desired, retry);
                        registration(context, &key, registry, desired, &mut status.id)
                    })
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

/// Removes the receiver of a deleted object, and its webhook if the registry can be reached now. Nothing
/// waits for it: deliveries of a webhook that remains are not accepted.
pub(super) async fn end(context: &Context, key: &RegistryKey, registry: &PolledRegistry) {
    context.webhooks.receivers.close(key);
    if let Some(id) = context.webhooks.registrations.remove(key) {
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
