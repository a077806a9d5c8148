//! What cannot be used is refused before the first request, and secrets stay out of every text.

use std::time::Duration;

use laurel::registry::{
    Registry,
    mlflow::{Connection, ConnectionError, Credentials, MlflowRegistry},
};
use pretty_assertions::assert_eq;
use serde_json::json;
use wiremock::{Mock, MockServer, matchers::any};

use super::support::{connection, error_message, model, ok, page};

fn basic(username: &str, password: &str) -> Credentials {
    Credentials::Basic { username: username.to_owned(), password: password.into() }
}

fn with(credentials: Credentials) -> Connection {
    Connection { credentials: Some(credentials), ..connection("http://mlflow") }
}

#[test]
fn unusable_settings_are_rejected_with_the_field_and_the_next_step() {
    let url = |url: &str| connection(url);
    let workspace =
        |name: &str| Connection { workspace: Some(name.to_owned()), ..connection("http://mlflow") };
    let table = [
        (url("ftp://mlflow"), "url: the scheme \"ftp\" is not supported; use http:// or https://"),
        (url("file:///tmp"), "url: the scheme \"file\""),
        (url("http://user:pw@mlflow"), "url: it contains a user name or a password; remove it"),
        (url("http://user@mlflow"), "url: it contains a user name"),
        (url("http://mlflow/?x=1"), "url: it has a query or a fragment; keep only"),
        (url("http://mlflow/#/models"), "url: it has a query or a fragment"),
        (workspace("Team A"), "workspace: \"Team A\" is not a valid workspace name; use lower-case"),
        (workspace(""), "workspace: \"\""),
        (workspace("-a"), "workspace: \"-a\""),
        (Connection { timeout: Duration::ZERO, ..url("http://mlflow") }, "timeout: "),
        (with(basic("", "pw")), "credentials: the user name is empty; set one"),
        (with(basic("a:b", "pw")), "credentials: the user name has a ':'"),
        (with(basic("a", "pw\n")), "credentials: the user name or the password has a line break"),
        (with(Credentials::Bearer("".into())), "credentials: the token is empty; set one"),
        (with(Credentials::Bearer("abc\n".into())), "credentials: the token has a space, a line break"),
    ];
    for (connection, message) in table {
        let error = MlflowRegistry::new(connection).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
        assert!(!error.contains("pw") && !error.contains("abc"), "{error}");
    }
}

#[test]
fn https_works_with_the_certificates_of_the_system() {
    match MlflowRegistry::new(connection("https://mlflow")) {
        Ok(_) => {}
        // A machine without certificates is told what to do.
        Err(error) => assert!(matches!(error, ConnectionError::Tls { .. }), "{error}"),
    }
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let table = [
        (basic("ü", "s3cret"), "Basic w7w6czNjcmV0"),
        (Credentials::Bearer("s3cret".into()), "Bearer s3cret"),
    ];
    for (credentials, header) in table {
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(ok(&json!({}))).mount(&server).await;
        let connection = Connection { credentials: Some(credentials), ..connection(&server.uri()) };
        assert!(!format!("{connection:?}").contains("s3cret"));
        let registry = MlflowRegistry::new(connection).unwrap();
        assert!(!format!("{registry:?}").contains("s3cret"));
        registry.newest_versions(&model("m"), 1).await.unwrap();
        let requests = server.received_requests().await.unwrap();
        assert_eq!(requests[0].headers["authorization"], header);
    }
}

/// A proxy that somebody debugs with answers what it got.
#[tokio::test]
async fn promise_12_credentials_that_a_server_sends_back_are_not_quoted() {
    let table = [
        (basic("us", "s3cret \"pw\" & more"), "dXM6czNjcmV0ICJwdyIgJiBtb3Jl"),
        (Credentials::Bearer("s3cret".into()), "s3cret"),
    ];
    for (credentials, header) in table {
        let secret =
            if let Credentials::Basic { .. } = credentials { r#"s3cret "pw" & more"# } else { "s3cret" };
        let escaped = secret.replace('&', "&amp;").replace('"', "&quot;");
        let said = format!("Authorization: {header} for {secret}.");
        let answers = [
            page(401, "text/plain", &said),
            page(
                403,
                "text/html",
                &format!("<h1>Denied</h1><pre>Authorization: {header} for {escaped}.</pre>"),
            ),
            error_message(400, "BAD_REQUEST", &said),
            page(500, "text/plain", &format!("{} {said}", "a long page, ".repeat(21))),
            page(200, "text/html", &said),
            ok(&json!({ "registered_models": said })),
        ];
        for answer in answers {
            let server = MockServer::start().await;
            Mock::given(any()).respond_with(answer).mount(&server).await;
            let connection =
                Connection { credentials: Some(credentials.clone()), ..connection(&server.uri()) };
            let registry = MlflowRegistry::new(connection).unwrap();
            let error = registry.models(&[model("m")].into()).await.unwrap_err();
            let reported = format!("{error} {error:?}");
            assert!(!reported.contains(header) && !reported.contains("s3cret"), "{reported}");
            assert!(reported.contains("(hidden)"), "{reported}");
        }
    }
}

#[tokio::test]
async fn without_credentials_none_are_sent() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ok(&json!({}))).mount(&server).await;
    MlflowRegistry::new(connection(&server.uri())).unwrap().newest_versions(&model("m"), 1).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert!(!requests[0].headers.contains_key("authorization"));
    let agent = requests[0].headers["user-agent"].to_str().unwrap().to_owned();
    assert!(agent.starts_with("laurel/"), "{agent}");
}
