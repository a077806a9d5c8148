//! Registration of webhooks in MLflow, and reported errors.

use std::{sync::Arc, time::Duration};

use laurel::{
    api::condition::{Reason, ReasonMessage},
    registry::{
        limiter::{Limiter, Limits},
        mlflow::{Connection, MlflowRegistry},
        polled::{PolledRegistry, Registries, RegistryKey, Settings},
        webhook::DesiredWebhook,
    },
    render::RegistryForPods,
    webhook::{
        plan,
        registration::{register, unregister},
    },
};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{method, path, query_param},
};

const API: &str = "/api/2.0/mlflow/webhooks";
const SECRET: &str = "correct-horse-battery";
const UID: &str = "8c3cf3f5-8b12-4f3e-9b39-0d7a1f6a3b11";

/// Returns a registry with this server.
fn registry(server: &MockServer) -> Arc<PolledRegistry> {
    handle_within(server, Duration::from_mins(1))
}

/// The same, with another timeout.
fn handle_within(server: &MockServer, timeout: Duration) -> Arc<PolledRegistry> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url: url::Url = server.uri().parse().unwrap();
    let settings = Settings {
        url: url.clone(),
        workspace: None,
        poll_interval: Duration::from_secs(30),
        limits: Limits::default(),
        pods: RegistryForPods { tracking_uri: url.clone(), workspace: None, ca: None, env_from: Vec::new() },
    };
    let (registry, _) = Registries::default().set(&key(), settings);
    let connection = Connection {
        url,
        workspace: None,
        stages: laurel::api::model_registry::Stages::Ignore,
        credentials: None,
        ca_pem: None,
        timeout,
        fence: laurel::fence::Fence::default(),
        limiter: Limiter::default(),
    };
    registry.set_client(Ok(Arc::new(MlflowRegistry::new(connection).unwrap())));
    registry
}

fn key() -> RegistryKey {
    RegistryKey::Object { namespace: "risk".to_owned(), name: "mlflow".to_owned() }
}

fn desired_webhook() -> DesiredWebhook {
    plan::desired_webhook(&key(), UID, &"https://laurel.example".parse().unwrap(), &SECRET.into())
}

fn events() -> Value {
    json!([
        { "entity": "MODEL_VERSION_ALIAS", "action": "CREATED" },
        { "entity": "MODEL_VERSION_ALIAS", "action": "DELETED" },
        { "entity": "MODEL_VERSION", "action": "CREATED" },
        { "entity": "MODEL_VERSION_TAG", "action": "SET" },
        { "entity": "MODEL_VERSION_TAG", "action": "DELETED" },
        { "entity": "REGISTERED_MODEL", "action": "CREATED" },
    ])
}

/// Returns a webhook in the format of MLflow 3.17.
fn listed(id: &str) -> Value {
    let desired = desired_webhook();
    json!({
        "webhook_id": id,
        "name": desired.name,
        "description": desired.description,
        "url": desired.url,
        "events": events(),
        "status": "ACTIVE",
        "creation_timestamp": 1_795_308_495_013_i64,
        "last_updated_timestamp": 1_795_308_495_013_i64,
    })
}

fn sent() -> Value {
    let desired = desired_webhook();
    json!({
        "name": desired.name,
        "description": desired.description,
        "url": desired.url,
        "events": events(),
        "secret": SECRET,
        "status": "ACTIVE",
    })
}

async fn lists(server: &MockServer, webhooks: &[Value]) {
    let page = ResponseTemplate::new(200).set_body_json(json!({ "webhooks": webhooks }));
    Mock::given(method("GET")).and(path(API)).respond_with(page).mount(server).await;
}

async fn answers(server: &MockServer, verb: &str, at: &str, answer: ResponseTemplate) {
    Mock::given(method(verb)).and(path(format!("{API}{at}"))).respond_with(answer).mount(server).await;
}

fn webhook(id: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({ "webhook": listed(id) }))
}

fn tried(result: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({ "result": result }))
}

/// Returns an error in MLflow's format.
fn error_message(status: u16, code: &str, message: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({ "error_code": code, "message": message }))
}

/// Returns the requests that changed something, in order.
async fn changes(server: &MockServer) -> Vec<(String, Value)> {
    let requests = server.received_requests().await.unwrap();
    let summary = |request: Request| {
        let at = request.url.path().strip_prefix(API).unwrap().to_owned();
        (format!("{} {at}", request.method), request.body_json().unwrap_or_default())
    };
    requests.into_iter().filter(|request| request.method.as_str() != "GET").map(summary).collect()
}

