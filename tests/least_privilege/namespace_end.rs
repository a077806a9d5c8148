//! The namespace is deleted that an operator with `scope: namespace` runs in.
//!
//! The operator is a process here, so a pod stands in for its pod: it stays until the process has ended, as
//! the kubelet would let it. Everything else is real: the order of the deletion, the role, and when it goes.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    runtime::wait::{await_condition, conditions::is_deleted},
};
use laurel::api::{ModelAlias, RegisteredModel};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    install::{Install, Operator},
    simulated::place::{PATIENCE, Place},
};

/// What the chart allows its pod: `terminationGracePeriodSeconds`.
const GRACE: Duration = Duration::from_secs(90);

pub(crate) async fn ends_with_the_operator_inside(
    place: &Place,
    install: &Install,
    operator: &Operator,
) -> Result<()> {
    place.describe_model("{registryRef: {name: by-password}, deletionPolicy: Delete}").await?;
    let models: Api<RegisteredModel> = place.api();
    let is_held = |model: Option<&RegisteredModel>| model.is_some_and(|model| !model.finalizers().is_empty());
    timeout(PATIENCE, await_condition(models, "model", is_held)).await??;
    place.get("{version: '2', deletionPolicy: Delete}").await?;
    place.until_named("champion", Some("2")).await?;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "operator", "finalizers": ["laurel.test/running"] },
        "spec": install.template()?["spec"],
    });
    place.apply(&pod.to_string()).await?;

    let namespaces: Api<Namespace> = Api::all(place.cluster.client.clone());
    let pods: Api<Pod> = place.api();
    let namespace = namespaces.get(&place.namespace).await?;
    let began = Instant::now();
    namespaces.delete(&place.namespace, &DeleteParams::default()).await?;
    let is_ending = |pod: Option<&Pod>| pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
    timeout(PATIENCE, await_condition(pods.clone(), "operator", is_ending)).await??;
    let champion = place.api::<ModelAlias>().get("champion").await?;
    ensure!(champion.metadata.deletion_timestamp.is_none(), "Kubernetes deletes pods first");
    operator.terminate(GRACE).await?;
    println!("  the operator has ended after {:.1?}", began.elapsed());
    let released = json!({ "metadata": { "finalizers": null } });
    pods.patch("operator", &PatchParams::default(), &Patch::Merge(released)).await?;
    let uid = namespace.metadata.uid.unwrap_or_default();
    timeout(PATIENCE, await_condition(namespaces, &place.namespace, is_deleted(&uid))).await??;
    println!("  the namespace is gone after {:.1?}", began.elapsed());
    ensure!(place.mlflow.model(&place.model).await?.is_none(), "the model is left in the registry");
    Ok(())
}
