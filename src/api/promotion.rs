//! Promotion rules: what a RegisteredModel requires of a version before an alias may name it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    LABEL_PATTERN,
    live::LiveRule,
    metric::Goal,
    names::{AliasName, TagValue},
};

/// Requirements for a version before the `ModelAliases` of these aliases send it traffic. All of them must be
/// met; if several rules name the same alias, all of these rules. A version that served before is never held
/// back.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.metrics) || has(self.improves) || has(self.tags) || has(self.description) || has(self.requiredAlias) || has(self.live)").message("a rule must require something: set metrics, improves, tags, description, requiredAlias or live"))]
#[serde(rename_all = "camelCase")]
pub struct PromotionRule {
    /// The name of this rule, unique in the list, for instance `quality`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,

    /// The aliases in the registry that this rule applies to, for instance `[champion]`.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.all(name, name.lowerAscii() != 'latest' && !name.matches('^[vV][0-9]+$'))").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub aliases: Vec<AliasName>,

    /// Bounds for metrics of the version's run, or, where the run lacks one, of its logged model. A metric
    /// that is missing or NaN does not meet them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub metrics: Vec<MetricRule>,

    /// Minimum improvement over the version that another alias names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub improves: Option<Improvement>,

    /// Tags that the version must have in the registry, each with exactly this value; for instance an
    /// approval.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub tags: BTreeMap<String, TagValue>,

    /// `Required`: the version must have a description in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<DescriptionRule>,

    /// An alias that must name the version in the registry, for instance `challenger`: the former "Staging
    /// before Production".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'latest' && !self.matches('^[vV][0-9]+$')").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub required_alias: Option<AliasName>,

    /// What the version must show on live traffic once it gets any. This holds back no version before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveRule>,
}

impl PromotionRule {
    /// Whether it requires something before a version gets traffic.
    #[must_use]
    pub fn is_gate(&self) -> bool {
        !self.metrics.is_empty()
            || self.improves.is_some()
            || !self.tags.is_empty()
            || self.description.is_some()
            || self.required_alias.is_some()
    }
}

/// Bounds for a metric of the version's run or logged model.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.min) || has(self.max)").message("set min, max or both"))]
#[x_kube(validation = Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max").message("min is at most max"))]
pub struct MetricRule {
    /// The metric's name, for instance `auc`.
    #[schemars(length(min = 1, max = 250))]
    pub name: String,
    /// The minimum value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The maximum value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// A comparison, by a metric of their runs or logged models, with the version that another alias names. It
/// passes if that alias names no version, or the version itself.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Improvement {
    /// The metric's name, for instance `auc`.
    #[schemars(length(min = 1, max = 250))]
    pub metric: String,
    /// The alias of the version to compare with, for instance `champion`.
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'latest' && !self.matches('^[vV][0-9]+$')").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub over: AliasName,
    /// Minimum improvement. Defaults to 0: an equal value passes.
    #[serde(default)]
    // A whole number, as Helm writes it.
    #[schemars(range(min = 0), extend("default" = 0))]
    pub by: f64,
    /// `Maximize` (the default): larger is better. `Minimize`: smaller is better.
    #[serde(default = "maximize")]
    pub goal: Goal,
}

fn maximize() -> Goal {
    Goal::Maximize
}

/// `Required`: the version must have a description in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DescriptionRule {
    /// A description is required.
    Required,
}
