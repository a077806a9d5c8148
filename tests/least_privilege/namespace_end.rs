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
pub(crate) const GRACE: Duration = Duration::from_secs(90);

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
    let standin = Standin::create(place, install).await?;

    let namespaces: Api<Namespace> = Api::all(place.cluster.client.clone());
    let namespace = namespaces.get(&place.namespace).await?;
    let began = Instant::now();
    namespaces.delete(&place.namespace, &DeleteParams::default()).await?;
    standin.is_told_to_end().await?;
    let champion = place.api::<ModelAlias>().get("champion").await?;
    ensure!(champion.metadata.deletion_timestamp.is_none(), "Kubernetes deletes pods first");
    operator.terminate(GRACE).await?;
    println!("  the operator has ended after {:.1?}", began.elapsed());
    standin.let_go().await?;
    let uid = namespace.metadata.uid.unwrap_or_default();
    timeout(PATIENCE, await_condition(namespaces, &place.namespace, is_deleted(&uid))).await??;
    println!("  the namespace is gone after {:.1?}", began.elapsed());
    ensure!(place.mlflow.model(&place.model).await?.is_none(), "the model is left in the registry");
    Ok(())
}

/// The pod that stands in for the operator's.
pub(crate) struct Standin(Api<Pod>);

impl Standin {
    const NAME: &str = "operator";

    pub(crate) async fn create(place: &Place, install: &Install) -> Result<Self> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": Self::NAME, "finalizers": ["laurel.test/running"] },
            "spec": install.template()?["spec"],
        });
        place.apply(&pod.to_string()).await?;
        Ok(Self(place.api()))
    }

    /// Waits until the kubelet would terminate it.
    pub(crate) async fn is_told_to_end(&self) -> Result<()> {
        let is_ending = |pod: Option<&Pod>| pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
        timeout(PATIENCE, await_condition(self.0.clone(), Self::NAME, is_ending)).await??;
        Ok(())
    }

    /// Lets it go, as the kubelet does after the process has ended.
    pub(crate) async fn let_go(&self) -> Result<()> {
        let released = json!({ "metadata": { "finalizers": null } });
        self.0.patch(Self::NAME, &PatchParams::default(), &Patch::Merge(released)).await?;
        Ok(())
    }
}
