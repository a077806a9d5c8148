//! A namespace, a registered model, and aliases of it.

use std::time::Duration;

use anyhow::Result;
use laurel::api::ModelAlias;
use serde_json::{Value, json};

use crate::support::{
    alias::{self, Alias, Change},
    cluster::Cluster,
    load::Request,
    mlflow::Mlflow,
    service::{Way, gateway_traffic, through_gateway, way_to},
};

pub(crate) const NAMESPACE: &str = "laurel-bench";
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);
const MODEL: &str = "fraud-xgboost";

pub(crate) struct Harness {
    pub(crate) cluster: Cluster,
    mlflow: Mlflow,
}

impl Harness {
    pub(crate) async fn create() -> Result<Self> {
        let cluster = Cluster::connect().await?;
        cluster.require_laurel().await?;
        let mlflow = Mlflow::connect(&cluster).await?;
        cluster.fresh_namespace(NAMESPACE, "bench").await?;
        let model = json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "RegisteredModel",
            "metadata": { "name": "fraud" }, "spec": { "modelName": MODEL } });
        cluster.run_kubectl(&["apply", "-n", NAMESPACE, "-f", "-"], Some(&model.to_string())).await?;
        Ok(Self { cluster, mlflow })
    }

    /// Serves version 1 under an alias of that name, behind the Gateway if `routed`.
    pub(crate) async fn serve(&self, name: &str, keep_alive: &str, routed: bool) -> Result<Alias> {
        let image = std::env::var("LAUREL_SERVING_IMAGE");
        let image = image.as_deref().unwrap_or("localhost/laurel/serving:3.17.2");
        let traffic = if routed { gateway_traffic(&path(name)) } else { Value::Null };
        let spec = json!({
            "modelRef": { "name": "fraud" },
            "alias": format!("bench-{name}"),
            "version": "1",
            "serving": {
                "image": image,
                "keepAlive": keep_alive,
                "template": { "spec": { "containers": [patient_probes()] } },
            },
            "traffic": traffic,
        });
        let manifest = json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelAlias",
            "metadata": { "name": name }, "spec": spec });
        let alias = Alias::observe(&self.cluster, NAMESPACE, name);
        let change = alias.apply(&manifest.to_string()).await?;
        alias.ready(change, PATIENCE).await?;
        Ok(alias)
    }

    pub(crate) async fn inside(&self, name: &str) -> Result<Way> {
        way_to(&self.cluster, NAMESPACE, name).await
    }

    pub(crate) async fn outside(&self, name: &str) -> Result<Way> {
        through_gateway(&self.cluster, &path(name)).await
    }

    /// A prediction of the model's own input example.
    pub(crate) async fn prediction(&self) -> Result<Request> {
        let example = self.mlflow.artifact((MODEL, "1"), "serving_input_example.json").await?;
        Ok(Request::post_json("/invocations", example))
    }

    pub(crate) async fn clean_up(&self) -> Result<()> {
        self.cluster.delete_namespace(NAMESPACE).await
    }
}

/// A pod that is slow on a busy machine stays ready.
fn patient_probes() -> Value {
    let patient = json!({ "timeoutSeconds": 30, "failureThreshold": 20 });
    json!({ "name": "model", "readinessProbe": patient, "livenessProbe": patient })
}

/// The path of an alias through the Gateway.
pub(crate) fn path(name: &str) -> String {
    format!("/{NAMESPACE}/{name}")
}

/// Waits until a version serves.
pub(crate) async fn serves(alias: &Alias, change: Change, version: &str) -> Result<()> {
    let is_met =
        |malias: &ModelAlias| alias::is_ready(malias, change.generation) && alias::version(malias) == version;
    let what = format!("Ready with version {version}");
    alias.until_since(change.accepted, &what, PATIENCE, is_met).await.map(drop)
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
