//! Finds the input example of a version.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    MlflowRegistry,
    answer::{self, ErrorAnswer},
    http::{Call, RawAnswer},
};
use crate::{
    api::names::{ModelName, Version},
    registry::{InputExample, Registry, RegistryError},
};

/// An example is one small request; a larger one is not sent to a server that has just started.
const MAX_BYTES: usize = 1 << 20;
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

/// The example, or `None` where there is none.
pub(super) async fn read(
    registry: &MlflowRegistry,
    name: &ModelName,
    version: Version,
) -> Result<Option<InputExample>, RegistryError> {
    let call = file(name, version, FILE);
    match registry.http.accepted(&call).await {
        Ok(answer) => body(registry, &call, answer).map(Some),
        Err(ErrorAnswer::Absent { .. }) => expect_version(registry, name, version).await.map(|()| None),
        // Object stores report a missing file as a failed download, so the server answers 500 for it.
        Err(ErrorAnswer::Failed(error @ RegistryError::ServerFailed { .. })) => {
            if has_example(registry, name, version).await? { Err(error) } else { Ok(None) }
        }
        Err(error_message) => Err(error_message.into_error()),
    }
}

fn file(name: &ModelName, version: Version, path: &str) -> Call {
    Call::root("model-versions/get-artifact", MAX_BYTES)
        .query("name", name)
        .query("version", &version)
        .query("path", path)
}

fn body(registry: &MlflowRegistry, call: &Call, answer: RawAnswer) -> Result<InputExample, RegistryError> {
    if answer.cut {
        let detail = format!("the input example is larger than {MAX_BYTES} bytes; log a smaller one");
        return Err(RegistryError::Refused { detail });
    }
    answer::json::<Map<String, Value>>(&answer)
        .map_err(|detail| registry.http.not_a_registry(call, detail))?;
    Ok(InputExample { body: answer.body })
}

/// A file that does not exist and a version that does not exist are the same answer; only the first means "none".
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
    let call = file(name, version, "MLmodel");
    let answer = registry.http.accepted(&call).await.map_err(ErrorAnswer::into_error)?;
    if answer.cut {
        let detail = format!("its MLmodel file is larger than {MAX_BYTES} bytes");
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
