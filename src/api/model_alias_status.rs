//! The status of a `ModelAlias`: what serves, what served and what failed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    RegistryStatus,
    condition::Reason,
    live::WatchStatus,
    names::{AliasName, ModelUri, Version},
    traffic::RouteReference,
};

/// What serves, and the progress towards the spec.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelAliasStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The registry that the model is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryStatus>,
    /// The model's name in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The version that answers requests now; without `serving`, the version that the alias names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The version that Laurel is working towards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_version: Option<Version>,
    /// The version that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<Version>,
    /// The version that the alias in the registry named when it last matched the serving version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_version: Option<Version>,
    /// The alias that is kept on the version that answered before. When `spec.previousAlias` is removed or
    /// renamed, Laurel deletes it in the registry, unless somebody else has moved it or claims it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_alias: Option<KeptAlias>,
    /// When the alias in the registry was put back after somebody had moved it, newest first, at most 3.
    /// Cleared after ten minutes without another change, when `spec.version` changes, or when a retry is
    /// requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put_back_at: Vec<Timestamp>,
    /// The shares of requests that the HTTPRoute gives to versions and challengers, with `spec.traffic`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficShare>,
    /// The same in one line, for `kubectl get -o wide`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<String>,
    /// The step of a canary that the target version is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStatus>,
    /// The version that is being judged by its live traffic; absent at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchStatus>,
    /// The annotation `laurel.dev/approve` as it was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<SeenApproval>,
    /// The revision of the HTTPRoute that its Gateways accepted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<AcceptedRoute>,
    /// The HTTPRoute of yours whose backends Laurel manages, until they name the Service with the
    /// ModelAlias's name again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_ref: Option<RouteReference>,
    /// Since when not all of its Gateways have accepted the HTTPRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_pending_since: Option<Timestamp>,
    /// The URL for predictions inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The desired number of pods: `spec.serving.replicas` as last known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub desired_replicas: Option<u32>,
    /// Number of pods of the serving version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub replicas: Option<u32>,
    /// Number of those that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub ready_replicas: Option<u32>,
    /// The label selector of the serving version's pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The versions that have a Deployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["version".into()]))]
    pub versions: Vec<KnownVersion>,
    /// Versions that were tried and failed, newest first, at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejection>,
    /// Changes of the serving version, newest first: the newest 10, and older ones that are not yet in the
    /// registry's tags, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// The last value of the annotation `laurel.dev/retry` that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<String>,
    /// `Ready`, `Reconciling` and `Stalled` as kstatus defines them; `Serving` (a ready version answers),
    /// `RegistrySynced` (the alias in the registry names what serves), `GatesPassed` (the promotion rules let
    /// the version in), `LiveRulesPassed` (it is no worse on live traffic) and `InputsAsTrained` (its inputs
    /// have not drifted); and `Suspended` while `spec.suspend` is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// An alias that is kept in the registry beside the main one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptAlias {
    /// Its name.
    pub alias: AliasName,
    /// The versions that it names as Laurel set it: the newest first, and, until the registry names that one,
    /// those before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
}

/// The share of requests that a version gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficShare {
    /// The challenger, for a version of another ModelAlias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_ref: Option<String>,
    /// The version.
    pub version: Version,
    /// Its share in per cent. 0 means that it gets one request in a million, which keeps it in the route,
    /// ready to take over; or none, with `mirror`.
    #[schemars(with = "i32")]
    pub weight: u32,
    /// How many of the requests are copied to it, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub mirror: Option<u32>,
}

/// The step of a canary that a version is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    /// The version.
    pub version: Version,
    /// The number of the step, from 1.
    #[schemars(with = "i32")]
    pub step: u32,
    /// The version's share of the requests in this step, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub weight: Option<u32>,
    /// How many of the requests are copied to it in this step, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub mirror: Option<u32>,
    /// When the step began.
    pub since: Timestamp,
    /// Since when the time of `atMost` is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_since: Option<Timestamp>,
    /// How many seconds it was stopped before that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stopped_seconds: i64,
    /// The approvals of the version in these steps. They are dropped when the steps begin again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// An approval of a version in a step of its canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The number of the step, from 1.
    #[schemars(with = "i32")]
    pub step: u32,
    /// The version's share of the requests in this step, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub weight: Option<u32>,
    /// How many of the requests were copied to it in this step, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub mirror: Option<u32>,
    /// The program that set the annotation, under the name that it gave to the API server: the `manager` in
    /// `metadata.managedFields`, for instance `kubectl-annotate`. It does not say which person used it; the
    /// audit log of the API server does.
    pub manager: String,
    /// When it did, by the clock of the API server, to the second: the `time` there.
    pub at: Timestamp,
}