#[tokio::test]
async fn a_missing_webhook_is_created_and_tested() {
    let server = MockServer::start().await;
    lists(&server, &[]).await;
    answers(&server, "POST", "", webhook("made")).await;
    answers(&server, "POST", "/made/test", tried(&json!({ "success": true, "response_status": 200 }))).await;
    let mut id = None;
    register(&registry(&server), &desired_webhook(), true, &mut id).await.unwrap();
    assert_eq!(id.as_deref(), Some("made"));
    let expected = [("POST ".to_owned(), sent()), ("POST /made/test".to_owned(), json!({}))];
    assert_eq!(changes(&server).await, expected);
}

#[tokio::test]
async fn a_correct_webhook_is_kept_and_duplicates_are_deleted() {
    let server = MockServer::start().await;
    let mut theirs = listed("theirs");
    theirs["name"] = json!("to-slack");
    lists(&server, &[theirs, listed("one"), listed("two")]).await;
    answers(&server, "DELETE", "/two", ResponseTemplate::new(200).set_body_json(json!({}))).await;
    let mut id = None;
    register(&registry(&server), &desired_webhook(), false, &mut id).await.unwrap();
    assert_eq!(id.as_deref(), Some("one"));
    assert_eq!(changes(&server).await, [("DELETE /two".to_owned(), json!({}))]);
}

#[tokio::test]
async fn a_webhook_that_differs_is_updated() {
    let differences = [
        ("url", json!("https://before.example/webhooks/risk/mlflow")),
        ("events", json!([{ "entity": "MODEL_VERSION_ALIAS", "action": "CREATED" }])),
        ("status", json!("DISABLED")),
        ("description", json!("Made by Laurel for the ModelRegistry risk/mlflow; secret 000000")),
        ("name", json!("laurel-the-uid-of-an-object-before")),
    ];
    for (field, value) in differences {
        let server = MockServer::start().await;
        let mut found = listed("found");
        found[field] = value;
        lists(&server, &[found]).await;
        answers(&server, "PATCH", "/found", webhook("found")).await;
        answers(&server, "POST", "/found/test", tried(&json!({ "success": true }))).await;
        register(&registry(&server), &desired_webhook(), false, &mut None).await.unwrap();
        let expected = [("PATCH /found".to_owned(), sent()), ("POST /found/test".to_owned(), json!({}))];
        assert_eq!(changes(&server).await, expected, "{field}");
    }
}

#[tokio::test]
async fn all_pages_are_listed_before_a_webhook_is_created() {
    let server = MockServer::start().await;
    let page = json!({ "webhooks": [listed("second-page")] });
    Mock::given(method("GET"))
        .and(path(API))
        .and(query_param("page_token", "next"))
        .respond_with(ResponseTemplate::new(200).set_body_json(page))
        .with_priority(1)
        .mount(&server)
        .await;
    let first = json!({ "webhooks": [], "next_page_token": "next" });
    Mock::given(method("GET"))
        .respond_with(ResponseTemplate::new(200).set_body_json(first))
        .mount(&server)
        .await;
    let mut id = None;
    register(&registry(&server), &desired_webhook(), false, &mut id).await.unwrap();
    assert_eq!((id.as_deref(), changes(&server).await), (Some("second-page"), Vec::new()));
}

/// Returns the error if the listing gets this response. Nothing may be created then.
async fn listing_error(answer: ResponseTemplate) -> ReasonMessage {
    let server = MockServer::start().await;
    answers(&server, "GET", "", answer).await;
    let cause = register(&registry(&server), &desired_webhook(), true, &mut None).await.unwrap_err();
    assert_eq!(changes(&server).await, [], "{cause:?}");
    cause
}

fn names(cause: &ReasonMessage, reason: Reason, words: &[&str]) {
    assert_eq!(cause.reason, reason, "{cause:?}");
    for word in words {
        assert!(cause.message.contains(word), "{word} in {}", cause.message);
    }
    assert!(!cause.message.contains(SECRET), "{}", cause.message);
}

