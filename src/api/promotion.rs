//! The rules for promoting a version: what a RegisteredModel asks of a version before an alias may name it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LABEL_PATTERN, metric::Goal, names::AliasName, registered_model::TagValue};

/// What a version must fulfil before the `ModelAliases` of these aliases send it traffic. All of it must
/// hold; where several rules name the same alias, all of them. A version that served before is never held
/// back.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.metrics) || has(self.improves) || has(self.tags) || has(self.description) || has(self.requiredAlias)").message("a rule asks for something: set metrics, improves, tags, description or requiredAlias"))]
#[serde(rename_all = "camelCase")]
pub struct PromotionRule {
    /// The name of this rule, unique in the list, for instance `quality`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,

    /// The aliases in the registry that this rule is about, for instance `[champion]`.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.all(name, name.lowerAscii() != 'latest' && !name.matches('^[vV][0-9]+$'))").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub aliases: Vec<AliasName>,

    /// Bounds for metrics of the version's run, or, where that lacks one, of its logged model. A metric that is
    /// missing or not a number does not fulfil them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub metrics: Vec<MetricRule>,

    /// Better than the version under another alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub improves: Option<Improvement>,

    /// Tags that the version carries in the registry, each with exactly this value; for instance an approval.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub tags: BTreeMap<String, TagValue>,

    /// `Required`: the version has a description in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<DescriptionRule>,

    /// The version holds this alias in the registry, for instance `challenger`: the old "Staging before
    /// Production".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'latest' && !self.matches('^[vV][0-9]+$')").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub required_alias: Option<AliasName>,
}

/// Bounds for a metric of the version's run or logged model.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.min) || has(self.max)").message("set min, max or both"))]
#[x_kube(validation = Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max").message("min is at most max"))]
pub struct MetricRule {
    /// The metric's name, for instance `auc`.
    #[schemars(length(min = 1, max = 250))]
    pub name: String,
    /// The least that it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The most that it may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Better, by a metric of their runs or logged models, than the version under another alias. Where that alias names nothing,
/// or the version itself, there is nothing to be better than, and it holds.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Improvement {
    /// The metric's name, for instance `auc`.
    #[schemars(length(min = 1, max = 250))]
    pub metric: String,
    /// The alias of the version to be better than, for instance `champion`.
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'latest' && !self.matches('^[vV][0-9]+$')").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub over: AliasName,
    /// By how much at the least. The default is 0: as good is good enough.
    #[serde(default)]
    // A whole number, as Helm writes it.
    #[schemars(range(min = 0), extend("default" = 0))]
    pub by: f64,
    /// `Maximize` (the default): the larger, the better. `Minimize`: the smaller, the better.
    #[serde(default = "maximize")]
    pub goal: Goal,
}

fn maximize() -> Goal {
    Goal::Maximize
}

/// `Required`: the version has a description in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DescriptionRule {
    /// It does.
    Required,
}
