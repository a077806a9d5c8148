//! Webhooks of a server that may deliver to this machine (tests/scripts/with-mlflow starts one).

use std::{sync::Arc, time::Duration};

use laurel::{
    api::condition::Reason,
    registry::{
        Registry,
        polled::{Hub, RegistryKey, Settings},
        webhook::{WebhookFacts, WebhookWish},
    },
    render::RegistryForPods,
    webhook::{
        plan,
        registration::{register, unregister},
    },
};
use pretty_assertions::assert_eq;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::header_exists};

use crate::{connection, registry, unique};

fn key() -> RegistryKey {
    RegistryKey::Object { namespace: "live".to_owned(), name: "mlflow".to_owned() }
}

/// A server that takes what is signed.
async fn receiver() -> MockServer {
    let server = MockServer::start().await;
    let signed = Mock::given(header_exists("X-MLflow-Signature")).and(header_exists("X-MLflow-Delivery-Id"));
    signed.respond_with(ResponseTemplate::new(200)).mount(&server).await;
    server
}

async fn found(wish: &WebhookWish) -> Vec<WebhookFacts> {
    let all = registry().webhooks().await.unwrap();
    all.into_iter().filter(|facts| facts.name == wish.name).collect()
}

#[tokio::test]
async fn a_webhook_is_made_kept_changed_and_deleted() {
    let connection = connection();
    let url = connection.url.clone();
    let settings = Settings {
        url: url.clone(),
        workspace: None,
        poll_interval: Duration::from_secs(30),
        pods: RegistryForPods { tracking_uri: url, workspace: None, ca: None, env_from: Vec::new() },
    };
    let (handle, _) = Hub::default().set(&key(), settings);
    handle.set_client(Ok(Arc::new(registry())));
    let uid = unique("hook").to_string();
    let receiver = receiver().await;
    let wish =
        |secret: &str, base: &str| plan::wish(&key(), &uid, &base.parse().unwrap(), &secret.into());

    let made = wish("first", &receiver.uri());
    let mut id = None;
    register(&handle, &made, true, &mut id).await.unwrap();
    let listed = found(&made).await;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].is_complete && listed[0].url == made.url && listed[0].description == made.description);
    assert_eq!(receiver.received_requests().await.unwrap().len(), 1, "MLflow delivers its example");

    // As it is, it is left alone: nothing is changed, and nothing is tried.
    register(&handle, &made, false, &mut None).await.unwrap();
    assert_eq!(receiver.received_requests().await.unwrap().len(), 1);

    let rotated = wish("second", &receiver.uri());
    let twin = registry().create_webhook(&made).await.unwrap();
    register(&handle, &rotated, false, &mut id).await.unwrap();
    let listed = found(&rotated).await;
    assert_eq!((listed.len(), &listed[0].description), (1, &rotated.description), "{twin} is gone");

    let refused = wish("second", "ftp://127.0.0.1");
    let note = register(&handle, &refused, false, &mut None).await.unwrap_err();
    assert_eq!(note.reason, Reason::WebhookSchemeRefused, "{note:?}");

    unregister(&handle, &plan::name_of(&uid), None).await.unwrap();
    assert_eq!(found(&rotated).await, []);
}