/// A value of the annotation `laurel.dev/approve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeenApproval {
    /// The value.
    pub value: String,
    /// Why it approves nothing, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<String>,
}

/// A revision of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteRevision {
    /// Its `metadata.uid`.
    pub uid: String,
    /// Its `metadata.generation`.
    pub generation: i64,
}

/// A revision of the HTTPRoute that every parent has accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedRoute {
    /// The revision.
    #[serde(flatten)]
    pub revision: RouteRevision,
    /// When that was first seen.
    pub at: Timestamp,
}

/// How many times the alias is put back before it counts as contested.
pub const PUT_BACK_MAX: usize = 3;

/// A version that has a Deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KnownVersion {
    /// The version's number.
    pub version: Version,
    /// The model URI that its pods load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_uri: Option<ModelUri>,
    /// When its start, or its update to new settings, began; absent once it serves in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The fingerprint of the settings of this start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// When it first answered requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_at: Option<Timestamp>,
    /// When traffic left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
    /// The result of the smoke test of its last start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub smoke_test: Option<SmokeTestOutcome>,
}

/// The result of a smoke test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SmokeTestOutcome {
    /// The pod answered the input example with 2xx.
    Passed,
    /// The model has no input example.
    NoInputExample,
    /// A value written by a later release of Laurel.
    #[serde(other)]
    Unknown,
}

/// A version that was tried and failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// The version's number.
    pub version: Version,
    /// The reason, in one word.
    pub reason: Reason,
    /// The reason as a sentence, with the last observation.
    pub message: String,
    /// The time of the rejection.
    pub at: Timestamp,
    /// The fingerprint of the settings it was tried with. Different settings are a new attempt.
    pub settings: String,
    /// Whether the version is held back: true until the spec, or the alias in the registry, names another
    /// version, or somebody sets the annotation `laurel.dev/retry`.
    pub active: bool,
}

/// One change of the serving version, or one failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The version.
    pub version: Version,
    /// The version that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
    /// The time of the change.
    pub at: Timestamp,
    /// What requested it.
    pub cause: Cause,
    /// The outcome.
    pub outcome: Outcome,
    /// Time since the version's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub duration: Option<Duration>,
    /// Who requested it: a user name as authenticated by the API server, `laurel` for Laurel's own choice (a
    /// follower, a failure), or `unknown`.
    #[serde(default = "unknown")]
    pub requested_by: String,
    /// The Git commit that requested it, from the annotation `laurel.dev/commit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Who approved the version in which step of its canary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// The reason of a rejection, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub reason: Option<Reason>,
    /// The reason of a rejection, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether this entry was written to the tags of the version in the registry: `Pending`, `Written`, or
    /// `Impossible` where the version is gone or the registry keeps no tags.
    #[serde(default)]
    pub recorded: Recorded,
}

/// `requestedBy` of a change that cannot be attributed.
pub const UNKNOWN: &str = "unknown";

fn unknown() -> String {
    UNKNOWN.to_owned()
}

/// Whether an entry of the history was written to the registry's tags.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
pub enum Recorded {
    /// Not yet.
    #[default]
    Pending,
    /// It does.
    Written,
    /// It cannot: the version is gone from the registry, or the registry keeps no tags.
    Impossible,
    /// A value written by a later release of Laurel.
    #[serde(other)]
    Unknown,
}

/// What requested a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr)]
pub enum Cause {
    /// `spec.version` of the ModelAlias.
    Spec,
    /// The alias in the registry.
    Registry,
    /// `spec.follow` of the ModelAlias chose it.
    Follower,
    /// The version that served failed.
    Failure,
    /// A value written by a later release of Laurel.
    #[serde(other)]
    Unknown,
}

/// The outcome of a change.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
pub enum Outcome {
    /// The version serves.
    Promoted,
    /// A version that had served before serves again.
    RolledBack,
    /// The version failed and does not serve.
    Rejected,
    /// A value written by a later release of Laurel.
    #[serde(other)]
    Unknown,
}
