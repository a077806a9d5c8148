//! The controller of ModelRegistries and ClusterModelRegistries.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    core::PartialObjectMeta,
    runtime::{controller::Action, watcher::Event},
};
use secrecy::SecretString;

use super::{
    Error,
    poll::poll_forever,
    registry_object::RegistryObject,
    unreadable,
    wake::{self, wake_object, wake_users},
    webhook, write_status,
};
use crate::{
    api::{
        DEFAULT_ANNOTATION,
        condition::{ConditionStatus, ConditionType, DesiredCondition, Reason, ReasonMessage},
        std_duration,
    },
    cluster::{Guarded, secrets},
    controllers::context::Context,
    registry::{
        mlflow::{Connection, Credentials},
        polled::{PolledRegistry, RegistryKey, Settings},
    },
    render::RegistryForPods,
    resolve::is_default,
    status::{RegistryHealth, RegistryObserved, registry_events, registry_status},
};

/// Returns what follows an event of an object that describes a registry: the polls of a deleted one end at
/// once, and objects that may use another registry now are woken.
pub fn seen<K: RegistryObject>(context: &Arc<Context>) -> impl FnMut(&Event<Guarded<K>>) + Send + 'static {
    let context = context.clone();
    move |event| {
        let affected = context.index().registry_event(event);
        for key in &affected.registries {
            // The store is written before this is seen.
            if !context.registry_objects.exists(key) {
                match context.registries.get(key) {
                    // The end of its polls removes it.
                    Some(registry) => registry.poll_now(),
                    None => context.registries.remove(key),
                }
            }
            for other in context.registry_objects.defaults_beside(key) {
                wake_object(&context, &other);
            }
        }
        wake::affected(&context, &affected);
    }
}

/// Returns what follows an event of a namespace: if its labels changed, its `RegisteredModels` are woken,
/// because the labels decide which registries it may use.
pub(super) fn namespace_seen(
    context: &Arc<Context>,
) -> impl FnMut(&Event<PartialObjectMeta<Namespace>>) + Send + 'static {
    let context = context.clone();
    move |event| wake::affected(&context, &context.index().namespace_event(event))
}

/// One reconcile: reads the referenced Secrets, connects, and reports the state of the registry.
///
/// # Errors
/// When the status cannot be written.
pub async fn reconcile<K: RegistryObject>(
    object: Arc<Guarded<K>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let key = K::key_of(object.as_ref());
    let object = match &object.0 {
        Ok(object) => object,
        Err(unreadable) => {
            context.registries.set_unreadable(&key);
            unreadable::report::<K>(&context, unreadable);
            return Ok(Action::await_change());
        }
    };
    let now = Timestamp::now();
    let settings = match settings(&context, object) {
        Ok(settings) => settings,
        Err(invalid) => {
            context.registries.set_unusable(&key);
            context.webhooks.receivers.close(&key);
            wake_users(&context, &key);
            let observed = observed(&context, object, RegistryHealth::Invalid(invalid), now);
            publish(&context, object, &observed).await?;
            return Ok(Action::await_change());
        }
    };
    let interval = settings.poll_interval;
    let (registry, is_new) = context.registries.set(&key, settings);
    registry.renew_client(connection(&context, object, &registry).await.map(Box::new));
    if is_new {
        tokio::spawn(poll_forever(context.clone(), key.clone(), registry.clone()));
    }
    let webhook = webhook::look_after(&context, object, &registry).await;
    let (poll, server_version) = registry.health();
    let health = RegistryHealth::new(&registry.settings.url, registry.capabilities().map(drop), poll);
    let observed = RegistryObserved {
        server_version,
        webhook: Some(webhook),
        ..observed(&context, object, health, now)
    };
    publish(&context, object, &observed).await?;
    // Secrets are not watched: they are read again, by name, as often as the registry itself, and a webhook's
    // more often.
    let has_webhook = object.spec().webhook.is_some() || next_webhook_stays(object);
    Ok(Action::requeue(if has_webhook { interval.min(webhook::SOON) } else { interval }))
}

/// Whether a webhook is still to be deleted from the registry.
fn next_webhook_stays(object: &impl RegistryObject) -> bool {
    object.known_status().and_then(|status| status.webhook.as_ref()).is_some()
}

/// Returns what is known of the object and its registry, without its webhook.
fn observed<K: RegistryObject>(
    context: &Context,
    object: &K,
    health: RegistryHealth,
    now: Timestamp,
) -> RegistryObserved {
    let key = K::key_of(object);
    RegistryObserved {
        now,
        generation: object.meta().generation,
        previous: object.known_status().cloned(),
        health,
        server_version: None,
        watched_models: context.index().model_count(&key),
        webhook: None,
        default: is_default(object).then(|| default_condition(context, &key)),
    }
}

