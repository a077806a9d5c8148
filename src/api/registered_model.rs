//! `RegisteredModel`: a model that exists in the registry.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DeletionPolicy, RegistryReference, RegistryStatus,
    names::{ModelName, TagValue, Version},
    promotion::PromotionRule,
};

/// A model in the registry.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "laurel.dev",
    version = "v1alpha1",
    kind = "RegisteredModel",
    plural = "registeredmodels",
    shortname = "rmodel",
    category = "laurel",
    namespaced,
    status = "RegisteredModelStatus",
    derive = "PartialEq",
    doc = "A model that exists in the registry. It is created there when it is missing and adopted when it \
         is there.",
    printcolumn(name = "Model", type_ = "string", json_path = ".status.modelName"),
    printcolumn(name = "Latest", type_ = "string", json_path = ".status.latestVersion"),
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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.modelName) == has(oldSelf.modelName) && (!has(self.modelName) || self.modelName == oldSelf.modelName)").message("modelName is immutable: create another RegisteredModel"))]
#[serde(rename_all = "camelCase")]
pub struct RegisteredModelSpec {
    /// The model's name in the registry. The default is this object's name. It cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<ModelName>,

    /// The registry that the model is in. Without it, the default: the ModelRegistry of this namespace with
    /// the annotation `laurel.dev/default: "true"`, or else the ClusterModelRegistry with that annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_ref: Option<RegistryReference>,

    /// The model's description in the registry. Without it, the description there is not touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5000))]
    pub description: Option<String>,

    /// Tags of the model in the registry. Laurel manages the listed keys and deletes one when you remove it
    /// here. Other tags are not touched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("self.all(key, size(key) <= 250 && key.matches('^[A-Za-z0-9_ ./:-]+$'))").message("a tag's key is 1 to 250 letters, digits, spaces or one of _ . / : -"))]
    pub tags: BTreeMap<String, TagValue>,

    /// Promotion rules: requirements for a version before an alias may name it. The people who may change
    /// these rules need not be those who promote. Without rules for an alias, any version may be promoted
    /// there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(rule, !has(rule.live) || rule.aliases.all(name, self.exists_one(other, has(other.live) && name in other.aliases)))").message("only one rule with live names an alias"))]
    pub promotion: Vec<PromotionRule>,

    /// Metrics that the status shows for each of the newest versions, in addition to those that `promotion`
    /// uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 250)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub display_metrics: Vec<String>,

    /// What happens to the model in the registry, with all its versions, when this object is deleted:
    /// `Retain` (the default) or `Delete`.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl RegisteredModel {
    /// Returns the model's name in the registry.
    ///
    /// # Errors
    /// When neither `spec.modelName` nor `metadata.name` is a valid model name.
    pub fn model_name(&self) -> Result<ModelName, super::names::InvalidName> {
        match &self.spec.model_name {
            Some(name) => Ok(name.clone()),
            None => self.metadata.name.clone().unwrap_or_default().try_into(),
        }
    }
}

/// The state of the model in the registry.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredModelStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The registry that the model is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryStatus>,
    /// The model's name in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<ModelName>,
    /// The newest version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_version: Option<Version>,
    /// The newest versions, at most 10, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["version".into()]))]
    pub versions: Vec<VersionStatus>,
    /// The version that each alias names in the registry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, Version>,
    /// Whether the model has had versions or aliases since it was created. If it disappears, Laurel creates no
    /// empty one in its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub had_content: bool,
    /// The keys of the tags that Laurel set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owned_tags: Vec<String>,
    /// The value of the annotation `laurel.dev/retry` when the model was last seen in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<String>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl RegisteredModelStatus {
    /// Whether the model has had versions or aliases since it was created. A status of an earlier release only
    /// lists those of its time.
    #[must_use]
    pub fn has_had_content(&self) -> bool {
        self.had_content || !self.versions.is_empty() || !self.aliases.is_empty()
    }
}

/// One version of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// The version's number.
    pub version: Version,
    /// When it was registered.
    pub created_at: Timestamp,
    /// The run that produced it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The aliases that name it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// `Ready`, `Pending` or `Failed`: the state of its registration.
    pub state: String,
    /// The metrics that `spec.displayMetrics` and `spec.promotion` name, at most 24: a number, `NaN`, `none`
    /// if neither its run nor its logged model has such a metric, or `unknown` if they could not be read yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, String>,
}
