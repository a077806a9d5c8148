//! Changes: verb, path and body are exactly what MLflow wants; done twice they end the same.

use std::collections::BTreeMap;

use laurel::registry::{Registry, RegistryError};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, matchers::any};

use super::support::{
    API, Exactly, absent, alias, answer, error_message, fraud, model, ok, page, registry, version,
};

fn request(method: &'static str, endpoint: &str, body: Value) -> Exactly {
    Exactly::new(method, &format!("{API}/{endpoint}")).body(body)
}

#[tokio::test]
async fn every_change_is_sent_in_mlflow_s_format() {
    let server = MockServer::start().await;
    let create = json!({ "name": "Fraud ü", "description": "d", "tags": [{ "key": "k", "value": "v" }] });
    let made = ok(&json!({ "registered_model": fraud() }));
    answer(&server, request("POST", "registered-models/create", create), made.clone()).await;
    let describe = json!({ "name": "Fraud ü", "description": "" });
    answer(&server, request("PATCH", "registered-models/update", describe), made).await;
    let done = || ok(&json!({}));
    let tag = json!({ "name": "Fraud ü", "key": "k", "value": "v" });
    answer(&server, request("POST", "registered-models/set-tag", tag), done()).await;
    let untag = json!({ "name": "Fraud ü", "key": "k" });
    answer(&server, request("DELETE", "registered-models/delete-tag", untag), done()).await;
    // The version is a string: MLflow refuses a number.
    let point = json!({ "name": "Fraud ü", "alias": "champion", "version": "3" });
    answer(&server, request("POST", "registered-models/alias", point), done()).await;
    let unpoint = json!({ "name": "Fraud ü", "alias": "champion" });
    answer(&server, request("DELETE", "registered-models/alias", unpoint), done()).await;
    let reported = json!({ "name": "Fraud ü", "version": "3", "key": "k", "value": "v" });
    answer(&server, request("POST", "model-versions/set-tag", reported), done()).await;
    let untold = json!({ "name": "Fraud ü", "version": "3", "key": "k" });
    answer(&server, request("DELETE", "model-versions/delete-tag", untold), done()).await;
    let delete = json!({ "name": "Fraud ü" });
    answer(&server, request("DELETE", "registered-models/delete", delete), done()).await;

    let (registry, name, champion) = (registry(&server.uri()), model("Fraud ü"), alias("champion"));
    registry.create_model(&name, "d", &BTreeMap::from([("k".into(), "v".into())])).await.unwrap();
    registry.set_description(&name, "").await.unwrap();
    registry.set_model_tag(&name, "k", "v").await.unwrap();
    registry.delete_model_tag(&name, "k").await.unwrap();
    registry.set_alias(&name, &champion, version(3)).await.unwrap();
    registry.delete_alias(&name, &champion).await.unwrap();
    registry.set_version_tag(&name, version(3), "k", "v").await.unwrap();
    registry.delete_version_tag(&name, version(3), "k").await.unwrap();
    registry.delete_model(&name).await.unwrap();
}

#[tokio::test]
async fn an_existing_model_is_not_changed() {
    for (status, code) in [(400, "RESOURCE_ALREADY_EXISTS"), (409, "ALREADY_EXISTS")] {
        let server = MockServer::start().await;
        let exists = error_message(status, code, "Registered Model (name=fraud) already exists.");
        Mock::given(any()).respond_with(exists).expect(1).mount(&server).await;
        registry(&server.uri()).create_model(&model("fraud"), "", &BTreeMap::new()).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_object_counts_as_deleted_and_cannot_be_changed() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(absent("Registered Model with name=fraud")).mount(&server).await;
    let (registry, name, champion) = (registry(&server.uri()), model("fraud"), alias("champion"));
    registry.delete_model(&name).await.unwrap();
    registry.delete_alias(&name, &champion).await.unwrap();
    registry.delete_model_tag(&name, "k").await.unwrap();
    let errors = [
        registry.set_alias(&name, &champion, version(3)).await.unwrap_err(),
        registry.set_description(&name, "d").await.unwrap_err(),
        registry.set_model_tag(&name, "k", "v").await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, RegistryError::Refused { detail } if detail.contains("not found")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_page_with_status_200_is_not_a_confirmation() {
    for body in ["<title>Log in</title>", "", "OK", "null"] {
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(page(200, "text/html", body)).mount(&server).await;
        let registry = registry(&server.uri());
        let error = registry.delete_model(&model("fraud")).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotARegistry { .. }), "{body:?}: {error}");
        let error = registry.create_model(&model("fraud"), "", &BTreeMap::new()).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotARegistry { .. }), "{body:?}: {error}");
    }
}

#[tokio::test]
async fn a_rejection_quotes_mlflow() {
    let server = MockServer::start().await;
    let refused = error_message(400, "INVALID_PARAMETER_VALUE", "Version alias name 'v1' is reserved.");
    Mock::given(any()).respond_with(refused).mount(&server).await;
    let error = registry(&server.uri()).set_alias(&model("m"), &alias("x"), version(1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the registry rejects the request: INVALID_PARAMETER_VALUE: Version alias name 'v1' is reserved."
    );
}
