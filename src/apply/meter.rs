//! Writes the ConfigMap that the pods of a namespace count with.

use std::time::Instant;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{Client, ResourceExt};

use super::Effects;
use crate::{
    api::condition::ReasonMessage,
    cluster::{error::error_message, server_side_apply},
    render,
    resolve::Subject,
};

/// Writes the ConfigMap that the pods of this Deployment mount, unless it was written lately. A failure is
/// logged and holds nothing up: pods start without it, and only count nothing.
pub(super) async fn ensure(effects: &Effects<'_>, subject: &Subject<'_>, deployment: &Deployment) {
    if !render::mounts_meter(deployment) {
        return;
    }
    let namespace = &subject.key.0;
    let written = effects.meters.ensure(namespace, Instant::now(), write(effects.client, namespace));
    if let Some(cause) = written.await {
        tracing::warn!(
            namespace,
            reason = %cause.reason,
            message = cause.message,
            "the meter cannot be written: new pods in this namespace may have no metrics"
        );
    }
}

async fn write(client: &Client, namespace: &str) -> Result<(), ReasonMessage> {
    let meter = render::meter(namespace);
    let name = meter.name_any();
    let written = server_side_apply::apply::<ConfigMap>(client, namespace, &name, &meter).await;
    written.map(drop).map_err(|error| error_message(&error, "apply", &format!("the ConfigMap {name:?}")))
}

#[cfg(test)]
mod tests {
    use kube::Config;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};

    use super::*;
    use crate::api::condition::Reason;

    /// Writes the meter. Returns the path and the body of the only request.
    async fn written(code: u16, answer: Value) -> (Result<(), ReasonMessage>, String, Value) {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(code).set_body_json(answer);
        Mock::given(method("PATCH")).respond_with(answer).mount(&server).await;
        // There may be one already; it is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
        let result = write(&client, "risk").await;
        let requests = server.received_requests().await.unwrap();
        assert_eq!(requests.len(), 1);
        (result, requests[0].url.to_string(), requests[0].body_json().unwrap())
    }

    #[tokio::test]
    async fn it_is_applied_with_one_request() {
        let (result, url, body) = written(201, json!({ "metadata": { "name": "meter" } })).await;
        assert_eq!(result, Ok(()));
        let name = render::meter("risk").name_any();
        let path = format!("/api/v1/namespaces/risk/configmaps/{name}?");
        assert!(url.contains(&path) && url.contains("fieldManager=laurel"), "{url}");
        assert_eq!(body, serde_json::to_value(render::meter("risk")).unwrap());
    }

    #[tokio::test]
    async fn a_missing_permission_is_named() {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "cannot patch configmaps", "reason": "Forbidden", "code": 403 });
        let (result, ..) = written(403, status).await;
        let cause = result.unwrap_err();
        assert_eq!(cause.reason, Reason::ApplyForbidden);
        assert!(cause.message.contains("the ConfigMap \"laurel-meter-"), "{}", cause.message);
    }
}
