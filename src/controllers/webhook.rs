//! The webhook of a registry: its secret, its place in MLflow, and what is told of it.
//!
//! It stands beside the polls, and nothing waits for it: where it fails, a change is seen by the next poll.

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
    controllers::{context::Context, poll::wake_object, registry_object::RegistryObject},
    options::{RunOptions, WebhookScheme},
    registry::{
        polled::{PolledRegistry, RegistryKey},
        webhook::DesiredWebhook,
    },
    status::WebhookReport,
    webhook::{
        DeliveryOutcome, Registered,
        certificate::Certificate,
        endpoint::{Endpoint, Limits},
        plan,
        receiver::{Received, Refused, Seen},
        registration::{register, unregister},
    },
};

/// How often the Secret is read again, and what did not go well tried again.
pub(super) const SOON: Duration = Duration::from_mins(1);

/// How often a webhook that is well is looked after: somebody may have deleted it.
const WELL: Duration = Duration::from_mins(10);

/// Looks after the webhook that an object wishes for, or no longer does.
pub(super) async fn look_after<K: RegistryObject>(
    context: &Context,
    object: &K,
    registry: &PolledRegistry,
) -> WebhookReport {
    let namespace = object.secrets_namespace(context.client.default_namespace());
    let key = K::key(object);
    let mut status = object.known_status().and_then(|status| status.webhook.clone()).unwrap_or_default();
    let uid = object.uid().unwrap_or_default();
    let desired = object.registry().webhook.as_ref();
    if desired.is_none_or(|desired| desired.register.is_none()) {
        context.push.remember_registration(&key, None);
        if let Some(id) = status.id.as_deref()
            && unregister(registry, &plan::name_of(&uid), Some(id)).await.is_ok()
        {
            status.id = None;
        }
    }
    let Some(desired) = desired else {
        context.push.receivers.close(&key);
        status.last_delivery = None;
        return WebhookReport { condition: None, status: status.id.is_some().then_some(status) };
    };
    let reference = &desired.secret_ref;
    let field = "spec.webhook.secretRef";
    let secret =
        secrets::read_text(&context.client, &namespace, &reference.name, &reference.key, field).await;
    let receiver = context.push.receivers.open(&key);
    let cause = match secret {
        Ok(secret) => {
            let secret = SecretString::from(secret);
            receiver.set_secret(Some(secret.clone()), Instant::now());
            match (context.push.error(), &desired.register) {
                (Some(error), _) => Err(error),
                (None, None) => Ok(()),
                (None, Some(register)) => {
                    let asked = object.annotations().get(RETRY_ANNOTATION).cloned().unwrap_or_default();
                    let desired = desired_webhook(&key, &uid, &register.url, &secret);
                    match desired {
                        Ok(desired) => {
                            registration(context, &key, registry, &desired, &asked, &mut status.id).await
                        }
                        Err(invalid) => Err(invalid),
                    }
                }
            }
        }
        // What cannot be read now is not gone: what it said last goes on.
        Err(cause) => {
            if !cause.reason.is_of_the_cluster() {
                receiver.set_secret(None, Instant::now());
            }
            Err(cause)
        }
    };
    let seen = receiver.seen();
    status.last_delivery = status.last_delivery.max(seen.hour);
    let (holds, cause) = publish(cause, seen, &status, &key);
    WebhookReport {
        condition: Some(DesiredCondition { type_: ConditionType::WebhookReady, status: holds, cause }),
        status: Some(status),
    }
}

/// What is to be told: what keeps deliveries from being sent, then what came.
fn publish(
    registration: Result<(), ReasonMessage>,
    seen: Seen,
    status: &WebhookStatus,
    key: &RegistryKey,
) -> (ConditionStatus, ReasonMessage) {
    if let Err(cause) = registration {
        let is_waiting = cause.reason == Reason::WebhookWaiting;
        return (if is_waiting { ConditionStatus::Unknown } else { ConditionStatus::False }, cause);
    }
    let path = plan::path(key);
    match (seen.refused, status.last_delivery) {
        (Some(refused), _) => {
            let message = match refused {
                Refused::WrongSignature => format!(
                    "deliveries arrive at {path} that are not signed with the Secret of spec.webhook.secretRef; let MLflow's webhook \
                     and the Secret have the same secret"
                ),
                Refused::WrongTime => format!(
                    "deliveries arrive at {path} with a time more than five minutes from the operator's; set the clocks of MLflow's \
                     server and of the operator's node"
                ),
            };
            (ConditionStatus::False, ReasonMessage::new(Reason::WebhookDeliveriesRefused, message))
        }
        (None, Some(hour)) => {
            let message = format!("deliveries arrive at {path}; the last one in the hour from {hour}");
            (ConditionStatus::True, ReasonMessage::new(Reason::WebhookReceiving, message))
        }
        (None, None) => {
            let message = format!("no delivery has arrived at {path} yet; polling goes on");
            (ConditionStatus::Unknown, ReasonMessage::new(Reason::WebhookWaiting, message))
        }
    }
}