#[tokio::test]
async fn a_server_that_cannot_list_its_webhooks_gets_none() {
    let page = |status, text: &str| ResponseTemplate::new(status).set_body_raw(text.as_bytes(), "text/html");
    let trap = listing_error(error_message(500, "INTERNAL_ERROR", "")).await;
    let cure = ["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "delete the rows of the table webhooks"];
    names(&trap, Reason::WebhookEncryptionKeyMissing, &cure);
    let file_store = listing_error(page(500, "<title>500 Internal Server Error</title>")).await;
    names(&file_store, Reason::RegistryUnsupported, &["file store", "--backend-store-uri"]);
    let old = listing_error(page(404, "<title>404 Not Found</title>")).await;
    names(&old, Reason::RegistryUnsupported, &["MLflow 3.3"]);
    let forbidden = listing_error(page(403, "Permission denied")).await;
    names(&forbidden, Reason::RegistryForbidden, &["administrator", "spec.auth"]);
    let away = listing_error(page(503, "upstream connect error")).await;
    names(&away, Reason::RegistryFailing, &["503"]);
}

/// Returns the error if MLflow responds like this to the creation of the webhook.
async fn creation_error(answer: ResponseTemplate) -> ReasonMessage {
    let server = MockServer::start().await;
    lists(&server, &[]).await;
    answers(&server, "POST", "", answer).await;
    register(&registry(&server), &desired_webhook(), true, &mut None).await.unwrap_err()
}

#[tokio::test]
async fn a_rejection_by_mlflow_names_the_setting_to_change() {
    let code = "INVALID_PARAMETER_VALUE";
    let scheme = "Invalid webhook URL scheme: 'http'. Allowed schemes are: https.";
    let cause = creation_error(error_message(400, code, scheme)).await;
    names(&cause, Reason::WebhookSchemeRefused, &["MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "https://"]);
    let address =
        "Webhook URL must not resolve to a non-public IP address. 'laurel.svc' resolves to 10.96.0.7.";
    let cause = creation_error(error_message(400, code, address)).await;
    names(&cause, Reason::WebhookAddressRefused, &["MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "10.96.0.7"]);
}

#[test]
fn promise_12_the_secret_is_not_revealed_when_the_server_quotes_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for status in [400, 403, 500] {
        let quoted = error_message(status, "INVALID_PARAMETER_VALUE", &format!("what is {SECRET:?}?"));
        let cause = runtime.block_on(creation_error(quoted));
        assert!(cause.message.contains("(redacted)") && !cause.message.contains(SECRET), "{cause:?}");
    }
}

#[tokio::test]
async fn failed_deliveries_are_reported_and_the_webhook_is_known() {
    let server = MockServer::start().await;
    lists(&server, &[]).await;
    answers(&server, "POST", "", webhook("made")).await;
    let error = "Failed to test webhook: SSLError(... CERTIFICATE_VERIFY_FAILED ...)";
    answers(&server, "POST", "/made/test", tried(&json!({ "success": false, "error_message": error }))).await;
    let mut id = None;
    let cause = register(&registry(&server), &desired_webhook(), true, &mut id).await.unwrap_err();
    names(
        &cause,
        Reason::WebhookUndeliverable,
        &["CERTIFICATE_VERIFY_FAILED", "public certificate authorities"],
    );
    assert_eq!(id.as_deref(), Some("made"), "it must be deleted later");
}

#[tokio::test]
async fn a_hanging_test_delivery_is_reported() {
    let server = MockServer::start().await;
    lists(&server, &[]).await;
    answers(&server, "POST", "", webhook("made")).await;
    let late = tried(&json!({ "success": true })).set_delay(Duration::from_mins(2));
    answers(&server, "POST", "/made/test", late).await;
    let registry = handle_within(&server, Duration::from_secs(2));
    let cause = register(&registry, &desired_webhook(), true, &mut None).await.unwrap_err();
    names(&cause, Reason::WebhookUndeliverable, &["within 2s", "can reach that address"]);
    // Once deliveries arrive, no test delivery is requested.
    register(&registry, &desired_webhook(), false, &mut None).await.unwrap_err();
}

#[tokio::test]
async fn deletion_deletes_only_our_webhook() {
    let server = MockServer::start().await;
    let mut theirs = listed("theirs");
    theirs["name"] = json!("to-slack");
    let mut other = listed("other");
    other["name"] = json!("laurel-of-another-object");
    lists(&server, &[theirs, listed("one"), other, listed("two")]).await;
    for id in ["/one", "/two"] {
        answers(&server, "DELETE", id, ResponseTemplate::new(200).set_body_json(json!({}))).await;
    }
    unregister(&registry(&server), &plan::name_of(UID), Some("theirs")).await.unwrap();
    let deleted: Vec<String> = changes(&server).await.into_iter().map(|(change, _)| change).collect();
    assert_eq!(deleted, ["DELETE /one", "DELETE /two"]);
}

#[tokio::test]
async fn an_id_with_a_path_is_rejected() {
    let server = MockServer::start().await;
    let mut found = listed("../registered-models/delete");
    found["status"] = json!("DISABLED");
    lists(&server, &[found]).await;
    let cause = register(&registry(&server), &desired_webhook(), false, &mut None).await.unwrap_err();
    names(&cause, Reason::RegistryRefused, &["registered-models/delete"]);
    assert_eq!(changes(&server).await, []);
}
