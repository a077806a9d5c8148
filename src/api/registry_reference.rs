//! References to a registry, and the registry that was resolved from one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NAME_PATTERN;

/// Names a ModelRegistry in the same namespace, or a ClusterModelRegistry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryReference {
    /// `ModelRegistry` (the default), in the same namespace, or `ClusterModelRegistry`.
    #[serde(default)]
    pub kind: RegistryKind,
    /// The name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
}

/// The kinds that describe a registry.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::Display,
)]
pub enum RegistryKind {
    /// A registry for one namespace.
    #[default]
    ModelRegistry,
    /// A registry for many namespaces.
    ClusterModelRegistry,
}

/// The registry that an object uses, whether named or by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegistryStatus {
    /// `ModelRegistry` or `ClusterModelRegistry`.
    pub kind: String,
    /// The name of that object.
    pub name: String,
    /// The URL of the registry.
    pub url: String,
    /// The workspace in the registry, if the object names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

impl RegistryStatus {
    /// Whether `other`, the place now, is the same registry and workspace, whichever object describes it.
    /// Without a workspace, MLflow uses the one called `default`; but a status without one may also be from a
    /// release that did not write it, and then another workspace is not taken for another place.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        let place = |status: &Self| status.workspace.clone().filter(|workspace| workspace != "default");
        self.url == other.url && (self.workspace.is_none() || place(self) == place(other))
    }
}
