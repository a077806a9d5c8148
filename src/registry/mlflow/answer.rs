//! Classifies the answers of a server: a value, "it does not exist", an error.

use std::time::Duration;

use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER},
};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use super::{redact::Redactions, text};
use crate::registry::RegistryError;

/// A whole answer, whatever its status.
pub(super) struct RawAnswer {
    pub(super) url: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// There was more than the call's limit; `body` is its beginning.
    pub(super) cut: bool,
    /// What is not to be quoted of it.
    pub(super) redactions: Redactions,
}

impl RawAnswer {
    pub(super) fn content_type(&self) -> &str {
        self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Why there is no value.
#[derive(Debug)]
pub(super) enum ErrorAnswer {
    /// MLflow reports that an object of the request does not exist.
    Absent {
        /// Its message.
        detail: String,
    },
    /// MLflow reports that the object already exists.
    Exists {
        /// Its message.
        detail: String,
    },
    /// Anything else.
    Failed(RegistryError),
}

impl ErrorAnswer {
    /// Returns the error for calls that do not handle absence and existence.
    pub(super) fn into_error(self) -> RegistryError {
        match self {
            Self::Absent { detail } | Self::Exists { detail } => RegistryError::Refused { detail },
            Self::Failed(error) => error,
        }
    }
}

impl From<RegistryError> for ErrorAnswer {
    fn from(error: RegistryError) -> Self {
        Self::Failed(error)
    }
}

/// MLflow's own error format. Only MLflow sends it; a proxy's 404 page is different.
#[derive(Deserialize)]
struct ErrorBody {
    error_code: String,
}

/// Parses the JSON of a 2xx answer, or returns what is wrong with it.
pub(super) fn json<T: DeserializeOwned>(answer: &RawAnswer) -> Result<T, String> {
    if answer.cut {
        return Err(format!("its answer is longer than {} bytes", answer.body.len()));
    }
    object(&answer.body).map_err(|error| {
        if error.is_eof() && !answer.body.is_empty() {
            format!("its JSON is truncated after {} bytes", answer.body.len())
        } else if error.is_data() {
            format!("its JSON is not as expected: {}", answer.redactions.redact(&error.to_string()))
        } else {
            format!("HTTP {} without JSON: {}", answer.status.as_u16(), detail_of(answer))
        }
    })
}

/// Parses an object. serde alone would also read the fields from a list, and none of MLflow's answers is a
/// list.
fn object<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(serde::de::Error::custom("it is a list, not an object"));
    }
    serde_json::from_slice(body)
}

/// Returns what an answer other than 2xx means.
pub(super) fn error_message(answer: &RawAnswer, host: &str, workspace: Option<&str>) -> ErrorAnswer {
    let code = object::<ErrorBody>(&answer.body).ok().map(|body| body.error_code);
    let detail = detail_of(answer);
    let status = answer.status.as_u16();
    match (status, code.as_deref()) {
        (404, Some("RESOURCE_DOES_NOT_EXIST")) => ErrorAnswer::Absent { detail },
        (400 | 409, Some("RESOURCE_ALREADY_EXISTS" | "ALREADY_EXISTS")) => ErrorAnswer::Exists { detail },
        _ => ErrorAnswer::Failed(error(answer, code.as_deref(), detail, host, workspace)),
    }
}

fn error(
    answer: &RawAnswer,
    code: Option<&str>,
    detail: String,
    host: &str,
    workspace: Option<&str>,
) -> RegistryError {
    match (answer.status.as_u16(), code, workspace) {
        (401, _, _) => RegistryError::Unauthorized { detail },
        (403, None, _) if detail.contains("Invalid Host header") => {
            RegistryError::HostRefused { host: host.to_owned() }
        }
        (403, _, _) => RegistryError::Forbidden { detail },
        (429, _, _) => RegistryError::RateLimited { retry_after: retry_after(answer) },
        (500.., Some("FEATURE_DISABLED"), Some(workspace)) => {
            RegistryError::WorkspaceRefused { workspace: workspace.to_owned(), detail }
        }
        (500.., _, _) => RegistryError::ServerFailed { status: answer.status.as_u16(), detail },
        (400..500, Some(code), _) if code != "ENDPOINT_NOT_FOUND" => RegistryError::Refused { detail },
        _ => RegistryError::NotARegistry { url: answer.url.clone(), detail: unexpected(answer, &detail) },
    }
}

fn unexpected(answer: &RawAnswer, detail: &str) -> String {
    let status = answer.status.as_u16();
    let detail = match location(answer) {
        Some(target) if answer.status.is_redirection() => format!("HTTP {status} redirects to {target}"),
        _ => format!("HTTP {status}: {detail}"),
    };
    text::shorten(&detail)
}

/// Returns the target of a redirect: host and path, without the parts of the URL that may be secret.
fn location(answer: &RawAnswer) -> Option<String> {
    let location = answer.headers.get(LOCATION)?.to_str().ok()?;
    let target = Url::parse(&answer.url).ok()?.join(location).ok()?;
    Some(format!("{}{}", target.host_str()?, target.path()))
}

/// Accepts seconds only: a date would require a correct clock on the server.
fn retry_after(answer: &RawAnswer) -> Option<Duration> {
    let seconds = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Returns the server's message on one line.
fn detail_of(answer: &RawAnswer) -> String {
    let detail = text::summary(answer.content_type(), &answer.body, &answer.redactions);
    if detail.is_empty() { reason(answer.status) } else { detail }
}

fn reason(status: StatusCode) -> String {
    format!("{} with an empty answer", status.canonical_reason().unwrap_or("no reason"))
}
