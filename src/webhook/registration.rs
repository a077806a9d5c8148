//! Creates, keeps and deletes the webhook in the registry. Messages name the MLflow setting that fixes an
//! error.

use std::time::Duration;

use super::plan::{self, WebhookChange};
use crate::{
    api::condition::{Reason, ReasonMessage},
    registry::{
        RegistryError,
        limiter::Priority,
        polled::PolledRegistry,
        webhook::{DesiredWebhook, WebhookError},
    },
};

/// How long a deletion may take; after that the webhook stays in MLflow, and its deliveries are not accepted.
const DELETE_TIMEOUT: Duration = Duration::from_secs(20);

/// Ensures that the registry has exactly one such webhook and can deliver to it. The webhooks are listed
/// first: if that fails, none is created. `id` is set to the webhook's id, even if MLflow then cannot
/// deliver.
///
/// # Errors
/// Why it is not registered, or cannot deliver.
pub async fn register(
    registry: &PolledRegistry,
    desired: &DesiredWebhook,
    is_waiting: bool,
    id: &mut Option<String>,
) -> Result<(), ReasonMessage> {
    let client = registry.client(Priority::Decision)?;
    let failed = |error| reason_message(registry, &desired.url, error);
    let plan = plan::plan(desired, &client.webhooks().await.map_err(failed)?);
    let is_new = !matches!(plan.first, WebhookChange::Keep(_));
    let known = match plan.first {
        WebhookChange::Create => client.create_webhook(desired).await.map_err(failed)?,
        WebhookChange::Update(known) => {
            client.update_webhook(&known, desired).await.map_err(failed)?;
            known
        }
        WebhookChange::Keep(known) => known,
    };
    *id = Some(known.clone());
    for other in plan.delete {
        client.delete_webhook(&other).await.map_err(failed)?;
    }
    if is_new || is_waiting {
        let error = match client.test_webhook(&known).await {
            Ok(Err(error)) => error,
            // MLflow waits longer than we do: if packets are dropped on the way, this is all that is ever
            // seen.
            Err(WebhookError::Registry(timeout @ RegistryError::TimedOut { .. })) => {
                format!("{timeout} to a request for a test delivery")
            }
            Ok(Ok(())) | Err(_) => return Ok(()),
        };
        let message = format!(
            "MLflow cannot deliver to {}: {error}; check that its server can reach that address and trusts \
             its certificate: MLflow trusts public certificate authorities only",
            desired.url
        );
        return Err(ReasonMessage::new(Reason::WebhookUndeliverable, message));
    }
    Ok(())
}

/// Deletes our webhooks from the registry: those with this name, and the one with this id.
///
/// # Errors
/// Why they could not be deleted.
pub async fn unregister(
    registry: &PolledRegistry,
    name: &str,
    id: Option<&str>,
) -> Result<(), ReasonMessage> {
    let work = async {
        let client = registry.client(Priority::Decision)?;
        let failed = |error| reason_message(registry, "", error);
        for ours in plan::to_delete(name, id, &client.webhooks().await.map_err(failed)?) {
            client.delete_webhook(&ours).await.map_err(failed)?;
            tracing::info!(id = ours, "webhook deleted from the registry");
        }
        Ok(())
    };
    let late = |_| {
        Err(ReasonMessage::new(
            Reason::RegistryUnreachable,
            "the registry did not delete the webhook in time",
        ))
    };
    let result = tokio::time::timeout(DELETE_TIMEOUT, work).await.unwrap_or_else(late);
    if let Err(error) = &result {
        tracing::warn!(reason = %error.reason, message = error.message, "webhook not deleted");
    }
    result
}

fn reason_message(registry: &PolledRegistry, url: &str, error: WebhookError) -> ReasonMessage {
    let server = &registry.settings.url;
    let (reason, message) = match error {
        WebhookError::SchemeRefused { detail } => (
            Reason::WebhookSchemeRefused,
            format!(
                "{server} does not deliver to {url}: {detail} Use an https:// URL, or set \
                 MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https on the MLflow server"
            ),
        ),
        WebhookError::AddressRefused { detail } => (
            Reason::WebhookAddressRefused,
            format!(
                "{server} does not deliver to {url}: {detail} Use a public address, or set \
                 MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true on the MLflow server"
            ),
        ),
        WebhookError::Unreadable { detail } => (
            Reason::WebhookEncryptionKeyMissing,
            format!(
                "{server} cannot read its own webhooks (HTTP 500: {detail}), so none is registered. This \
                 happens when one was registered without MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, or with \
                 another key: set the key on the MLflow server, delete the rows of the table webhooks from \
                 its database, and restart it"
            ),
        ),
        WebhookError::Unsupported { detail } => (
            Reason::RegistryUnsupported,
            format!(
                "{server} does not support webhooks ({detail}): they need MLflow 3.3 or newer with a \
                 database (--backend-store-uri), not a file store; remove spec.webhook.register, and polling \
                 continues"
            ),
        ),
        WebhookError::Forbidden { detail } => (
            Reason::RegistryForbidden,
            format!(
                "{server} shows webhooks to administrators only ({detail}); use an administrator's login in \
                 spec.auth, or remove spec.webhook.register and register the webhook by hand"
            ),
        ),
        WebhookError::Registry(error) => return registry.explain(None, &error),
    };
    ReasonMessage::new(reason, message)
}
