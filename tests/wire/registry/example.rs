//! "This version has no input example" is distinguished from "it could not be read".

use std::time::Duration;

use laurel::registry::{
    InputExample, Registry, RegistryError,
    mlflow::{Connection, MlflowRegistry},
};
use pretty_assertions::assert_eq;
use serde_json::json;
use wiremock::{MockServer, ResponseTemplate};

use super::support::{
    Exactly, absent, answer, connection, error_message, fraud_version, model, ok, page, registry, version,
};

const EXAMPLE: &str = r#"{"dataframe_split": {"columns": ["a"], "data": [[0.0]]}}"#;
/// Maximum size of an example.
const LIMIT: usize = 2 << 20;

fn file(path: &str) -> Exactly {
    Exactly::new("GET", "/model-versions/get-artifact")
        .query("name", "fraud")
        .query("version", "3")
        .query("path", path)
}

/// Returns the result if the server answers these requests, each once.
async fn example(
    answers: impl IntoIterator<Item = (Exactly, ResponseTemplate)>,
) -> Result<Option<InputExample>, RegistryError> {
    let server = MockServer::start().await;
    for (request, response) in answers {
        answer(&server, request, response).await;
    }
    registry(&server.uri()).input_example(&model("fraud"), version(3), LIMIT).await
}

/// Returns an example of this size.
fn sized(bytes: usize) -> String {
    format!("{{\"inputs\": \"{}\"}}", "x".repeat(bytes - 14))
}

fn the_version() -> Exactly {
    Exactly::get("model-versions/get").query("name", "fraud").query("version", "3")
}

fn missing_file() -> ResponseTemplate {
    absent("No such artifact: '0/models/m-1/artifacts/serving_input_example.json'")
}

/// MLflow's response for a missing file if its artifacts are in an object store.
fn failed_download() -> ResponseTemplate {
    error_message(
        500,
        "INTERNAL_ERROR",
        "An error occurred (404) when calling the HeadObject operation: Not Found",
    )
}

/// MLflow writes `NaN` and `Infinity` as Python does, and its server parses them.
#[tokio::test]
async fn an_example_is_passed_on_unchanged() {
    let bare = r#"{"dataframe_split": {"data": [[NaN, Infinity, -Infinity]]}}"#;
    for body in [EXAMPLE, bare, "\n{\"inputs\": []}\n", &sized(LIMIT)] {
        let answers = [(file("serving_input_example.json"), page(200, "text/plain", body))];
        let example = example(answers).await.unwrap();
        assert_eq!(example, Some(InputExample::Body(body.as_bytes().to_vec())));
    }
}

#[tokio::test]
async fn a_version_without_the_file_has_none() {
    let answers = [
        (file("serving_input_example.json"), missing_file()),
        (the_version(), ok(&json!({ "model_version": fraud_version(3) }))),
    ];
    assert_eq!(example(answers).await.unwrap(), None);
}

/// As MLflow 3.8 answers with `--static-prefix`: its API is outside of the prefix, the page for files below it.
#[tokio::test]
async fn below_a_static_prefix_the_example_is_read_through_the_server_s_artifact_proxy() {
    const FOLDER: &str = "1/models/m-1/artifacts";
    let elsewhere = || page(404, "text/html; charset=utf-8", "<title>404 Not Found</title>");
    let download = || {
        let query = Exactly::get("model-versions/get-download-uri");
        query.query("name", "fraud").query("version", "3")
    };
    let proxied = |path: &str| {
        let path = format!("/api/2.0/mlflow-artifacts/artifacts/{FOLDER}/{path}");
        Exactly::new("GET", &path)
    };
    let at = |uri: &str| ok(&json!({ "artifact_uri": uri }));
    let ours = format!("mlflow-artifacts:/{FOLDER}");

    let answers = [
        (file("serving_input_example.json"), elsewhere()),
        (download(), at(&ours)),
        (proxied("serving_input_example.json"), page(200, "text/plain", EXAMPLE)),
    ];
    let found = example(answers).await.unwrap();
    assert_eq!(found, Some(InputExample::Body(EXAMPLE.as_bytes().to_vec())));

    let answers = [
        (file("serving_input_example.json"), elsewhere()),
        (download(), at(&ours)),
        (proxied("serving_input_example.json"), failed_download()),
        (proxied("MLmodel"), page(200, "text/plain", "saved_input_example_info: null\n")),
    ];
    assert_eq!(example(answers).await.unwrap(), None);

    let gone = || absent("Model Version (name=fraud, version=3)");
    let answers =
        [(file("serving_input_example.json"), elsewhere()), (download(), gone()), (the_version(), gone())];
    let error = example(answers).await.unwrap_err();
    assert!(matches!(error, RegistryError::Rejected { .. }), "{error}");

    for other in ["s3://bucket/model", "mlflow-artifacts://other:5000/1", "mlflow-artifacts:/1/../2"] {
        let answers = [(file("serving_input_example.json"), elsewhere()), (download(), at(other))];
        let error = example(answers).await.unwrap_err();
        assert!(error.to_string().contains("--static-prefix"), "{other}: {error}");
    }
}

#[tokio::test]
async fn a_missing_version_is_an_error() {
    let gone = "Model Version (name=fraud, version=3)";
    let answers = [(file("serving_input_example.json"), absent(gone)), (the_version(), absent(gone))];
    let error = example(answers).await.unwrap_err();
    assert_eq!(error, RegistryError::Rejected { detail: "version 3 of \"fraud\" does not exist".to_owned() });
}

#[tokio::test]
async fn in_an_object_store_the_model_s_description_shows_that_there_is_none() {
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

/// The part that was not read may name an example.
#[tokio::test]
async fn a_truncated_description_is_an_error() {
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
async fn what_is_not_an_object_is_an_error() {
    for body in ["[1]", "{\"a\": 1", "{", "", "<title>Log in</title>"] {
        let answers = [(file("serving_input_example.json"), page(200, "text/html", body))];
        let error = example(answers).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotARegistry { .. }), "{body}: {error}");
    }
}

#[tokio::test]
async fn an_example_that_is_too_large_is_read_only_up_to_the_limit() {
    let answers = [(file("serving_input_example.json"), page(200, "text/plain", &sized(LIMIT + 1)))];
    assert_eq!(example(answers).await.unwrap(), Some(InputExample::TooLarge));
}

/// A page that is too long is not mistaken for an example that is too large.
#[tokio::test]
async fn a_long_page_is_an_error() {
    let long = format!("<title>Log in</title>{}", "x".repeat(LIMIT));
    let answers = [(file("serving_input_example.json"), page(200, "text/html", &long))];
    let error = example(answers).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::NotARegistry { detail, .. } if detail.contains("Log in")),
        "{error}"
    );
}

/// An object store may take longer for a file than the registry for a response.
#[tokio::test]
async fn an_example_may_take_longer_than_other_answers() {
    let server = MockServer::start().await;
    let late = page(200, "text/plain", EXAMPLE).set_delay(Duration::from_millis(1500));
    answer(&server, file("serving_input_example.json"), late).await;
    let registry =
        MlflowRegistry::new(Connection { timeout: Duration::from_secs(1), ..connection(&server.uri()) });
    let example = registry.unwrap().input_example(&model("fraud"), version(3), LIMIT).await.unwrap();
    assert_eq!(example, Some(InputExample::Body(EXAMPLE.as_bytes().to_vec())));
}
