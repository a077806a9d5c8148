//! The shell around one ModelRegistry, and the polling of every registry.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef, watcher},
};
use secrecy::SecretString;

use super::{
    Error, unreadable,
    webhook::{self, DefaultWebhook},
    write_status,
};
use crate::{
    api::{
        ModelRegistry, RegisteredModel,
        condition::{Reason, ReasonMessage},
        model_registry::Stages,
        std_duration,
    },
    cluster::{Guarded, secrets},
    controllers::context::Context,
    observe::{models_of, poll_plan},
    options::RunOptions,
    registry::{
        mlflow::{Connection, Credentials, MlflowRegistry},
        polled::{PolledRegistry, RegistryKey, Settings},
    },
    render::RegistryForPods,
    resolve::registry_key,
    status::{RegistryHealth, RegistryObserved, registry_events, registry_status},
};

/// How long one request to a registry may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Makes the registry that Laurel was installed with known, and begins to poll it.
///
/// # Errors
/// When its URL cannot be used.
pub fn install_default(context: &Arc<Context>, options: &RunOptions) -> Result<(), String> {
    let Some(url) = &options.registry_url else { return Ok(()) };
    let workspace = options.registry_workspace.clone();
    let connection = Connection {
        url: url.clone(),
        workspace: workspace.clone(),
        stages: Stages::Ignore,
        credentials: None,
        ca_pem: None,
        timeout: REQUEST_LIMIT,
    };
    let client = MlflowRegistry::new(connection).map_err(|error| error.to_string())?;
    let settings = Settings {
        url: url.clone(),
        workspace: workspace.clone(),
        poll_interval: Duration::from_secs(options.registry_poll_seconds),
        pods: RegistryForPods { tracking_uri: url.clone(), workspace, ca: None, env_from: Vec::new() },
    };
    let (registry, _) = context.registries.set(&RegistryKey::Default, settings);
    registry.set_client(Ok(Arc::new(client)));
    if let Some(secret_file) = options.registry_webhook_secret_file.clone() {
        let register =
            options.registry_webhook_url.clone().filter(|_| options.registry_webhook_encryption_key_set);
        let webhook = DefaultWebhook { secret_file, register };
        tokio::spawn(webhook::keep_default(context.clone(), registry.clone(), webhook));
    }
    tokio::spawn(poll_forever(context.clone(), RegistryKey::Default, registry));
    Ok(())
}

/// Passes `ModelRegistries` on, and lets the polls of one that is gone see that at once.
pub(super) fn noticing_ends(
    objects: impl Stream<Item = Result<Guarded<ModelRegistry>, watcher::Error>> + Send + 'static,
    context: &Arc<Context>,
) -> impl Stream<Item = Result<Guarded<ModelRegistry>, watcher::Error>> + Send + 'static {
    let context = context.clone();
    objects.inspect(move |object| {
        let Ok(object) = object else { return };
        // The store is written before this is seen.
        if context.model_registries.get(&ObjectRef::from_obj(object)).is_none() {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            if let Some(registry) = context.registries.get(&RegistryKey::Object { namespace, name }) {
                registry.poll_now();
            }
        }
    })
}

