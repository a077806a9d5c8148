//! Tells the answers of a server apart: a value, "it does not exist", an error.

use std::time::Duration;

use reqwest::{
    StatusCode,
    header::{LOCATION, RETRY_AFTER},
};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use super::{http::RawAnswer, text};
use crate::registry::RegistryError;

/// Why there is no value.
#[derive(Debug)]
pub(super) enum ErrorAnswer {
    /// MLflow says that an object of the request does not exist.
    Absent {
        /// What it said.
        detail: String,
    },
    /// MLflow says that the object exists already.
    Exists {
        /// What it said.
        detail: String,
    },
    /// Anything else.
    Failed(RegistryError),
}

impl ErrorAnswer {
    /// The error for calls where absence and existence mean nothing special.
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

/// MLflow's own form of an error. Only who sends this is MLflow; a proxy's 404 page is not.
#[derive(Deserialize)]
struct ErrorBody {
    error_code: String,
}

/// The JSON of a 2xx answer, or what is wrong with it.
pub(super) fn json<T: DeserializeOwned>(answer: &RawAnswer) -> Result<T, String> {
    if answer.cut {
        return Err(format!("its answer is longer than {} bytes", answer.body.len()));
    }
    object(&answer.body).map_err(|error| {
        if error.is_eof() && !answer.body.is_empty() {
            format!("its JSON ends too early, after {} bytes", answer.body.len())
        } else if error.is_data() {
            format!("its JSON is not as expected: {}", answer.redactions.redact(&error.to_string()))
        } else {
            format!("HTTP {} without JSON: {}", answer.status.as_u16(), detail_of(answer))
        }
    })
}

/// An object. serde alone would also read its fields from a list, in their order, and none of MLflow's answers is a list.
fn object<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(serde::de::Error::custom("it is a list, and no object"));
    }
    serde_json::from_slice(body)
}

/// What an answer other than 2xx means.
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
        Some(place) if answer.status.is_redirection() => format!("HTTP {status} sends us to {place}"),
        _ => format!("HTTP {status}: {detail}"),
    };
    text::shorten(&detail)
}

/// Where a redirect goes: the host, without what may be secret in the rest of the URL.
fn location(answer: &RawAnswer) -> Option<String> {
    let location = answer.headers.get(LOCATION)?.to_str().ok()?;
    let target = Url::parse(&answer.url).ok()?.join(location).ok()?;
    Some(format!("{}{}", target.host_str()?, target.path()))
}

/// Seconds only: a date would need the server's clock to be right.
fn retry_after(answer: &RawAnswer) -> Option<Duration> {
    let seconds = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What the server said, on one line.
fn detail_of(answer: &RawAnswer) -> String {
    let detail_of = text::summary(answer.content_type(), &answer.body, &answer.redactions);
    if detail_of.is_empty() { reason(answer.status) } else { detail_of }
}

fn reason(status: StatusCode) -> String {
    format!("{} with an empty answer", status.canonical_reason().unwrap_or("no reason"))
}
