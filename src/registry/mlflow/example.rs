//! Finds the input example of a version.

use std::time::Duration;

use serde::Deserialize;

use super::{
    MlflowRegistry,
    answer::{ErrorAnswer, RawAnswer},
    http::Call,
    text,
};
use crate::{
    api::names::{ModelName, Version},
    registry::{InputExample, Registry, RegistryError},
};

/// A model's own description that is larger is not read.
const MODEL_FILE_MAX: usize = 1 << 20;
/// How long an example may take: the server reads it from its artifact store first, and it may be large.
const PATIENCE: Duration = Duration::from_mins(1);
/// Where MLflow writes the example as a request body for `/invocations`.
const FILE: &str = "serving_input_example.json";

/// The part of a model's `MLmodel` file that tells whether an example was logged with it.
#[derive(Deserialize)]
struct ModelFile {
    saved_input_example_info: Option<ExampleInfo>,
}

#[derive(Deserialize)]
struct ExampleInfo {
    serving_input_path: Option<String>,
}

/// The example, at most `limit` bytes of it, or `None` where there is none.
pub(super) async fn read(
    registry: &MlflowRegistry,
    name: &ModelName,
    version: Version,
    limit: usize,
) -> Result<Option<InputExample>, RegistryError> {
    let call = file(name, version, FILE, limit).patient(PATIENCE);
    match registry.http.accepted(&call).await {
        Ok(answer) => body(registry, &call, answer).map(Some),
        Err(ErrorAnswer::Absent { .. }) => expect_version(registry, name, version).await.map(|()| None),
        // Object stores report a missing file as a failed download, so the server answers 500 for it.
        Err(ErrorAnswer::Failed(error @ RegistryError::ServerFailed { .. })) => {
            if has_example(registry, name, version).await? { Err(error) } else { Ok(None) }
        }
        Err(error_message) => Err(explained(error_message.into_error())),
    }
}

/// Where only artifacts cannot be read, their path is what differs.
fn explained(error: RegistryError) -> RegistryError {
    match error {
        RegistryError::NotARegistry { url, detail } => {
            let detail =
                format!("{detail} (with --static-prefix, MLflow serves artifacts only below that prefix)");
            RegistryError::NotARegistry { url, detail }
        }
        other => other,
    }
}

fn file(name: &ModelName, version: Version, path: &str, limit: usize) -> Call {
    Call::root("model-versions/get-artifact", limit)
        .query("name", name)
        .query("version", &version)
        .query("path", path)
}

/// The example as it was logged. It is not parsed: MLflow writes `NaN` and `Infinity` into it, which are not
/// JSON.
fn body(registry: &MlflowRegistry, call: &Call, answer: RawAnswer) -> Result<InputExample, RegistryError> {
    if !is_object(&answer) {
        let detail_of = text::summary(answer.content_type(), &answer.body, &answer.redactions);
        let status = answer.status.as_u16();
        return Err(registry
            .http
            .not_a_registry(call, format!("HTTP {status} without an input example: {detail_of}")));
    }
    Ok(if answer.cut { InputExample::TooLarge } else { InputExample::Body(answer.body) })
}

/// Whether the answer can be what MLflow writes, an object, and not the page of a proxy or the beginning of
/// an example. Of one that is too large only the beginning is known.
fn is_object(answer: &RawAnswer) -> bool {
    let body = answer.body.trim_ascii();
    body.starts_with(b"{") && (answer.cut || body.len() > 1 && body.ends_with(b"}"))
}

/// A file that does not exist and a version that does not exist are the same answer; only the first means
/// "none".
async fn expect_version(
    registry: &MlflowRegistry,
    name: &ModelName,
    version: Version,
) -> Result<(), RegistryError> {
    let facts = registry.version(name, version).await?;
    facts.map(drop).ok_or_else(|| RegistryError::Refused {
        detail: format!("version {version} of {:?} does not exist", name.as_str()),
    })
}

/// Whether the model's own description names an example.
async fn has_example(
    registry: &MlflowRegistry,
    name: &ModelName,
    version: Version,
) -> Result<bool, RegistryError> {
    let call = file(name, version, "MLmodel", MODEL_FILE_MAX);
    let answer = registry.http.accepted(&call).await.map_err(ErrorAnswer::into_error)?;
    if answer.cut {
        let detail = format!("its MLmodel file is larger than {MODEL_FILE_MAX} bytes");
        return Err(registry.http.not_a_registry(&call, detail));
    }
    let model: ModelFile = serde_yaml::from_slice(&answer.body).map_err(|error| {
        registry.http.not_a_registry(
            &call,
            answer.redactions.redact(&format!("its MLmodel file cannot be read: {error}")),
        )
    })?;
    Ok(model.saved_input_example_info.is_some_and(|info| info.serving_input_path.is_some()))
}