/// Writes the status if it changed, and publishes the Events for the change.
async fn publish(
    context: &Context,
    object: &impl RegistryObject,
    observed: &RegistryObserved,
) -> Result<(), Error> {
    if let Some(next) = registry_status(observed) {
        write_status(context, object, &next).await?;
        context.publish_events(object, registry_events(observed, &next));
    }
    Ok(())
}

/// Returns the object's settings, or why they are not valid.
fn settings<K: RegistryObject>(context: &Context, object: &K) -> Result<Settings, ReasonMessage> {
    let spec = object.spec();
    let url = spec.mlflow.url().map_err(|error| {
        let message =
            format!("spec.mlflow.url: {:?} is not a usable URL: {error}; correct it", spec.mlflow.url);
        ReasonMessage::new(Reason::RegistryInvalid, message)
    })?;
    if !K::IS_CLUSTER_WIDE && !context.registry_hosts.allow(&url) {
        let message = format!(
            "spec.mlflow.url: Laurel is not allowed to connect to {:?} for a ModelRegistry (--registry-hosts, \
             `registryHosts` in the chart); name another host, use a ClusterModelRegistry, or ask those who \
             installed Laurel",
            url.host_str().unwrap_or_default()
        );
        return Err(ReasonMessage::new(Reason::RegistryNotAllowed, message));
    }
    Ok(Settings {
        url: url.clone(),
        workspace: spec.mlflow.workspace.clone(),
        poll_interval: std_duration(spec.poll_interval),
        limits: spec.limits.into(),
        pods: RegistryForPods {
            tracking_uri: url,
            workspace: spec.mlflow.workspace.clone(),
            ca: spec.tls.as_ref().map(|tls| tls.ca_secret_ref.clone()),
            env_from: spec.serving.as_ref().map(|serving| serving.env_from.clone()).unwrap_or_default(),
        },
    })
}

/// Reads the Secrets that the object names.
async fn connection(
    context: &Context,
    object: &impl RegistryObject,
    registry: &PolledRegistry,
) -> Result<Connection, ReasonMessage> {
    let spec = object.spec();
    let namespace = object.secrets_namespace(context.client.default_namespace());
    let text = async |name: &str, key: &str, field: &str| {
        secrets::read_text(&context.client, &namespace, name, key, field).await
    };
    let auth = spec.auth.as_ref();
    let credentials = if let Some(basic) = auth.and_then(|auth| auth.basic.as_ref()) {
        let (name, field) = (&basic.secret_ref.name, "spec.auth.basic.secretRef");
        let username = text(name, "username", field).await?;
        let password = SecretString::from(text(name, "password", field).await?);
        Some(Credentials::Basic { username, password })
    } else if let Some(bearer) = auth.and_then(|auth| auth.bearer.as_ref()) {
        let secret = &bearer.secret_ref;
        let token = text(&secret.name, &secret.key, "spec.auth.bearer.secretRef").await?;
        Some(Credentials::Bearer(SecretString::from(token)))
    } else {
        None
    };
    let ca_pem = match &spec.tls {
        Some(tls) => {
            let secret = &tls.ca_secret_ref;
            let field = "spec.tls.caSecretRef";
            Some(secrets::read(&context.client, &namespace, &secret.name, &secret.key, field).await?)
        }
        None => None,
    };
    Ok(Connection {
        url: registry.settings.url.clone(),
        workspace: registry.settings.workspace.clone(),
        stages: spec.mlflow.stages,
        credentials,
        ca_pem,
        timeout: std_duration(spec.request_timeout),
        fence: context.fence.clone(),
        limiter: registry.limiter.clone(),
    })
}

/// Returns the condition `Default` of a registry that is marked as the default.
fn default_condition(context: &Context, key: &RegistryKey) -> DesiredCondition {
    let (status, cause) = match context.registry_objects.newer_default(key) {
        None => (
            ConditionStatus::True,
            ReasonMessage::new(Reason::DefaultRegistry, "used by RegisteredModels that name no registry"),
        ),
        Some(newer) => {
            let message = format!(
                "{newer:?} is marked as the default as well and is newer, so it is used instead of this one; \
                 remove the annotation {DEFAULT_ANNOTATION} from one of them"
            );
            (ConditionStatus::False, ReasonMessage::new(Reason::NewerDefaultRegistry, message))
        }
    };
    DesiredCondition { type_: ConditionType::Default, status, cause }
}
