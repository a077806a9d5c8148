//! The plan: four aliases of one model, each with its own way of requesting versions and its own rate.

use serde_json::{Value, json};

use super::clients::Rate;
use crate::support::{mlflow, service::gateway_traffic};

/// The namespace, and the registered model.
pub(super) const NAMESPACE: &str = "laurel-soak";

/// The model whose versions are registered again, under another name.
pub(super) const ORIGIN: &str = "fraud-xgboost";

/// The versions that serve in turn, beginning with the first.
pub(super) const VERSIONS: [&str; 3] = ["1", "2", "3"];

/// The same logged models again, for a challenger: its answers differ from those of the champion.
const CHALLENGER_VERSIONS: [&str; 3] = ["4", "5", "6"];

/// Every version to register, with the one of [`ORIGIN`] that it is a copy of.
pub(super) fn registered() -> impl Iterator<Item = (&'static str, &'static str)> {
    [VERSIONS, CHALLENGER_VERSIONS].into_iter().flat_map(|versions| versions.into_iter().zip(VERSIONS))
}

/// How versions are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskedBy {
    /// `spec.version`.
    Spec,
    /// The followed alias in MLflow.
    Registry,
}

/// How pods and traffic move to another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moves {
    /// At once, through the Service.
    BlueGreen,
    /// Pod by pod, through the Service.
    Rolling,
    /// In steps, through the Gateway.
    Canary,
}

impl From<AskedBy> for &'static str {
    fn from(asked_by: AskedBy) -> Self {
        match asked_by {
            AskedBy::Spec => "spec.version",
            AskedBy::Registry => "the alias in MLflow",
        }
    }
}

/// A ModelAlias, and its request rate.
pub(super) struct Plan {
    /// Its name, which is also the Service's.
    pub(super) name: &'static str,
    /// The alias in MLflow.
    pub(super) alias: &'static str,
    pub(super) asked_by: AskedBy,
    pub(super) moves: Moves,
    pub(super) versions: [&'static str; 3],
    pub(super) replicas: u32,
    pub(super) rate: Rate,
}

impl Plan {
    /// How many pods start at a time for a new version.
    pub(super) fn starts(&self) -> u32 {
        if self.moves == Moves::Rolling { 1 } else { self.replicas }
    }

    /// The challenger, which answers 10 % of the requests.
    pub(super) fn challenger(&self) -> Option<&'static Self> {
        PLANS.iter().find(|plan| self.path().is_some() && plan.name == CHALLENGER)
    }

    /// The path through the Gateway; `None` if clients use the Service.
    pub(super) fn path(&self) -> Option<String> {
        (self.moves == Moves::Canary).then(|| format!("/{NAMESPACE}/{}", self.name))
    }
}

/// The challenger of the ModelAlias that is behind the Gateway.
const CHALLENGER: &str = "follower";

/// 210 requests a second in total, half of them over new connections. One in five is a prediction of the real
/// model; the rest are pings, so that two cores also have room for the model servers that start all the time.
pub(super) static PLANS: [Plan; 4] = [
    Plan {
        name: "pinned",
        alias: "champion",
        asked_by: AskedBy::Spec,
        moves: Moves::BlueGreen,
        versions: VERSIONS,
        replicas: 2,
        rate: Rate { predictions: 10, pings: 40 },
    },
    Plan {
        name: CHALLENGER,
        alias: "challenger",
        asked_by: AskedBy::Registry,
        moves: Moves::BlueGreen,
        versions: CHALLENGER_VERSIONS,
        replicas: 1,
        rate: Rate { predictions: 5, pings: 20 },
    },
    Plan {
        name: "exchanged",
        alias: "shadow",
        asked_by: AskedBy::Spec,
        moves: Moves::Rolling,
        versions: VERSIONS,
        replicas: 2,
        rate: Rate { predictions: 5, pings: 15 },
    },
    Plan {
        name: "outside",
        alias: "canary",
        asked_by: AskedBy::Spec,
        moves: Moves::Canary,
        versions: VERSIONS,
        replicas: 1,
        rate: Rate { predictions: 5, pings: 15 },
    },
];

/// Returns all objects to apply.
pub(super) fn objects() -> Vec<Value> {
    let mut objects = vec![
        json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelRegistry", "metadata": { "name": "mlflow" },
                "spec": { "mlflow": { "url": mlflow::URL }, "pollInterval": "5s" } }),
        json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "RegisteredModel", "metadata": { "name": "model" },
                "spec": { "modelName": NAMESPACE, "registryRef": { "name": "mlflow" } } }),
    ];
    objects.extend(PLANS.iter().map(model_alias));
    objects
}

/// Two cores serve, start model servers and run the cluster. Patient probes: if a slow server counted as
/// failed, requests would be lost because of the machine and not of a change of version.
pub(crate) fn patient_probes() -> Value {
    let patient = json!({ "timeoutSeconds": 30, "failureThreshold": 20 });
    json!({ "name": "model", "readinessProbe": patient, "livenessProbe": patient })
}

fn model_alias(plan: &Plan) -> Value {
    let image = std::env::var("LAUREL_SERVING_IMAGE");
    let mut spec = json!({
        "modelRef": { "name": "model" },
        "alias": plan.alias,
        "serving": {
            "image": image.as_deref().unwrap_or("localhost/laurel/serving:3.17.2"),
            "replicas": plan.replicas,
            "resources": { "requests": { "cpu": "100m", "memory": "300Mi" } },
            "template": { "spec": { "containers": [patient_probes()] } },
        },
    });
    match plan.asked_by {
        AskedBy::Spec => spec["version"] = json!(plan.versions[0]),
        AskedBy::Registry => spec["follow"] = json!({ "registry": {} }),
    }
    match plan.moves {
        Moves::BlueGreen => {}
        Moves::Rolling => spec["rollout"] = json!({ "strategy": "Rolling", "maxSurge": 1 }),
        Moves::Canary => {
            let steps = json!([{ "weight": 10, "atLeast": "2s" }, { "weight": 50, "atLeast": "2s" }]);
            spec["rollout"] = json!({ "strategy": "Canary", "steps": steps });
        }
    }
    if let Some(path) = plan.path() {
        spec["traffic"] = gateway_traffic(&path);
        // The Gateway chooses a version for each request, so connections can be kept.
        spec["serving"]["keepAlive"] = json!("Enabled");
    }
    if let Some(challenger) = plan.challenger() {
        spec["traffic"]["challengers"] = json!([{ "aliasRef": { "name": challenger.name }, "weight": 10 }]);
    }
    json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelAlias", "metadata": { "name": plan.name }, "spec": spec })
}
