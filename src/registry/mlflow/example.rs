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

/// The part of a model's `MLmodel` file that shows whether an example was logged with it.
#[derive(Deserialize)]
struct ModelFile {
    saved_input_example_info: Option<ExampleInfo>,
}

#[derive(Deserialize)]
struct ExampleInfo {
    serving_input_path: Option<String>,
}

#[derive(Deserialize)]
struct DownloadUri {
    artifact_uri: String,
}

/// Where the files of a version are.
enum Files<'a> {
    /// At the server's root, found by the version.
    OfVersion(&'a ModelName, Version),
    /// In this folder of the artifact store that the server is a proxy for.
    Proxied(String),
}

impl Files<'_> {
    fn call(&self, path: &str, limit: usize) -> Call {
        match self {
            Self::OfVersion(name, version) => Call::root("model-versions/get-artifact", limit)
                .query("name", *name)
                .query("version", version)
                .query("path", path),
            Self::Proxied(folder) => {
                Call::root(&format!("api/2.0/mlflow-artifacts/artifacts/{folder}/{path}"), limit)
            }
        }
    }
}

/// The example, at most `limit` bytes of it, or `None` where there is none.
pub(super) async fn read(
    registry: &MlflowRegistry,
    name: &ModelName,
    version: Version,
    limit: usize,
) -> Result<Option<InputExample>, RegistryError> {
    let of_version = (name, version);
    match read_from(registry, of_version, &Files::OfVersion(name, version), limit).await {
        // MLflow 3.8 has its API outside the --static-prefix, and these files only below it.
        Err(RegistryError::NotARegistry { url, detail }) if detail.starts_with("HTTP 404") => {
            let hint = "with --static-prefix, MLflow serves artifacts only below that prefix";
            let error = RegistryError::NotARegistry { url, detail: format!("{detail} ({hint})") };
            let folder = proxied(registry, name, version).await?.ok_or(error)?;
            read_from(registry, of_version, &Files::Proxied(folder), limit).await
        }
        example => example,
    }
}

async fn read_from(
    registry: &MlflowRegistry,
    (name, version): (&ModelName, Version),
    files: &Files<'_>,
    limit: usize,
) -> Result<Option<InputExample>, RegistryError> {
    let call = files.call(FILE, limit).patient(PATIENCE);
    match registry.http.accepted(&call).await {
        Ok(answer) => body(registry, &call, answer).map(Some),
        Err(ErrorAnswer::Absent { .. }) => expect_version(registry, name, version).await.map(|()| None),
        // Object stores report a missing file as a failed download, so the server answers 500 for it.
        Err(ErrorAnswer::Failed(error @ RegistryError::ServerFailed { .. })) => {
            if has_example(registry, files).await? { Err(error) } else { Ok(None) }
        }
        Err(answer) => Err(answer.into_error()),
    }
}

/// The folder of a version's files, if the server reports that it is the proxy of their store.
async fn proxied(
    registry: &MlflowRegistry,
    name: &ModelName,
    version: Version,
) -> Result<Option<String>, RegistryError> {
    let call = Call::get("model-versions/get-download-uri").query("name", name).query("version", &version);
    let location = match registry.http.ask::<DownloadUri>(&call).await {
        Ok(answer) => answer.artifact_uri,
        Err(ErrorAnswer::Absent { .. }) => {
            return expect_version(registry, name, version).await.map(|()| None);
        }
        Err(_) => return Ok(None),
    };
    // With a host in it, it may be the store of another server.
    let folder = location.strip_prefix("mlflow-artifacts:/").filter(|folder| !folder.starts_with('/'));
    let is_plain = |folder: &&str| folder.split('/').all(|part| part != "..");
    Ok(folder.filter(is_plain).map(|folder| folder.trim_end_matches('/').to_owned()))
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
    facts.map(drop).ok_or_else(|| RegistryError::Rejected {
        detail: format!("version {version} of {:?} does not exist", name.as_str()),
    })
}

/// Whether the model's own description names an example.
async fn has_example(registry: &MlflowRegistry, files: &Files<'_>) -> Result<bool, RegistryError> {
    let call = files.call("MLmodel", MODEL_FILE_MAX);
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
