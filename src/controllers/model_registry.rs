//! The controller of ModelRegistries and ClusterModelRegistries.

use std::{collections::HashMap, sync::Arc};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{controller::Action, watcher},
};
use secrecy::SecretString;

use super::{
    Error,
    poll::poll_forever,
    registry_object::RegistryObject,
    unreadable,
    wake::{wake, wake_models, wake_object},
    webhook, write_status,
};
use crate::{
    api::{
        DEFAULT_ANNOTATION, ModelRegistrySpec,
        condition::{ConditionStatus, ConditionType, DesiredCondition, Reason, ReasonMessage},
        std_duration,
    },
    cluster::{Guarded, secrets},
    controllers::context::Context,
    observe::models_of,
    registry::{
        mlflow::{Connection, Credentials},
        polled::{RegistryKey, Settings},
    },
    render::RegistryForPods,
    resolve::is_default,
    status::{RegistryHealth, RegistryObserved, registry_events, registry_status},
};

/// The parts of an object that decide who uses its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    is_default: bool,
    generation: Option<i64>,
}

/// Passes on objects that describe registries. Ends the polls of a deleted one at once, and wakes objects
/// that may use another registry now.
pub(super) fn noticing_changes<K: RegistryObject>(
    objects: impl Stream<Item = Result<Guarded<K>, watcher::Error>> + Send + 'static,
    context: &Arc<Context>,
) -> impl Stream<Item = Result<Guarded<K>, watcher::Error>> + Send + 'static {
    let context = context.clone();
    let mut offers = HashMap::new();
    objects.inspect(move |object| {
        let Ok(object) = object else { return };
        let key = K::key(object);
        // The store is written before this is seen.
        let exists = context.registry_objects.exists(&key);
        if !exists {
            match context.registries.get(&key) {
                // The end of its polls removes it.
                Some(registry) => registry.poll_now(),
                None => context.registries.remove(&key),
            }
        }
        let offer = Offer { is_default: is_default(object), generation: object.meta().generation };
        let before = if exists { offers.insert(key.clone(), offer.clone()) } else { offers.remove(&key) };
        if before.as_ref() != exists.then_some(&offer) {
            wake_models(&context, |model| context.registry_objects.may_concern(&key, model));
            for other in context.registry_objects.defaults_beside(&key) {
                wake_object(&context, &other);
            }
        }
    })
}

/// Wakes the `RegisteredModels` of a namespace whose labels changed: they decide which registries it may use.
pub(super) async fn follow_namespaces(
    namespaces: impl Stream<Item = PartialObjectMeta<Namespace>>,
    context: Arc<Context>,
) {
    let mut namespaces = std::pin::pin!(namespaces);
    let mut known = HashMap::new();
    while let Some(namespace) = namespaces.next().await {
        let name = namespace.name_any();
        let labels = namespace.labels().clone();
        if namespace.metadata.deletion_timestamp.is_some() {
            known.remove(&name);
        } else if known.insert(name.clone(), labels.clone()) != Some(labels) {
            wake_models(&context, |model| model.namespace().as_ref() == Some(&name));
        }
    }
}

/// One reconcile: reads the referenced Secrets, connects, and reports the state of the registry.
///
/// # Errors
/// When the status cannot be written.
pub async fn reconcile<K: RegistryObject>(
    object: Arc<Guarded<K>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let key = K::key(object.as_ref());
    let object = match &object.0 {
        Ok(object) => object,
        Err(unreadable) => {
            context.registries.set_unreadable(&key);
            unreadable::report::<K>(&context, unreadable);
            return Ok(Action::await_change());
        }
    };
    let now = Timestamp::now();
    let settings = match settings(object.registry()) {
        Ok(settings) => settings,
        Err(invalid) => {
            context.registries.set_unusable(&key);
            context.webhooks.receivers.close(&key);
            wake(&context, &key, |_| true);
            let observed = observed(&context, object, RegistryHealth::Invalid(invalid), now);
            publish(&context, object, &observed).await?;
            return Ok(Action::await_change());
        }
    };
    let interval = settings.poll_interval;
    let (registry, is_new) = context.registries.set(&key, settings);
    registry.renew_client(connection(&context, object, &registry.settings).await.map(Box::new));
    if is_new {
        tokio::spawn(poll_forever(context.clone(), key.clone(), registry.clone()));
    }
    let webhook = webhook::look_after(&context, object, &registry).await;
    let (poll, server_version) = registry.health();
    let health = RegistryHealth::new(&registry.settings.url, registry.client().map(drop), poll);
    let observed = RegistryObserved {
        server_version,
        webhook: Some(webhook),
        ..observed(&context, object, health, now)
    };
    publish(&context, object, &observed).await?;
    // Secrets are not watched: they are read again, by name, as often as the registry itself, and a webhook's
    // more often.
    let has_webhook = object.registry().webhook.is_some() || next_webhook_stays(object);
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
    let key = K::key(object);
    RegistryObserved {
        now,
        generation: object.meta().generation,
        previous: object.known_status().cloned(),
        health,
        server_version: None,
        watched_models: models_of(&context.watched(), &key).len(),
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
fn settings(spec: &ModelRegistrySpec) -> Result<Settings, ReasonMessage> {
    let url = spec.mlflow.url().map_err(|error| {
        let message =
            format!("spec.mlflow.url: {:?} is not a usable URL: {error}; correct it", spec.mlflow.url);
        ReasonMessage::new(Reason::RegistryInvalid, message)
    })?;
    Ok(Settings {
        url: url.clone(),
        workspace: spec.mlflow.workspace.clone(),
        poll_interval: std_duration(spec.poll_interval),
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
    settings: &Settings,
) -> Result<Connection, ReasonMessage> {
    let spec = object.registry();
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
        url: settings.url.clone(),
        workspace: settings.workspace.clone(),
        stages: spec.mlflow.stages,
        credentials,
        ca_pem,
        timeout: std_duration(spec.request_timeout),
        fence: context.fence.clone(),
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
