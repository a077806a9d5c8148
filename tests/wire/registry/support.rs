//! A server that answers only exact requests, and helpers to describe them.

use std::time::Duration;

use laurel::{
    api::{
        model_registry::Stages,
        names::{AliasName, ModelName, Version},
    },
    fence::Fence,
    registry::{
        limiter::Limiter,
        mlflow::{Connection, MlflowRegistry},
    },
};
use serde_json::{Value, json};
use wiremock::{Match, Mock, MockServer, Request, ResponseTemplate};

/// The path prefix of the REST API.
pub(crate) const API: &str = "/api/2.0/mlflow";

/// Returns a connection to `url` without credentials.
pub(crate) fn connection(url: &str) -> Connection {
    // Only the first test in this process can install it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Connection {
        url: url.parse().unwrap(),
        workspace: None,
        stages: Stages::Ignore,
        credentials: None,
        ca_pem: None,
        timeout: Duration::from_secs(10),
        fence: Fence::default(),
        limiter: Limiter::default(),
    }
}

pub(crate) fn registry(url: &str) -> MlflowRegistry {
    MlflowRegistry::new(connection(url)).unwrap()
}

pub(crate) fn in_workspace(url: &str, workspace: &str) -> MlflowRegistry {
    MlflowRegistry::new(Connection { workspace: Some(workspace.to_owned()), ..connection(url) }).unwrap()
}

pub(crate) fn model(name: &str) -> ModelName {
    name.parse().unwrap()
}

pub(crate) fn alias(name: &str) -> AliasName {
    name.parse().unwrap()
}

pub(crate) fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

/// Matches a request by its verb, path, whole query and whole JSON body; a request without a body has `null`.
pub(crate) struct Exactly {
    method: &'static str,
    path: String,
    query: Vec<(String, String)>,
    body: Value,
}

impl Exactly {
    pub(crate) fn new(method: &'static str, path: &str) -> Self {
        Self { method, path: path.to_owned(), query: Vec::new(), body: Value::Null }
    }

    pub(crate) fn get(endpoint: &str) -> Self {
        Self::new("GET", &format!("{API}/{endpoint}"))
    }

    pub(crate) fn query(mut self, key: &str, value: &str) -> Self {
        self.query.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(self, body: Value) -> Self {
        Self { body, ..self }
    }
}

impl Match for Exactly {
    fn matches(&self, request: &Request) -> bool {
        // The order of equal keys counts, as that of `order_by`.
        let by_key = |mut pairs: Vec<(String, String)>| {
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
            pairs
        };
        let query = by_key(request.url.query_pairs().into_owned().collect());
        let json = request.headers.get("content-type").is_some_and(|kind| kind == "application/json");
        request.method.as_str() == self.method
            && request.url.path() == self.path
            && query == by_key(self.query.clone())
            && request.body_json::<Value>().unwrap_or_default() == self.body
            && json != self.body.is_null()
    }
}

/// Answers exactly this request, which must arrive exactly once.
pub(crate) async fn answer(server: &MockServer, request: Exactly, response: ResponseTemplate) {
    Mock::given(request).respond_with(response).expect(1).mount(server).await;
}

pub(crate) fn ok(body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

pub(crate) fn page(status: u16, kind: &str, body: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body.as_bytes(), kind)
}

/// Reports that the server has workspaces, as often as it is asked.
pub(crate) async fn with_workspaces(server: &MockServer) {
    let info = ok(&json!({ "store_type": "SqlStore", "workspaces_enabled": true }));
    let asked = Exactly::new("GET", "/api/3.0/mlflow/server-info");
    Mock::given(asked).respond_with(info).with_priority(1).mount(server).await;
}

/// Returns an error in MLflow's format.
pub(crate) fn error_message(status: u16, code: &str, message: &str) -> ResponseTemplate {
    let body = json!({ "error_code": code, "message": message, "sqlstate": "KAM00", "error_class": code });
    ResponseTemplate::new(status).set_body_json(body)
}

pub(crate) fn absent(what: &str) -> ResponseTemplate {
    error_message(404, "RESOURCE_DOES_NOT_EXIST", &format!("{what} not found"))
}

/// Returns a registered model with all of MLflow's fields.
pub(crate) fn fraud() -> Value {
    json!({
        "name": "fraud",
        "creation_timestamp": 1_795_308_495_013_i64,
        "last_updated_timestamp": 1_795_308_510_322_i64,
        "description": "Card fraud",
        "latest_versions": [fraud_version(3)],
        "tags": [{ "key": "owner", "value": "risk" }],
        "aliases": [{ "alias": "challenger", "version": "2" }, { "alias": "champion", "version": "3" }],
    })
}

pub(crate) fn fraud_version(number: u32) -> Value {
    json!({
        "name": "fraud",
        "version": number.to_string(),
        "creation_timestamp": 1_795_308_509_570_i64,
        "last_updated_timestamp": 1_795_308_511_057_i64,
        "current_stage": "None",
        "description": format!("version {number}"),
        "source": "models:/m-bc7c332e91bc4c47a6ab921f8590913a",
        "run_id": "e6c3fcacdb9e4a30a34fecb9ecea333f",
        "status": "READY",
        "tags": [{ "key": "validation_status", "value": "approved" }],
        "run_link": "",
    })
}
