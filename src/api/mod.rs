//! The contract: the custom resources of `laurel.dev/v1alpha1` and the words they are written in.
//!
//! Doc comments on spec and status fields are user documentation: `kubectl explain` shows them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod cluster_model_registry;
pub mod condition;
pub mod follow;
pub mod metric;
pub mod model_alias;
pub mod model_registry;
pub mod names;
pub mod promotion;
pub mod registered_model;
pub mod registry_reference;
mod schema;

pub use cluster_model_registry::{ClusterModelRegistry, ClusterModelRegistrySpec};
pub use model_alias::{ModelAlias, ModelAliasSpec, ModelAliasStatus};
pub use model_registry::{ModelRegistry, ModelRegistrySpec, ModelRegistryStatus};
pub use registered_model::{RegisteredModel, RegisteredModelSpec, RegisteredModelStatus};
pub use registry_reference::{RegistryKind, RegistryReference, RegistryStatus};

/// The API group of Laurel's kinds, its labels and its annotations.
pub const GROUP: &str = "laurel.dev";

/// The one field manager of everything that Laurel writes.
pub const FIELD_MANAGER: &str = "laurel";

/// An annotation on any of Laurel's objects. Any new value asks to try again what was refused or rejected.
pub const RETRY_ANNOTATION: &str = "laurel.dev/retry";

/// The annotation in which the API server says who last decided about a ModelAlias's version. A
/// `MutatingAdmissionPolicy` sets it.
pub const CHANGED_BY_ANNOTATION: &str = "laurel.dev/changed-by";

/// The annotation in which whoever applies a ModelAlias names the Git commit that it comes from.
pub const COMMIT_ANNOTATION: &str = "laurel.dev/commit";

/// The annotation that makes a ModelRegistry the default of its namespace, or a ClusterModelRegistry that of
/// the cluster, when its value is `true`.
pub const DEFAULT_ANNOTATION: &str = "laurel.dev/default";

/// What Go's `time.ParseDuration` accepts, without signs: `90s`, `1h30m`.
pub(crate) const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

/// The custom resource definitions, in the order in which a reader meets the kinds.
#[must_use]
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    let generated =
        [ModelRegistry::crd(), ClusterModelRegistry::crd(), RegisteredModel::crd(), ModelAlias::crd()];
    generated.into_iter().map(schema::finish).collect()
}

/// The longest text of a duration. A longer one can mean more than a duration can hold, at which its parser
/// panics.
pub(crate) const DURATION_MAX: usize = 16;

/// What Kubernetes takes as the name of an object. A name that is put into a URL must not lead elsewhere.
pub(crate) const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// What Kubernetes takes as a label of a DNS name.
pub(crate) const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// What Kubernetes takes as a key of a Secret.
pub(crate) const KEY_PATTERN: &str = "^[-._a-zA-Z0-9]+$";

/// Names an object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
}

/// What happens in the registry when the object is deleted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display)]
pub enum DeletionPolicy {
    /// It stays in the registry.
    #[default]
    Retain,
    /// It is deleted in the registry as well.
    Delete,
}

/// A duration of the API as one of the standard library.
#[must_use]
pub fn std_duration(duration: Duration) -> std::time::Duration {
    duration.into()
}
