//! The definitions in a cluster may be older than the operator: its status is written all the same.

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use laurel::api::custom_resource_definitions;
use serde_json::{Value, json};

use crate::fixture::{Fixture, PATIENCE, run};

const FIELDS: [&str; 3] = ["registry", "desiredReplicas", "endpoint"];

/// The definition of ModelAlias in an API group of its own, as a release would have it that does not know
/// some fields yet.
fn yesterdays(group: &str) -> Result<CustomResourceDefinition> {
    let all = custom_resource_definitions();
    let today = all.iter().find(|crd| crd.spec.names.kind == "ModelAlias").context("no ModelAlias")?;
    let mut crd = serde_json::to_value(today)?;
    crd["metadata"]["name"] = format!("modelaliases.{group}").into();
    crd["spec"]["group"] = group.into();
    crd["spec"]["names"]["shortNames"] = Value::Null;
    crd["spec"]["names"]["categories"] = Value::Null;
    let status = status_schema(&mut crd);
    for field in FIELDS {
        status["properties"].as_object_mut().and_then(|it| it.remove(field)).context(field)?;
    }
    let entry = &mut status["properties"]["history"]["items"]["properties"];
    entry.as_object_mut().and_then(|it| it.remove("requestedBy")).context("requestedBy")?;
    Ok(serde_json::from_value(crd)?)
}

fn status_schema(crd: &mut Value) -> &mut Value {
    &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
}

/// What a later operator writes: a new field at the top and in a list, and words that nobody knew.
fn status() -> Value {
    let at = "2026-01-01T00:00:00Z";
    json!({
        "observedGeneration": 1,
        "registry": { "kind": "ModelRegistry", "name": "mlflow", "url": "http://mlflow" },
        "desiredReplicas": 2,
        "endpoint": "http://champion",
        "mood": "good",
        "rejected": [{ "version": "2", "reason": "TooSlow", "message": "p99", "at": at, "settings": "v9-a", "active": true }],
        "history": [{ "version": "2", "at": at, "cause": "Dream", "outcome": "Celebrated", "requestedBy": "ana" }],
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "BrandNew", "message": "", "lastTransitionTime": at,
        }],
    })
}

/// Writes the status as the operator does, and answers it as it is stored.
async fn write(fixture: &Fixture, crd: &CustomResourceDefinition) -> Result<kube::Result<DynamicObject>> {
    let crds: Api<CustomResourceDefinition> = Api::all(fixture.cluster.client.clone());
    let name = crd.metadata.name.as_deref().context("a name")?;
    crds.create(&PostParams::default(), crd).await?;
    tokio::time::timeout(PATIENCE, await_condition(crds.clone(), name, is_crd_established())).await??;
    let kind = GroupVersionKind::gvk(&crd.spec.group, "v1alpha1", "ModelAlias");
    let resource = ApiResource::from_gvk_with_plural(&kind, "modelaliases");
    let api: Api<DynamicObject> =
        Api::namespaced_with(fixture.cluster.client.clone(), &fixture.namespace, &resource);
    let head = json!({
        "apiVersion": format!("{}/v1alpha1", crd.spec.group), "kind": "ModelAlias", "metadata": { "name": "champion" },
    });
    let mut object = head.clone();
    object["spec"] = json!({ "modelRef": { "name": "model" }, "alias": "champion", "version": "1" });
    let applied = PatchParams::apply("laurel").force();
    api.patch("champion", &applied, &Patch::Apply(&object)).await?;
    let mut object = head;
    object["status"] = status();
    let written = api.patch_status("champion", &applied, &Patch::Apply(&object)).await;
    crds.delete(name, &DeleteParams::default()).await?;
    Ok(written)
}

#[test]
fn a_status_is_written_in_full_despite_older_definitions() {
    run("old-crd", async |fixture| {
        let group = format!("yesterday-{}.laurel.test", std::process::id());
        let written = write(fixture, &yesterdays(&group)?).await??;
        ensure!(written.data["status"] == status(), "{:#}", written.data["status"]);
        Ok(())
    });
}

/// The same with a closed schema fails, so the test above can.
#[test]
fn a_closed_schema_would_reject_it() {
    run("closed-crd", async |fixture| {
        let group = format!("closed-{}.laurel.test", std::process::id());
        let mut crd = serde_json::to_value(yesterdays(&group)?)?;
        let status = status_schema(&mut crd);
        status.as_object_mut().context("a schema")?.remove("x-kubernetes-preserve-unknown-fields");
        let refused = write(fixture, &serde_json::from_value(crd)?).await?;
        let error_message = refused.err().context("it was written")?.to_string();
        ensure!(error_message.contains("field not declared in schema"), "{error_message}");
        Ok(())
    });
}
