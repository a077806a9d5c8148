//! Webhooks of a server that may deliver to this machine (tests/scripts/with-mlflow starts one).

use std::{sync::Arc, time::Duration};

use laurel::{
    api::condition::Reason,
    registry::{
        Registry,
        limiter::Limits,
        polled::{Registries, RegistryKey, Settings},
        webhook::{DesiredWebhook, WebhookFacts},
    },
    render::RegistryForPods,
    webhook::{
        plan,
        registration::{register, unregister},
    },
};
use pretty_assertions::assert_eq;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::header_exists};

use crate::{connection, registry, server::Server, unique};

fn key() -> RegistryKey {
    RegistryKey::Object { namespace: "live".to_owned(), name: "mlflow".to_owned() }
}

/// A server that accepts signed deliveries.
async fn receiver() -> MockServer {
    let server = MockServer::start().await;
    let signed = Mock::given(header_exists("X-MLflow-Signature")).and(header_exists("X-MLflow-Delivery-Id"));
    signed.respond_with(ResponseTemplate::new(200)).mount(&server).await;
    server
}

async fn found(desired: &DesiredWebhook) -> Vec<WebhookFacts> {
    let all = registry().webhooks().await.unwrap();
    all.into_iter().filter(|facts| facts.name == desired.name).collect()
}

#[tokio::test]
async fn a_webhook_is_created_kept_changed_and_deleted() {
    let connection = connection();
    let url = connection.url.clone();
    let settings = Settings {
        url: url.clone(),
        workspace: None,
        poll_interval: Duration::from_secs(30),
        limits: Limits::default(),
        pods: RegistryForPods { tracking_uri: url, workspace: None, ca: None, env_from: Vec::new() },
    };
    let (polled, _) = Registries::default().set(&key(), settings);
    polled.set_client(Ok(Arc::new(registry())));
    let uid = unique("hook").to_string();
    let receiver = receiver().await;
    let desired = |secret: &str, base: &str| {
        plan::desired_webhook(&key(), &uid, &base.parse().unwrap(), &secret.into())
    };

    let made = desired("first", &receiver.uri());
    let mut id = None;
    let registered = register(&polled, &made, true, &mut id).await;
    if !Server::get().has_webhooks() {
        let cause = registered.unwrap_err();
        assert_eq!(cause.reason, Reason::RegistryUnsupported, "{cause:?}");
        let next = "remove spec.webhook.register, and polling continues";
        assert!(cause.message.contains("MLflow 3.3 or newer") && cause.message.contains(next), "{cause:?}");
        // Also where none could be created, deleting the registry waits for nothing.
        let cause = unregister(&polled, &plan::name_of(&uid), None).await.unwrap_err();
        assert_eq!(cause.reason, Reason::RegistryUnsupported, "{cause:?}");
        return;
    }
    registered.unwrap();
    let listed = found(&made).await;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].is_complete && listed[0].url == made.url && listed[0].description == made.description);
    assert_eq!(receiver.received_requests().await.unwrap().len(), 1, "MLflow delivers its example");

    // An unchanged webhook is kept: nothing is written or tested.
    register(&polled, &made, false, &mut None).await.unwrap();
    assert_eq!(receiver.received_requests().await.unwrap().len(), 1);

    let rotated = desired("second", &receiver.uri());
    let twin = registry().create_webhook(&made).await.unwrap();
    register(&polled, &rotated, false, &mut id).await.unwrap();
    let listed = found(&rotated).await;
    assert_eq!((listed.len(), &listed[0].description), (1, &rotated.description), "{twin} is gone");

    let refused = desired("second", "ftp://127.0.0.1");
    let cause = register(&polled, &refused, false, &mut None).await.unwrap_err();
    assert_eq!(cause.reason, Reason::WebhookSchemeRefused, "{cause:?}");

    unregister(&polled, &plan::name_of(&uid), None).await.unwrap();
    assert_eq!(found(&rotated).await, []);
}
