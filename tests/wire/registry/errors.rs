//! Error responses. None of them may be mistaken for "it does not exist".

use std::{collections::BTreeSet, time::Duration};

use laurel::registry::{Registry, RegistryError};
use pretty_assertions::assert_eq;
use serde_json::json;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use super::support::{
    Exactly, alias, error_message, fraud, in_workspace, model, ok, page, registry, version,
};

const HTML: &str = "text/html; charset=utf-8";
const PAGE_500: &str = "<!doctype html>\n<html lang=en>\n<title>500 Internal Server \
     Error</title>\n<h1>Internal Server Error</h1>\n<p>The server encountered an internal error.</p>\n";
const PAGE_404: &str = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not \
     Found</h1>\n<p>Check your spelling.</p>\n";

/// Returns the error for this response to a request for a model.
async fn error(response: ResponseTemplate) -> RegistryError {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(response).mount(&server).await;
    let error = registry(&server.uri()).model(&model("fraud")).await.unwrap_err();
    // The port differs each time.
    match error {
        RegistryError::NotARegistry { url, detail } => {
            let url = url.replace(&server.uri(), "http://mlflow");
            RegistryError::NotARegistry { url, detail: detail.replace(&server.uri()[7..], "mlflow") }
        }
        RegistryError::HostRefused { host } => {
            RegistryError::HostRefused { host: host.replace(&server.uri()[7..], "mlflow:5000") }
        }
        other => other,
    }
}

fn text(detail: &str) -> String {
    detail.to_owned()
}

fn not_a_registry(detail: &str) -> RegistryError {
    let url = text("http://mlflow/api/2.0/mlflow/registered-models/get");
    RegistryError::NotARegistry { url, detail: text(detail) }
}

#[tokio::test]
async fn authentication_and_permission_errors() {
    use RegistryError::{Forbidden, HostRefused, Unauthorized};
    let login = "You are not authenticated. Please see https://example.org/auth on how to authenticate.";
    let rebinding = "Invalid Host header - possible DNS rebinding attack detected";
    let table = [
        (page(401, HTML, login), Unauthorized { detail: text(login) }),
        (error_message(401, "UNAUTHENTICATED", "no"), Unauthorized { detail: text("UNAUTHENTICATED: no") }),
        (page(401, HTML, ""), Unauthorized { detail: text("Unauthorized with an empty answer") }),
        (page(403, HTML, "Permission denied"), Forbidden { detail: text("Permission denied") }),
        (
            error_message(403, "PERMISSION_DENIED", "Invalid Host header"),
            Forbidden { detail: text("PERMISSION_DENIED: Invalid Host header") },
        ),
        (page(403, "text/plain", rebinding), HostRefused { host: text("mlflow:5000") }),
    ];
    for (response, expected) in table {
        assert_eq!(error(response).await, expected);
    }
}

