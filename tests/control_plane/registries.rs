//! Registries as objects: of a namespace, of the cluster, and the default of either.

use anyhow::{Context, Result, ensure};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use laurel::api::{
    ClusterModelRegistry, ModelAlias, ModelRegistry, RegisteredModel,
    condition::{ConditionType, Reason},
};
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    harness::DEFAULT_REGISTRY,
    support::{alias::status, watch::Watch},
};

fn ready(model: &RegisteredModel) -> Option<String> {
    let conditions = model.status.clone()?.conditions;
    conditions.into_iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.reason)
}

/// Waits until the RegisteredModel `model` uses a registry, or reports a reason why it does not.
async fn until_model(fixture: &Fixture, reason: Reason, name: Option<&str>) -> Result<RegisteredModel> {
    let models: Watch<RegisteredModel> = Watch::of(fixture.api(), "model");
    let uses = |model: &RegisteredModel| {
        let registry = model.status.as_ref().and_then(|status| status.registry.as_ref());
        name.is_none() || registry.map(|registry| registry.name.as_str()) == name
    };
    let wanted: &str = reason.into();
    let is_so = |model: &RegisteredModel| ready(model).as_deref() == Some(wanted) && uses(model);
    let what = format!("{reason} with the registry {name:?}");
    Ok(models.until(&what, PATIENCE, |seen| is_so(&seen.object)).await?.object)
}

async fn apply(fixture: &Fixture, object: &Value) -> Result<()> {
    let apply = ["apply", "--server-side", "-f", "-"];
    fixture.cluster.run_kubectl(&apply, Some(&object.to_string())).await.map(drop)
}

#[test]
fn a_model_uses_the_default_of_its_namespace_before_that_of_the_cluster() {
    run("reg-default", async |fixture| {
        fixture.registered(1).await?;
        until_model(fixture, Reason::ModelSynced, Some(DEFAULT_REGISTRY)).await?;
        fixture.get("version: '1'").await?;
        let last = fixture.champion.last().context("it is gone")?;
        let registry = status(&last).registry.context("no status.registry")?;
        ensure!(registry.kind == "ClusterModelRegistry" && registry.name == DEFAULT_REGISTRY, "{registry:?}");
        ensure!(registry.url == fixture.mlflow.url(), "{registry:?}");

        fixture.default_registry(&fixture.mlflow.url()).await?;
        until_model(fixture, Reason::ModelSynced, Some("default")).await?;
        let uses = |it: &ModelAlias| {
            status(it).registry.is_some_and(|it| it.kind == "ModelRegistry" && it.name == "default")
        };
        fixture.champion.until("the registry of the namespace", PATIENCE, uses).await?;

        fixture.api::<ModelRegistry>().delete("default", &DeleteParams::default()).await?;
        until_model(fixture, Reason::ModelSynced, Some(DEFAULT_REGISTRY)).await.map(drop)
    });
}

#[test]
fn the_newer_of_two_defaults_is_used_and_the_older_reports_it() {
    run("reg-two", async |fixture| {
        fixture.registered(1).await?;
        fixture.default_registry(&fixture.mlflow.url()).await?;
        until_model(fixture, Reason::ModelSynced, Some("default")).await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await; // Objects know their age in seconds.
        let newer = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ModelRegistry",
            "metadata": { "name": "newer", "annotations": { "laurel.dev/default": "true" } },
            "spec": { "mlflow": { "url": fixture.mlflow.url() }, "pollInterval": "5s" },
        });
        fixture.apply(&newer.to_string()).await?;
        until_model(fixture, Reason::ModelSynced, Some("newer")).await?;
        let says = async |name: &str, reason: Reason, words: &str| {
            let type_: &str = ConditionType::Default.into();
            let wanted: &str = reason.into();
            let is_so = |registry: &ModelRegistry| {
                let conditions = registry.status.clone().unwrap_or_default().conditions;
                conditions
                    .iter()
                    .any(|it| it.type_ == type_ && it.reason == wanted && it.message.contains(words))
            };
            let registry: Watch<ModelRegistry> = Watch::of(fixture.api(), name);
            registry.until(wanted, PATIENCE, |seen| is_so(&seen.object)).await.map(drop)
        };
        says("default", Reason::NewerDefaultRegistry, "newer").await?;
        says("newer", Reason::DefaultRegistry, "").await
    });
}

#[test]
fn a_cluster_registry_is_used_by_the_namespaces_that_it_allows() {
    run("reg-allowed", async |fixture| {
        let name = fixture.namespace.as_str();
        let object = json!({
            "apiVersion": "laurel.dev/v1alpha1",
            "kind": "ClusterModelRegistry",
            "metadata": { "name": name },
            "spec": {
                "mlflow": { "url": fixture.mlflow.url() },
                "pollInterval": "5s",
                "allowedNamespaces": { "selector": { "matchLabels": { "team": name } } },
            },
        });
        apply(fixture, &object).await?;
        let result = async {
            fixture.registered(1).await?;
            let reference = format!("registryRef: {{kind: ClusterModelRegistry, name: {name}}}");
            fixture.describe_model(&reference).await?;
            until_model(fixture, Reason::RegistryNotAllowed, None).await?;
            fixture.cluster.run_kubectl(&["label", "namespace", name, &format!("team={name}")], None).await?;
            until_model(fixture, Reason::ModelSynced, Some(name)).await?;
            fixture.get("version: '1'").await?;
            // Whom it allows no more, it serves no more changes.
            let patch = json!({ "spec": { "allowedNamespaces": { "selector": { "matchLabels": { "team": "x" } } } } });
            let registries: Api<ClusterModelRegistry> = Api::all(fixture.cluster.client.clone());
            registries.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            until_model(fixture, Reason::RegistryNotAllowed, None).await.map(drop)
        };
        let result: Result<()> = result.await;
        let delete = ["delete", "clustermodelregistry", name, "--ignore-not-found"];
        fixture.cluster.run_kubectl(&delete, None).await?;
        result
    });
}