/// The webhook as it is to be in the registry.
fn desired_webhook(
    key: &RegistryKey,
    uid: &str,
    base: &str,
    secret: &SecretString,
) -> Result<DesiredWebhook, ReasonMessage> {
    let base: Url = base.parse().map_err(|error| {
        let message = format!("spec.webhook.register.url: {base:?} cannot be used: {error}; correct it");
        ReasonMessage::new(Reason::RegistryInvalid, message)
    })?;
    Ok(plan::desired_webhook(key, uid, &base, secret))
}

/// What is wished for, and of whom.
fn fingerprint((server, workspace): &(Url, Option<String>), desired: &DesiredWebhook, asked: &str) -> String {
    let workspace = workspace.as_deref().unwrap_or_default();
    format!("{server} {workspace} {} {} {asked}", desired.url, desired.description)
}

/// Looks after the webhook in the registry, unless that was done a moment ago for the same wish. `id` is the one that is known
/// to be ours.
async fn registration(
    context: &Context,
    key: &RegistryKey,
    registry: &PolledRegistry,
    desired: &DesiredWebhook,
    asked: &str,
    id: &mut Option<String>,
) -> Result<(), ReasonMessage> {
    let fingerprint = fingerprint(&registry.identity(), desired, asked);
    let last = context.push.last_registration(key);
    // The status that was watched last may be older than what was learnt since.
    *id = last.as_ref().and_then(|last| last.id.clone()).or_else(|| id.take());
    let last = last.filter(|last| last.fingerprint == fingerprint);
    if let Some(last) = &last
        && last.at.elapsed() < if last.outcome.is_ok() { WELL } else { SOON / 2 }
    {
        return last.outcome.clone();
    }
    if !matches!(registry.health().0, Some(Ok(()))) {
        let waiting =
            ReasonMessage::new(Reason::WebhookWaiting, "the webhook is registered when the registry answers");
        return match last {
            Some(last) => last.outcome,
            None if id.is_some() => Ok(()),
            None => Err(waiting),
        };
    }
    let is_waiting = context.push.receivers.get(key).is_none_or(|receiver| receiver.seen().hour.is_none());
    let outcome = register(registry, desired, is_waiting, id).await;
    match (&outcome, last.is_some_and(|last| last.outcome == outcome)) {
        (_, true) => {}
        (Ok(()), false) => {
            tracing::info!(registry = %key, id, url = desired.url, "the webhook is registered");
        }
        (Err(cause), false) => {
            tracing::warn!(registry = %key, reason = %cause.reason, message = cause.message, "the webhook is not well");
        }
    }
    let registered = Registered { fingerprint, id: id.clone(), outcome: outcome.clone(), at: Instant::now() };
    context.push.remember_registration(key, Some(registered));
    outcome
}

/// The end of an object: its door closes, and its webhook goes if the registry can be reached now. Nothing waits for it, and
/// one that stays finds no door.
pub(super) async fn end(context: &Context, key: &RegistryKey, registry: &PolledRegistry) {
    context.push.receivers.close(key);
    let last = context.push.last_registration(key);
    context.push.remember_registration(key, None);
    if let Some(id) = last.and_then(|last| last.id) {
        // By its id alone: the name goes with the object's UID, which is not known any more.
        drop(unregister(registry, "", Some(&id)).await);
    }
}

/// Opens the endpoint for webhooks, if there is to be one.
///
/// # Errors
/// When its address cannot be bound, or an option is not enough by itself.
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
    context.push.listens(certificate);
    let report = context.clone();
    let heard = move |key: Option<&RegistryKey>, Received { outcome, is_new }: Received| {
        report.metrics.delivery(outcome);
        let Some(key) = key else { return };
        if outcome == DeliveryOutcome::Accepted
            && let Some(registry) = report.registries.get(key)
        {
            registry.push();
        }
        if is_new {
            wake_object(&report, key);
        }
    };
    let endpoint = Endpoint {
        receivers: context.push.receivers.clone(),
        tls,
        limits: Limits::default(),
        heard: Box::new(heard),
    };
    tracing::info!(%address, scheme = ?options.webhook_scheme, "deliveries of webhooks are taken");
    tokio::spawn(endpoint.serve(listener, stop));
    Ok(())
}