/// One pass: read what the object names, connect, and tell how the registry is.
///
/// # Errors
/// When the status cannot be written.
pub async fn reconcile(object: Arc<Guarded<ModelRegistry>>, context: Arc<Context>) -> Result<Action, Error> {
    context.readiness.reached().await;
    let object = match &object.0 {
        Ok(object) => object,
        Err(unreadable) => return unreadable::release::<ModelRegistry>(&context, unreadable).await,
    };
    let namespace = object.namespace().unwrap_or_default();
    let key = RegistryKey::Object { namespace: namespace.clone(), name: object.name_any() };
    let settings = match settings(object) {
        Ok(settings) => settings,
        Err(invalid) => {
            context.registries.remove(&key);
            context.push.receivers.close(&key);
            wake(&context, &key, |_| true);
            let health = RegistryHealth::Invalid(invalid);
            publish(&context, object, observed(&context, object, &key, health)).await?;
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
    let observed = observed(&context, object, &key, health);
    publish(&context, object, RegistryObserved { server_version, webhook: Some(webhook), ..observed })
        .await?;
    // Secrets are not watched: they are read again, by name, as often as the registry itself, and a webhook's more often.
    let has_webhook = object.spec.webhook.is_some() || next_webhook_stays(object);
    Ok(Action::requeue(if has_webhook { interval.min(webhook::SOON) } else { interval }))
}

/// Whether a webhook is still to be deleted from the registry.
fn next_webhook_stays(object: &ModelRegistry) -> bool {
    object.status.as_ref().and_then(|status| status.webhook.as_ref()).is_some()
}

fn observed(
    context: &Context,
    object: &ModelRegistry,
    key: &RegistryKey,
    health: RegistryHealth,
) -> RegistryObserved {
    RegistryObserved {
        now: Timestamp::now(),
        generation: object.metadata.generation,
        previous: object.status.clone(),
        health,
        server_version: None,
        watched_models: models_of(&context.watched(), key).len(),
        webhook: None,
    }
}

/// Writes the status where it changes, and publishes the Events that it is worth.
async fn publish(context: &Context, object: &ModelRegistry, observed: RegistryObserved) -> Result<(), Error> {
    if let Some(next) = registry_status(&observed) {
        write_status(context, object, &next).await?;
        context.publish_events(object, registry_events(&observed, &next));
    }
    Ok(())
}

/// What the object says, or why it cannot be used.
fn settings(object: &ModelRegistry) -> Result<Settings, ReasonMessage> {
    let spec = &object.spec;
    let url = spec.mlflow.url().map_err(|error| {
        let message = format!("spec.mlflow.url: {:?} cannot be used: {error}; correct it", spec.mlflow.url);
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
    object: &ModelRegistry,
    settings: &Settings,
) -> Result<Connection, ReasonMessage> {
    let namespace = object.namespace().unwrap_or_default();
    let text = async |name: &str, key: &str, field: &str| {
        secrets::read_text(&context.client, &namespace, name, key, field).await
    };
    let auth = object.spec.auth.as_ref();
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
    let ca_pem = match &object.spec.tls {
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
        stages: object.spec.mlflow.stages,
        credentials,
        ca_pem,
        timeout: REQUEST_LIMIT,
    })
}

/// Polls a registry until it is forgotten, and wakes whoever is concerned by what changed.
async fn poll_forever(context: Arc<Context>, key: RegistryKey, registry: Arc<PolledRegistry>) {
    context.readiness.reached().await;
    while is_needed(&context, &key) {
        let began = Instant::now();
        let outcome = registry.poll(|| poll_plan(&context.watched(), &key, &registry)).await;
        let (health, _) = registry.health();
        context.metrics.poll(matches!(health, Some(Ok(()))), began.elapsed());
        if outcome.health_changed {
            if let Some(Err(cause)) = &health {
                tracing::warn!(registry = ?key, reason = %cause.reason, message = cause.message, "the registry does not answer");
            } else {
                tracing::info!(registry = ?key, url = %registry.settings.url, "the registry answers");
            }
            wake_all(&context, &key);
        } else if !outcome.changed.is_empty() {
            wake(&context, &key, |model| {
                model.model_name().is_ok_and(|name| outcome.changed.contains(&name))
            });
        }
        tokio::select! {
            () = registry.next_poll() => {}
            () = registry.retirement() => return,
        }
    }
    context.registries.remove(&key);
    wake_all(&context, &key);
    if !is_needed(&context, &key) {
        webhook::end(&context, &key, &registry).await;
    }
}

fn is_needed(context: &Context, key: &RegistryKey) -> bool {
    match key {
        RegistryKey::Default => true,
        RegistryKey::Object { namespace, name } => {
            context.model_registries.get(&ObjectRef::new(name).within(namespace)).is_some()
        }
    }
}

fn wake_all(context: &Context, key: &RegistryKey) {
    if let RegistryKey::Object { namespace, name } = key {
        context.requeue.registry(namespace, name);
    }
    wake(context, key, |_| true);
}

/// Wakes the chosen `RegisteredModels` of a registry, and the `ModelAliases` of those.
fn wake(context: &Context, key: &RegistryKey, choose: impl Fn(&RegisteredModel) -> bool) {
    let models = context.models.state();
    let chosen: HashSet<(String, String)> = models
        .iter()
        .filter_map(|model| model.0.as_ref().ok())
        .filter(|model| registry_key(model) == *key && choose(model))
        .map(|model| (model.namespace().unwrap_or_default(), model.name_any()))
        .collect();
    for (namespace, name) in &chosen {
        context.requeue.model(namespace, name);
    }
    super::registered_model::wake_aliases(context, &chosen);
}
