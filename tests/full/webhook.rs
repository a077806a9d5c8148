//! MLflow's own webhooks reach the operator in the cluster.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, api::ListParams};
use laurel::api::{ModelRegistry, condition::Reason};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    support::{alias, cluster::OPERATOR_NAMESPACE, mlflow, watch::Watch},
};

/// Where MLflow reaches the operator's endpoint.
async fn endpoint(fixture: &Fixture) -> Result<String> {
    let services: Api<Service> = Api::namespaced(fixture.cluster.client.clone(), OPERATOR_NAMESPACE);
    let all = services.list(&ListParams::default()).await?;
    let service =
        all.into_iter().find(|it| it.metadata.name.as_deref().is_some_and(|name| name.ends_with("webhook")));
    let service = service.context("Laurel is installed without webhook.enabled=true")?;
    let name = service.metadata.name.unwrap_or_default();
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    let port = ports.first().context("a Service without ports")?;
    ensure!(
        port.name.as_deref() == Some("http"),
        "install with webhook.scheme=http: MLflow knows no private authority"
    );
    Ok(format!("http://{name}.{OPERATOR_NAMESPACE}.svc:{}", port.port))
}

#[test]
fn an_alias_moved_in_mlflow_is_followed_by_its_webhook_with_polls_ten_minutes_apart() {
    run("push", 2, async |fixture| {
        fixture.good_versions(2).await?;
        let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "mlflow-webhook" },
              "stringData": { "secret": format!("through-the-looking-glass-{}", std::process::id()) } },
            { "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelRegistry", "metadata": { "name": "mlflow" },
              "spec": { "mlflow": { "url": mlflow::URL }, "pollInterval": "10m",
                        "webhook": { "secretRef": { "name": "mlflow-webhook" },
                                     "register": { "url": endpoint(fixture).await?, "encryptionKeySet": true } } } },
        ] });
        fixture.apply(&objects.to_string()).await?;
        let registries: Api<ModelRegistry> =
            Api::namespaced(fixture.cluster.client.clone(), &fixture.namespace);
        let registry = Watch::of(registries, "mlflow");
        let receives = Reason::WebhookReceiving.to_string();
        registry
            .until("MLflow's own test delivery arrives", PATIENCE, |seen| {
                let conditions = seen.object.status.as_ref().map(|status| &status.conditions);
                conditions.is_some_and(|all| all.iter().any(|each| each.reason == receives))
            })
            .await?;

        fixture.mlflow.set_alias(&fixture.model, "champion", "1").await?;
        let change = fixture.get(json!({ "follow": { "registry": {} } })).await?;
        let clients = fixture.clients().await?;
        // MLflow may keep for a minute what it knew of its webhooks before there was one.
        for (version, number) in [("2", 1), ("1", 2), ("2", 3)] {
            let moved = Instant::now();
            fixture.mlflow.set_alias(&fixture.model, "champion", version).await?;
            let follows =
                |malias: &_| alias::is_ready(malias, change.generation) && alias::version(malias) == version;
            let seen =
                fixture.champion.until_since(moved, "the alias is followed", PATIENCE, follows).await?;
            println!(
                "  move {number}: version {version} serves {:?} after the alias was moved",
                seen.at - moved
            );
        }
        clients.leave().await.map(drop)
    });
}
