//! "This version has no input example" is told apart from "it could not be read".

use laurel::registry::{Registry, RegistryError};
use pretty_assertions::assert_eq;
use serde_json::json;
use wiremock::{MockServer, ResponseTemplate};

use super::support::{
    Exactly, absent, answer, error_message, fraud_version, model, ok, page, registry, version,
};

const EXAMPLE: &str = r#"{"dataframe_split": {"columns": ["a"], "data": [[0.0]]}}"#;

fn file(path: &str) -> Exactly {
    Exactly::new("GET", "/model-versions/get-artifact")
        .query("name", "fraud")
        .query("version", "3")
        .query("path", path)
}

/// What comes of it when the server answers these requests, each once.
async fn example(
    answers: impl IntoIterator<Item = (Exactly, ResponseTemplate)>,
) -> Result<Option<String>, RegistryError> {
    let server = MockServer::start().await;
    for (request, response) in answers {
        answer(&server, request, response).await;
    }
    let example = registry(&server.uri()).input_example(&model("fraud"), version(3)).await?;
    Ok(example.map(|example| String::from_utf8(example.body).unwrap()))
}

fn the_version() -> Exactly {
    Exactly::get("model-versions/get").query("name", "fraud").query("version", "3")
}

fn missing_file() -> ResponseTemplate {
    absent("No such artifact: '0/models/m-1/artifacts/serving_input_example.json'")
}

/// What MLflow answers for a missing file when its artifacts are in an object store.
fn failed_download() -> ResponseTemplate {
    error_message(
        500,
        "INTERNAL_ERROR",
        "An error occurred (404) when calling the HeadObject operation: Not Found",
    )
}

#[tokio::test]
async fn an_example_is_passed_on_as_it_is() {
    let answers = [(file("serving_input_example.json"), page(200, "text/plain", EXAMPLE))];
    assert_eq!(example(answers).await.unwrap().as_deref(), Some(EXAMPLE));
}

#[tokio::test]
async fn a_version_without_the_file_has_none() {
    let answers = [
        (file("serving_input_example.json"), missing_file()),
        (the_version(), ok(&json!({ "model_version": fraud_version(3) }))),
    ];
    assert_eq!(example(answers).await.unwrap(), None);
}

#[tokio::test]
async fn a_missing_version_is_an_error() {
    let gone = "Model Version (name=fraud, version=3)";
    let answers = [(file("serving_input_example.json"), absent(gone)), (the_version(), absent(gone))];
    let error = example(answers).await.unwrap_err();
    assert_eq!(error, RegistryError::Refused { detail: "version 3 of \"fraud\" does not exist".to_owned() });
}

#[tokio::test]
async fn in_an_object_store_the_models_own_description_tells_that_there_is_none() {
    let descriptions = [
        "artifact_path: model\nmodel_id: m-1\n",
        "saved_input_example_info: null\n",
        "saved_input_example_info:\n  artifact_path: input_example.json\n",
    ];
    for description in descriptions {
        let answers = [
            (file("serving_input_example.json"), failed_download()),
            (file("MLmodel"), page(200, "text/plain", description)),
        ];
        assert_eq!(example(answers).await.unwrap(), None, "{description}");
    }
}

#[tokio::test]
async fn an_example_that_exists_but_cannot_be_read_is_an_error() {
    let description = "saved_input_example_info:\n  serving_input_path: serving_input_example.json\n";
    for described in [page(200, "text/plain", description), failed_download()] {
        let answers = [(file("serving_input_example.json"), failed_download()), (file("MLmodel"), described)];
        let error = example(answers).await.unwrap_err();
        assert!(matches!(error, RegistryError::ServerFailed { status: 500, .. }), "{error}");
    }
}

/// What stands behind the part that was read may name an example.
#[tokio::test]
async fn a_description_that_was_not_read_to_its_end_is_an_error() {
    let description = format!("signature: {}\nsaved_input_example_info: {{}}\n", "x".repeat(1 << 20));
    let answers = [
        (file("serving_input_example.json"), failed_download()),
        (file("MLmodel"), page(200, "text/plain", &description)),
    ];
    let error = example(answers).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::NotARegistry { detail, .. } if detail.contains("larger")),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_not_one_json_object_is_an_error() {
    for body in ["[1]", "{\"a\": 1", "", "<title>Log in</title>", "{} {}"] {
        let answers = [(file("serving_input_example.json"), page(200, "text/html", body))];
        let error = example(answers).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotARegistry { .. }), "{body}: {error}");
    }
}

#[tokio::test]
async fn a_huge_example_is_refused() {
    let huge = format!("{{\"inputs\": \"{}\"}}", "x".repeat(1 << 20));
    let answers = [(file("serving_input_example.json"), page(200, "text/plain", &huge))];
    let error = example(answers).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Refused { detail } if detail.contains("larger")), "{error}");
}
