//! `ClusterModelRegistry`: a registry for many namespaces.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::model_registry::{ModelRegistrySpec, ModelRegistryStatus};

/// Where a model registry is, how to log in to it, and which namespaces may use it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "laurel.dev",
    version = "v1alpha1",
    kind = "ClusterModelRegistry",
    plural = "clustermodelregistries",
    shortname = "cmreg",
    category = "laurel",
    status = "ModelRegistryStatus",
    derive = "PartialEq",
    doc = "A model registry (MLflow) for many namespaces: where it is, how to log in to it, and which \
         namespaces may use it. The Secrets that it names for Laurel are in the operator's namespace. With \
         the annotation laurel.dev/default: \"true\" it is used by RegisteredModels that name no registry, \
         unless their namespace has a default ModelRegistry.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.mlflow.url"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Server", type_ = "string", json_path = ".status.serverVersion"),
    printcolumn(name = "Models", type_ = "integer", json_path = ".status.watchedModels"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterModelRegistrySpec {
    /// The registry's settings, as in a ModelRegistry.
    #[serde(flatten)]
    pub registry: ModelRegistrySpec,

    /// The namespaces whose objects may use this registry. Without it, every namespace may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// The namespaces whose objects may use a ClusterModelRegistry.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllowedNamespaces {
    /// Selects namespaces by their labels. An empty selector selects every namespace.
    pub selector: LabelSelector,
}
