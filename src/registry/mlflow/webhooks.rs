//! Lists, creates, changes, deletes and tests MLflow's webhooks.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{MlflowRegistry, Pages, answer::ErrorAnswer, http::Call, text};
use crate::registry::{
    RegistryError,
    webhook::{DesiredWebhook, WebhookError, WebhookFacts},
};

/// The events that Laurel subscribes to, by MLflow's names. MLflow has no events for a deleted version or
/// model, a description or a model's tag.
const EVENTS: [(&str, &str); 6] = [
    ("MODEL_VERSION_ALIAS", "CREATED"),
    ("MODEL_VERSION_ALIAS", "DELETED"),
    ("MODEL_VERSION", "CREATED"),
    ("MODEL_VERSION_TAG", "SET"),
    ("MODEL_VERSION_TAG", "DELETED"),
    ("REGISTERED_MODEL", "CREATED"),
];

/// Maximum number of webhooks per page.
const PAGE: usize = 100;

#[derive(Deserialize)]
struct WebhookPage {
    #[serde(default)]
    webhooks: Option<Vec<WireWebhook>>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct WebhookAnswer {
    webhook: WireWebhook,
}

#[derive(Deserialize)]
struct WireWebhook {
    #[serde(rename = "webhook_id")]
    id: String,
    name: String,
    url: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    entity: String,
    action: String,
}

#[derive(Deserialize)]
struct TestAnswer {
    result: TestResult,
}

#[derive(Deserialize)]
struct TestResult {
    #[serde(default)]
    success: bool,
    #[serde(default)]
    response_status: Option<u16>,
    #[serde(default)]
    error_message: Option<String>,
}

impl WireWebhook {
    fn into_facts(self) -> WebhookFacts {
        let events: BTreeSet<_> =
            self.events.iter().map(|event| (event.entity.as_str(), event.action.as_str())).collect();
        // An absent status means the default, which is active.
        let is_active = self.status.as_deref().is_none_or(|status| status == "ACTIVE");
        WebhookFacts {
            is_complete: is_active && events == BTreeSet::from(EVENTS),
            id: self.id,
            name: self.name,
            url: self.url,
            description: self.description.unwrap_or_default(),
        }
    }
}

fn body(desired: &DesiredWebhook) -> Value {
    let events: Vec<Value> =
        EVENTS.iter().map(|(entity, action)| json!({ "entity": entity, "action": action })).collect();
    json!({
        "name": desired.name,
        "url": desired.url,
        "description": desired.description,
        "events": events,
        "secret": desired.secret.expose_secret(),
        "status": "ACTIVE",
    })
}

/// Returns the path of one webhook. The id comes from the server: one that would change the path is rejected.
fn path(id: &str) -> Result<String, RegistryError> {
    let is_plain =
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_plain {
        Ok(format!("webhooks/{id}"))
    } else {
        Err(RegistryError::Rejected {
            detail: format!("a webhook has the invalid id {:?}", text::shorten(id)),
        })
    }
}

/// Converts an error of a request about webhooks.
fn webhook_error(error: RegistryError) -> WebhookError {
    match error {
        RegistryError::Rejected { detail } if detail.contains("Invalid webhook URL scheme") => {
            WebhookError::SchemeRefused { detail }
        }
        RegistryError::Rejected { detail } if detail.contains("non-public IP address") => {
            WebhookError::AddressRefused { detail }
        }
        // A webhook that cannot be decrypted makes every request about webhooks fail, without giving the
        // cause.
        RegistryError::ServerFailed { status: 500, detail } if detail.contains("INTERNAL_ERROR") => {
            WebhookError::Unreadable { detail }
        }
        // The page of an unexpected exception: MLflow's file store does not implement webhooks.
        RegistryError::ServerFailed { status: 500 | 501, detail } => WebhookError::Unsupported { detail },
        // An MLflow older than webhooks does not know the path.
        RegistryError::NotARegistry { detail, .. } if detail.starts_with("HTTP 404") => {
            WebhookError::Unsupported { detail }
        }
        RegistryError::Forbidden { detail } => WebhookError::Forbidden { detail },
        error => WebhookError::Registry(error),
    }
}

fn failed(answer: ErrorAnswer) -> WebhookError {
    webhook_error(answer.into_error())
}

impl MlflowRegistry {
    pub(super) async fn list_webhooks(&self) -> Result<Vec<WebhookFacts>, WebhookError> {
        let call = Call::get("webhooks").query("max_results", &PAGE);
        let mut webhooks = Vec::new();
        let mut pages = Pages::default();
        loop {
            let WebhookPage { webhooks: page, next_page_token } =
                self.list(&pages.next(&call)).await.map_err(webhook_error)?;
            webhooks.extend(page.into_iter().flatten().map(WireWebhook::into_facts));
            if !pages.turn(next_page_token).map_err(|detail| self.http.not_a_registry(&call, detail))? {
                return Ok(webhooks);
            }
        }
    }

    pub(super) async fn make_webhook(&self, desired: &DesiredWebhook) -> Result<String, WebhookError> {
        let call = Call::post("webhooks", body(desired)).hiding(&desired.secret);
        let created = self.http.ask::<WebhookAnswer>(&call).await.map_err(failed)?;
        Ok(created.webhook.id)
    }

    pub(super) async fn change_webhook(
        &self,
        id: &str,
        desired: &DesiredWebhook,
    ) -> Result<(), WebhookError> {
        let call = Call::patch(&path(id)?, body(desired)).hiding(&desired.secret);
        self.http.ask::<WebhookAnswer>(&call).await.map(drop).map_err(failed)
    }

    pub(super) async fn remove_webhook(&self, id: &str) -> Result<(), WebhookError> {
        self.remove(Call::delete(&path(id)?, json!({}))).await.map_err(webhook_error)
    }

    pub(super) async fn try_webhook(&self, id: &str) -> Result<Result<(), String>, WebhookError> {
        let call = Call::post(&format!("{}/test", path(id)?), json!({}));
        let TestResult { success, response_status, error_message } =
            self.http.ask::<TestAnswer>(&call).await.map_err(failed)?.result;
        if success {
            return Ok(Ok(()));
        }
        let detail = error_message.or_else(|| response_status.map(|status| format!("HTTP {status}")));
        Ok(Err(text::shorten(&detail.unwrap_or_else(|| "it gives no reason".to_owned()))))
    }
}
