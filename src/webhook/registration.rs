//! The webhook in the registry: made, kept, deleted. What keeps it from working is told with the setting of MLflow that cures it.

use std::time::Duration;

use super::plan::{self, WebhookChange};
use crate::{
    api::condition::{Reason, ReasonMessage},
    registry::{
        RegistryError,
        polled::PolledRegistry,
        webhook::{DesiredWebhook, WebhookError},
    },
};

/// How long its end may take; then it stays in MLflow, where it finds no door any more.
const END: Duration = Duration::from_secs(20);

/// Lets there be exactly one such webhook in the registry, and that it reaches us. They are listed first: where that fails,
/// none is made. `id` becomes the webhook's, also where MLflow then cannot deliver.
///
/// # Errors
/// Why it is not well.
pub async fn register(
    registry: &PolledRegistry,
    desired: &DesiredWebhook,
    is_waiting: bool,
    id: &mut Option<String>,
) -> Result<(), ReasonMessage> {
    let client = registry.client()?;
    let failed = |error| cause(registry, &desired.url, error);
    let plan = plan::plan(desired, &client.webhooks().await.map_err(failed)?);
    let is_new = !matches!(plan.step, WebhookChange::Keep(_));
    let known = match plan.step {
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
        let said = match client.test_webhook(&known).await {
            Ok(Err(said)) => said,
            // MLflow itself waits longer than we do: where packets are dropped on the way, this is all that is ever seen.
            Err(WebhookError::Registry(late @ RegistryError::TimedOut { .. })) => {
                format!("{late} to a request for a test delivery")
            }
            Ok(Ok(())) | Err(_) => return Ok(()),
        };
        let message = format!(
            "MLflow cannot deliver to {}: {said}; check that its server reaches that address, and trusts the certificate \
             there: MLflow trusts public authorities only",
            desired.url
        );
        return Err(ReasonMessage::new(Reason::WebhookUndeliverable, message));
    }
    Ok(())
}

/// Deletes what is ours among the registry's webhooks: those of this name, and the one with this id.
///
/// # Errors
/// Why it stays for now.
pub async fn unregister(
    registry: &PolledRegistry,
    name: &str,
    id: Option<&str>,
) -> Result<(), ReasonMessage> {
    let work = async {
        let client = registry.client()?;
        let failed = |error| cause(registry, "", error);
        for ours in plan::to_delete(name, id, &client.webhooks().await.map_err(failed)?) {
            client.delete_webhook(&ours).await.map_err(failed)?;
            tracing::info!(id = ours, "the webhook is deleted from the registry");
        }
        Ok(())
    };
    let late = |_| {
        Err(ReasonMessage::new(
            Reason::RegistryUnreachable,
            "the registry did not delete the webhook in time",
        ))
    };
    let done = tokio::time::timeout(END, work).await.unwrap_or_else(late);
    if let Err(cause) = &done {
        tracing::warn!(reason = %cause.reason, message = cause.message, "the webhook stays in the registry for now");
    }
    done
}

fn cause(registry: &PolledRegistry, url: &str, error: WebhookError) -> ReasonMessage {
    let place = &registry.settings.url;
    let (reason, message) = match error {
        WebhookError::SchemeRefused { detail } => (
            Reason::WebhookSchemeRefused,
            format!(
                "{place} refuses to deliver to {url}: {detail} Use an https:// URL, or set MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https on \
                 the MLflow server"
            ),
        ),
        WebhookError::AddressRefused { detail } => (
            Reason::WebhookAddressRefused,
            format!(
                "{place} refuses to deliver to {url}: {detail} Use a public address, or set MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true on \
                 the MLflow server"
            ),
        ),
        WebhookError::Unreadable { detail } => (
            Reason::WebhookEncryptionKeyMissing,
            format!(
                "{place} cannot read its own webhooks (HTTP 500: {detail}), so none is registered. That happens when one was \
                 registered without MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, or with another key: set the key on the MLflow server, delete \
                 the rows of the table webhooks from its database, and start it again"
            ),
        ),
        WebhookError::Unsupported { detail } => (
            Reason::RegistryUnsupported,
            format!(
                "{place} has no webhooks ({detail}): they need MLflow 3.3 or newer with a database (--backend-store-uri), and no file \
                 store; remove spec.webhook.register, and polling goes on"
            ),
        ),
        WebhookError::Forbidden { detail } => (
            Reason::RegistryForbidden,
            format!(
                "{place} lets only administrators see webhooks ({detail}); let spec.auth name an administrator's login, or remove \
                 spec.webhook.register and register the webhook by hand"
            ),
        ),
        WebhookError::Registry(error) => return registry.explain(None, &error),
    };
    ReasonMessage::new(reason, message)
}