#[tokio::test]
async fn errors_of_mlflow() {
    use RegistryError::{RateLimited, Rejected, ServerFailed};
    let table = [
        (
            error_message(400, "INVALID_PARAMETER_VALUE", "bad"),
            Rejected { detail: text("INVALID_PARAMETER_VALUE: bad") },
        ),
        (
            error_message(400, "INVALID_PARAMETER_VALUE", "Registered model alias x not found."),
            Rejected { detail: text("INVALID_PARAMETER_VALUE: Registered model alias x not found.") },
        ),
        (error_message(404, "NOT_FOUND", "x"), Rejected { detail: text("NOT_FOUND: x") }),
        (error_message(409, "RESOURCE_CONFLICT", "x"), Rejected { detail: text("RESOURCE_CONFLICT: x") }),
        // The code alone is not enough without status 404.
        (
            error_message(500, "RESOURCE_DOES_NOT_EXIST", "x"),
            ServerFailed { status: 500, detail: text("RESOURCE_DOES_NOT_EXIST: x") },
        ),
        (
            error_message(500, "INTERNAL_ERROR", ""),
            ServerFailed { status: 500, detail: text("INTERNAL_ERROR") },
        ),
        (
            error_message(500, "FEATURE_DISABLED", "x"),
            ServerFailed { status: 500, detail: text("FEATURE_DISABLED: x") },
        ),
        (page(500, HTML, PAGE_500), ServerFailed { status: 500, detail: text("500 Internal Server Error") }),
        (
            page(503, "text/plain", "upstream connect error"),
            ServerFailed { status: 503, detail: text("upstream connect error") },
        ),
        (page(502, "", ""), ServerFailed { status: 502, detail: text("Bad Gateway with an empty answer") }),
        (
            page(429, HTML, "slow down").insert_header("Retry-After", "7"),
            RateLimited { retry_after: Some(Duration::from_secs(7)) },
        ),
        (
            error_message(429, "REQUEST_LIMIT_EXCEEDED", "x")
                .insert_header("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
            RateLimited { retry_after: None },
        ),
        (page(429, "", ""), RateLimited { retry_after: None }),
    ];
    for (response, expected) in table {
        assert_eq!(error(response).await, expected);
    }
}

#[tokio::test]
async fn responses_that_are_not_from_a_registry() {
    let moved = |to: &str| ResponseTemplate::new(302).insert_header("Location", to);
    let table = [
        (page(404, HTML, PAGE_404), not_a_registry("HTTP 404: 404 Not Found")),
        (
            page(404, "application/json", r#"{"detail":"Not Found"}"#),
            not_a_registry(r#"HTTP 404: {"detail":"Not Found"}"#),
        ),
        (page(404, "", ""), not_a_registry("HTTP 404: Not Found with an empty answer")),
        (
            error_message(404, "ENDPOINT_NOT_FOUND", "No API found"),
            not_a_registry("HTTP 404: ENDPOINT_NOT_FOUND: No API found"),
        ),
        (
            page(405, HTML, "<title>405 Method Not Allowed</title>"),
            not_a_registry("HTTP 405: 405 Method Not Allowed"),
        ),
        (
            page(
                400,
                HTML,
                "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head>",
            ),
            not_a_registry("HTTP 400: 400 The plain HTTP request was sent to HTTPS port"),
        ),
        (
            moved("https://login.example.org/oauth?state=secret"),
            not_a_registry("HTTP 302 redirects to login.example.org/oauth"),
        ),
        (moved("/login"), not_a_registry("HTTP 302 redirects to 127.0.0.1/login")),
        (page(200, HTML, "<title>Sign in</title>"), not_a_registry("HTTP 200 without JSON: Sign in")),
        (page(200, "", ""), not_a_registry("HTTP 200 without JSON: OK with an empty answer")),
        (
            page(200, "application/json", r#"{"registered_model": {"name": "fra"#),
            not_a_registry("its JSON is truncated after 34 bytes"),
        ),
        (
            page(200, "application/json", "{}"),
            not_a_registry(
                "its JSON is not as expected: missing field `registered_model` at line 1 column 2",
            ),
        ),
    ];
    for (response, expected) in table {
        assert_eq!(error(response).await, expected);
    }
}

#[tokio::test]
async fn a_server_without_workspaces_rejects_ours() {
    let server = MockServer::start().await;
    let disabled = error_message(500, "FEATURE_DISABLED", "Workspace APIs are not available");
    Mock::given(any()).respond_with(disabled).mount(&server).await;
    let error = in_workspace(&server.uri(), "team-a").probe().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the registry rejects workspace \"team-a\": FEATURE_DISABLED: Workspace APIs are not available"
    );
}

#[tokio::test]
async fn a_server_that_ignores_workspaces_gets_no_request_for_one() {
    let server = MockServer::start().await;
    // As MLflow 2.9 and 3.8 answer: they do not know the question, and ignore the header.
    let unknown = page(404, HTML, PAGE_404);
    Mock::given(any()).respond_with(ok(&json!({ "registered_model": fraud() }))).mount(&server).await;
    for endpoint in ["server-info", "server-features"] {
        let path = format!("/api/3.0/mlflow/{endpoint}");
        Mock::given(Exactly::new("GET", &path))
            .respond_with(unknown.clone())
            .with_priority(1)
            .mount(&server)
            .await;
    }
    let registry = in_workspace(&server.uri(), "team-a");
    let errors = [
        registry.model(&model("fraud")).await.unwrap_err(),
        registry.set_alias(&model("fraud"), &alias("champion"), version(1)).await.unwrap_err(),
        registry.probe().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(
            error.to_string(),
            "the registry rejects workspace \"team-a\": the server has no workspaces, which need MLflow 3.10 or \
             newer and --enable-workspaces"
        );
    }
    let asked = server.received_requests().await.unwrap();
    let paths: BTreeSet<_> = asked.iter().map(|request| request.url.path()).collect();
    let search = "/api/2.0/mlflow/registered-models/search";
    let expected = ["/api/3.0/mlflow/server-features", "/api/3.0/mlflow/server-info", search];
    assert_eq!(paths, BTreeSet::from(expected), "only what tells an old server from a wrong path");
    assert_eq!(asked.iter().filter(|request| request.method.as_str() != "GET").count(), 0);
}

#[tokio::test]
async fn with_a_workspace_a_wrong_path_is_still_a_wrong_path() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(page(404, HTML, PAGE_404)).mount(&server).await;
    let error = in_workspace(&server.uri(), "team-a").probe().await.unwrap_err();
    assert!(matches!(error, RegistryError::NotARegistry { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_say_whether_it_has_workspaces_is_not_used() {
    for response in [page(502, HTML, "Bad Gateway"), page(200, HTML, "<title>Login</title>")] {
        let server = MockServer::start().await;
        Mock::given(Exactly::new("GET", "/api/3.0/mlflow/server-info"))
            .respond_with(response)
            .mount(&server)
            .await;
        let error = in_workspace(&server.uri(), "team-a").model(&model("fraud")).await.unwrap_err();
        assert!(!matches!(error, RegistryError::WorkspaceRefused { .. }), "{error}");
        let asked = server.received_requests().await.unwrap();
        let paths: Vec<_> = asked.iter().map(|request| request.url.path()).collect();
        assert_eq!(paths, ["/api/3.0/mlflow/server-info"]);
    }
}

#[tokio::test]
async fn no_page_is_quoted_at_length() {
    let long = format!("<h1>Oops</h1>\n<p>{}</p>", "very long ".repeat(10_000));
    let RegistryError::ServerFailed { detail, .. } = error(page(500, HTML, &long)).await else { panic!() };
    assert!(detail.chars().count() <= 300 && detail.starts_with("Oops very long"), "{detail}");
}

#[tokio::test]
async fn no_method_mistakes_a_failure_for_absence_or_success() {
    let failures = [
        page(401, HTML, "login"),
        page(403, HTML, "Permission denied"),
        page(403, "text/plain", "Invalid Host header - possible DNS rebinding attack detected"),
        page(404, HTML, PAGE_404),
        page(404, "application/json", r#"{"detail":"Not Found"}"#),
        error_message(400, "INVALID_PARAMETER_VALUE", "not found"),
        page(429, "", ""),
        page(500, HTML, PAGE_500),
        error_message(503, "TEMPORARILY_UNAVAILABLE", "does not exist"),
        page(302, HTML, "").insert_header("Location", "/login"),
        page(200, HTML, "<title>Sign in</title>"),
        page(204, "", ""),
        // serde alone would read the fields of an object from a list.
        page(404, "application/json", r#"["RESOURCE_DOES_NOT_EXIST"]"#),
        page(200, "application/json", "[]"),
    ];
    for failure in failures {
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(failure.clone()).mount(&server).await;
        let registry = registry(&server.uri());
        let (name, champion) = (model("fraud"), alias("champion"));
        let refused = |result: Result<(), RegistryError>| assert!(result.is_err(), "{failure:?}");
        refused(registry.probe().await.map(drop));
        refused(registry.model(&name).await.map(drop));
        refused(registry.version(&name, version(1)).await.map(drop));
        refused(registry.newest_versions(&name, 1).await.map(drop));
        refused(registry.input_example(&name, version(1), 1 << 20).await.map(drop));
        refused(registry.set_alias(&name, &champion, version(1)).await);
        refused(registry.delete_alias(&name, &champion).await);
        refused(registry.delete_model(&name).await);
        refused(registry.delete_model_tag(&name, "k").await);
        refused(registry.set_description(&name, "").await);
        refused(registry.models(&BTreeSet::from([name])).await.map(drop));
    }
}
