//! The API: the custom resources of `laurel.dev/v1alpha1` and the types of their fields.
//!
//! Doc comments on spec and status fields are user documentation: `kubectl explain` shows them.

use jiff::SignedDuration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod cluster_model_registry;
pub mod condition;
pub mod follow;
pub mod http_route;
pub mod live;
pub mod metric;
pub mod model_alias;
mod model_alias_status;
pub mod model_experiment;
pub mod model_registry;
pub mod names;
pub mod promotion;
pub mod registered_model;
pub mod registry_reference;
mod schema;
pub mod serving_metrics;
pub mod traffic;

pub use cluster_model_registry::{ClusterModelRegistry, ClusterModelRegistrySpec};
pub use model_alias::{ModelAlias, ModelAliasSpec, ModelAliasStatus};
pub use model_experiment::{ModelExperiment, ModelExperimentSpec, ModelExperimentStatus};
pub use model_registry::{ModelRegistry, ModelRegistrySpec, ModelRegistryStatus};
pub use registered_model::{RegisteredModel, RegisteredModelSpec, RegisteredModelStatus};
pub use registry_reference::{RegistryKind, RegistryReference, RegistryStatus};

/// The API group of Laurel's kinds, and the prefix of its labels and annotations.
pub const GROUP: &str = "laurel.dev";

/// The field manager of all of Laurel's writes.
pub const FIELD_MANAGER: &str = "laurel";

/// An annotation on any of Laurel's objects. Any new value retries what was rejected.
pub const RETRY_ANNOTATION: &str = "laurel.dev/retry";

/// The annotation on a ModelAlias that approves a version in a step of its canary: `"5"`, or `"5/2"`.
pub const APPROVE_ANNOTATION: &str = "laurel.dev/approve";

/// The annotation with the user who last changed a ModelAlias's version. A `MutatingAdmissionPolicy` sets it.
pub const CHANGED_BY_ANNOTATION: &str = "laurel.dev/changed-by";

/// The annotation with the Git commit that a ModelAlias was applied from.
pub const COMMIT_ANNOTATION: &str = "laurel.dev/commit";

/// The annotation that makes a ModelRegistry the default of its namespace, or a ClusterModelRegistry that of
/// the cluster, when its value is `true`.
pub const DEFAULT_ANNOTATION: &str = "laurel.dev/default";

/// What Go's `time.ParseDuration` accepts, without signs: `90s`, `1h30m`.
pub(crate) const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

/// Returns the custom resource definitions, in the order of the documentation.
#[must_use]
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    let generated = [
        ModelRegistry::crd(),
        ClusterModelRegistry::crd(),
        RegisteredModel::crd(),
        ModelAlias::crd(),
        ModelExperiment::crd(),
    ];
    generated.into_iter().map(schema::finish).collect()
}

/// The maximum length of a duration's text. The parser panics on a longer one that exceeds what a duration
/// can hold.
pub(crate) const DURATION_MAX: usize = 16;

/// What Kubernetes accepts as an object name. A name that becomes part of a URL must not lead elsewhere.
pub(crate) const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// What Kubernetes accepts as a label of a DNS name.
pub(crate) const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// What Kubernetes accepts as a key of a Secret.
pub(crate) const KEY_PATTERN: &str = "^[-._a-zA-Z0-9]+$";

/// Names an object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
}

/// What happens in the registry when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display)]
pub enum DeletionPolicy {
    /// It stays in the registry.
    #[default]
    Retain,
    /// It is deleted from the registry as well.
    Delete,
}

/// Converts a duration of the API into one with a sign. One that it cannot hold becomes the longest.
#[must_use]
pub fn signed_duration(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(std_duration(duration)).unwrap_or(SignedDuration::MAX)
}

/// Converts a duration of the API into one of the standard library.
#[must_use]
pub fn std_duration(duration: Duration) -> std::time::Duration {
    duration.into()
}
