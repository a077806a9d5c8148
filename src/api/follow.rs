//! Followers: what chooses the version instead of a person.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{metric::Goal, names::TagValue};

/// A range of semantic versions: parts such as `>=2.1`, `<3`, `~2.4`, `^2` or `*`, separated by spaces or
/// commas.
const RANGE_PATTERN: &str = r"^ *(([<>]=?|[=~^]) *)?(\*|[0-9]+(\.([0-9]+|\*)){0,2}(-[0-9A-Za-z.-]+)?)([ ,]+(([<>]=?|[=~^]) *)?(\*|[0-9]+(\.([0-9]+|\*)){0,2}(-[0-9A-Za-z.-]+)?))* *$";

/// What chooses the version: exactly one of these. The alias in the registry moves after traffic, except with
/// `registry`, where it leads. A version that failed is not tried again until the choice changes or somebody
/// sets the annotation `laurel.dev/retry`.
// Unknown members are kept so that `maxProperties` counts them: the API server rejects them instead of
// dropping them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true, "maxProperties" = 1))]
pub struct Follow {
    /// The alias in the registry decides: moving it there asks for that version here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<FollowRegistry>,
    /// The newest version that is READY in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<FollowLatest>,
    /// The version with the best metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<FollowBest>,
    /// The version with the highest semantic version in a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver: Option<FollowSemver>,
}

/// The alias in the registry decides. There is nothing to set: `registry: {}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FollowRegistry {}

/// The newest version that is READY in the registry. There is nothing to set: `latest: {}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FollowLatest {}

/// The version with the best metric, among the newest 100 that are READY. A version that lacks the
/// metric, or has it as NaN, is never chosen. Ties go to the newest version.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowBest {
    /// The metric's name, for instance `auc`.
    #[schemars(length(min = 1, max = 250))]
    pub metric: String,
    /// `Maximize` (the default): larger is better. `Minimize`: smaller is better.
    #[serde(default = "maximize")]
    pub goal: Goal,
    /// Only versions with all these tags are considered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub tags: BTreeMap<String, TagValue>,
}

fn maximize() -> Goal {
    Goal::Maximize
}

/// The version with the highest semantic version in a range, among the newest 100 that are READY. Versions
/// whose tag is not a valid semantic version are ignored.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowSemver {
    /// The tag of a version that holds its semantic version, for instance `semver`.
    #[schemars(length(min = 1, max = 250))]
    pub tag: String,
    /// The range, for instance `>=2.1 <3`: all parts must match. `2.1` alone means `^2.1`: at least 2.1 and
    /// below 3.
    #[schemars(length(min = 1, max = 128), regex(pattern = RANGE_PATTERN))]
    pub range: String,
}
