//! `spec.promotion[].live`: what a version must show on its own traffic, and the status of a version that is
//! being judged.

use jiff::Timestamp;
use kube::{KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DURATION_MAX, DURATION_PATTERN, LABEL_PATTERN, names::Version};

/// What a version must show on live traffic. Its pods count requests, failures and predictions; Laurel reads
/// them while the version is judged, and compares it with the version that serves beside it in the same
/// minutes.
// The API server compares a whole number with a bound that it has cut to one, so 0 is not below 0.0001.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.falseAlarm > 0.0").message("falseAlarm is greater than 0"))]
pub struct LiveRule {
    /// The chance of calling a version worse that is not: over the whole rollout, with all checks together,
    /// however often Laurel looks. The default is 0.01.
    #[serde(default = "default_false_alarm")]
    #[schemars(range(min = 0.0001, max = 0.5), extend("default" = 0.01))]
    pub false_alarm: f64,

    /// The version is not called fine before it had so many requests. The default is 200.
    #[serde(default = "default_min_requests")]
    #[schemars(with = "i32", range(min = 1, max = 1_000_000))]
    pub min_requests: u32,

    /// The version is not called worse before so many of its requests were bad: the retries of one client
    /// decide nothing. The default is 5.
    #[serde(default = "default_min_failures")]
    #[schemars(with = "i32", range(min = 1, max = 1_000_000))]
    pub min_failures: u32,

    /// The first traffic of a version that is not judged. The default is 60s.
    #[serde(default = "default_warm_up")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) <= duration('1h')").message("warmUp is at most 1h"))]
    pub warm_up: Duration,

    /// What is judged. A step of a canary ends only when every check says that the version is no worse.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<LiveCheck>,

    /// What to do about a version that is worse: `RollBack` (the default) moves all traffic back to the
    /// version that served before and rejects the new one, `Hold` leaves traffic as it is, `Report` only says
    /// so, as a dry run.
    #[serde(default)]
    pub on_regression: OnRegression,

    /// What to do when a step of a canary reached its `atMost` and nothing is proven: `Hold` (the default)
    /// leaves traffic as it is, `Promote` goes on, `Reject` gives the version up.
    #[serde(default)]
    pub when_undecided: WhenUndecided,

    /// Without data for so long, there is an Event. Nothing else happens: without data, traffic stays as it
    /// is. The default is 15m.
    #[serde(default = "default_unknown_for")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m')").message("unknownFor is at least 1m"))]
    pub unknown_for: Duration,

    /// Whether the inputs of the version may differ from its training data: by tags that a job sets on the
    /// version in the registry. Drift moves no traffic back, because the version before sees the same inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftRule>,
}

/// How far inputs may differ from the training data. A job compares them, and sets the tags
/// `laurel.drift.share`, `laurel.drift.rows`, `laurel.drift.columns` and `laurel.drift.at` on the version in
/// the registry. A result that is absent, too old or of too few rows is unknown, and holds nothing.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.maxShare > 0.0").message("maxShare is greater than 0"))]
pub struct DriftRule {
    /// The largest share of columns that may have drifted. The default is 0.3.
    #[serde(default = "default_max_share")]
    #[schemars(range(min = 0.0001, max = 0.9999), extend("default" = 0.3))]
    pub max_share: f64,

    /// A result of fewer rows says nothing: of few rows, most columns seem to have drifted. The default is
    /// 1000.
    #[serde(default = "default_min_rows")]
    #[schemars(with = "i32", range(min = 1, max = 1_000_000_000))]
    pub min_rows: u32,

    /// A result that is older says nothing. The default is 26h, for a job that runs every day.
    #[serde(default = "default_max_age")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m')").message("maxAge is at least 1m"))]
    pub max_age: Duration,

    /// What to do while more columns have drifted: `Report` (the default) only says so, `Hold` also keeps a
    /// version in the step of its canary.
    #[serde(default)]
    pub action: OnDrift,
}

fn default_max_share() -> f64 {
    0.3
}

fn default_min_rows() -> u32 {
    1000
}

fn default_max_age() -> Duration {
    std::time::Duration::from_hours(26).into()
}

/// What to do about drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDrift {
    /// It is only reported.
    #[default]
    Report,
    /// A version stays in the step of its canary.
    Hold,
}

fn default_false_alarm() -> f64 {
    0.01
}

fn default_min_requests() -> u32 {
    200
}

fn default_min_failures() -> u32 {
    5
}

fn default_warm_up() -> Duration {
    std::time::Duration::from_mins(1).into()
}

fn default_unknown_for() -> Duration {
    std::time::Duration::from_mins(15).into()
}

/// One thing that is judged: exactly one of `failures`, `slow` and `missing`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.failures), has(self.slow), has(self.missing)].filter(it, it).size() == 1").message("a check has exactly one of failures, slow and missing"))]
#[x_kube(validation = Rule::new("self.margin > self.tolerate").message("margin is greater than tolerate"))]
#[x_kube(validation = Rule::new("!has(self.max) || self.max > 0.0").message("max is greater than 0"))]
pub struct LiveCheck {
    /// The name of this check, unique in the list, for instance `failures`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,

    /// Requests that were not answered with 2xx. With MLflow this includes predictions that raise an error,
    /// which its server answers with 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Nothing>,

    /// Requests that took longer than a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<SlowCheck>,

    /// Answers in which a predicted value is missing: NaN, infinite or null. Servers answer them with 200.
    /// Not for the runtime `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Nothing>,

    /// The ratio of the odds to those of the version beside it that is still fine. The default is 1: as good
    /// as that version.
    #[serde(default = "default_tolerate")]
    #[schemars(range(min = 1, max = 100), extend("default" = 1))]
    pub tolerate: f64,

    /// Proven to be below this ratio of the odds, the version is no worse. The smaller, the longer the proof
    /// takes. The default is 2.
    #[serde(default = "default_margin")]
    #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
    pub margin: f64,

    /// The largest share of requests that may be bad, whatever the version beside it does. After all traffic
    /// has moved, there is no version beside it: then this is the only thing that is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0001, max = 0.9999))]
    pub max: Option<f64>,

    /// What to do if this check says that the version is worse, instead of `onRegression` of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_regression: Option<OnRegression>,
}

fn default_tolerate() -> f64 {
    1.0
}

fn default_margin() -> f64 {
    2.0
}

/// A check without settings: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Nothing {}

/// Requests that took longer than a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlowCheck {
    /// The limit: one of the bounds that durations are counted by.
    pub over: SlowOver,
}

/// The bounds of the histogram of request durations, as OpenTelemetry recommends them for
/// `http.server.request.duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum SlowOver {
    /// 5 ms.
    #[serde(rename = "5ms")]
    Ms5,
    /// 10 ms.
    #[serde(rename = "10ms")]
    Ms10,
    /// 25 ms.
    #[serde(rename = "25ms")]
    Ms25,
    /// 50 ms.
    #[serde(rename = "50ms")]
    Ms50,
    /// 75 ms.
    #[serde(rename = "75ms")]
    Ms75,
    /// 100 ms.
    #[serde(rename = "100ms")]
    Ms100,
    /// 250 ms.
    #[serde(rename = "250ms")]
    Ms250,
    /// 500 ms.
    #[serde(rename = "500ms")]
    Ms500,
    /// 750 ms.
    #[serde(rename = "750ms")]
    Ms750,
    /// A second.
    #[serde(rename = "1s")]
    S1,
    /// 2.5 seconds.
    #[serde(rename = "2500ms")]
    Ms2500,
    /// 5 seconds.
    #[serde(rename = "5s")]
    S5,
    /// 7.5 seconds.
    #[serde(rename = "7500ms")]
    Ms7500,
    /// 10 seconds.
    #[serde(rename = "10s")]
    S10,
}

impl SlowOver {
    /// The bound in milliseconds.
    #[must_use]
    pub const fn milliseconds(self) -> u32 {
        match self {
            Self::Ms5 => 5,
            Self::Ms10 => 10,
            Self::Ms25 => 25,
            Self::Ms50 => 50,
            Self::Ms75 => 75,
            Self::Ms100 => 100,
            Self::Ms250 => 250,
            Self::Ms500 => 500,
            Self::Ms750 => 750,
            Self::S1 => 1000,
            Self::Ms2500 => 2500,
            Self::S5 => 5000,
            Self::Ms7500 => 7500,
            Self::S10 => 10_000,
        }
    }
}

/// What to do about a version that is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnRegression {
    /// Its traffic goes back to the version that served before, and it is rejected.
    #[default]
    RollBack,
    /// Traffic stays as it is.
    Hold,
    /// It is only reported.
    Report,
}

/// What to do when the time of a step is over and nothing is proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUndecided {
    /// Traffic stays as it is.
    #[default]
    Hold,
    /// The version goes on to the next step.
    Promote,
    /// The version is rejected.
    Reject,
}

/// A version that is being judged by its live traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WatchStatus {
    /// The version.
    pub version: Version,
    /// The version that it is compared with; absent once it has all traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Version>,
    /// The step of the canary, from 1; absent once it has all traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub step: Option<u32>,
    /// For how many seconds there were data in this step, or since it has all traffic.
    pub covered_seconds: i64,
    /// What was counted of each version in the same minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<WatchedRequests>,
    /// What each check found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<WatchedCheck>,
    /// Since when there have been no data, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<Timestamp>,
    /// Whether that has lasted for `unknownFor`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown_for_long: bool,
    /// When these numbers were taken. They are renewed every five minutes, and when a check says something
    /// else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_at: Option<Timestamp>,
}

/// The requests of a version that is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WatchedRequests {
    /// The version.
    pub version: Version,
    /// How many it had.
    #[schemars(with = "i64")]
    pub requests: u64,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WatchedCheck {
    /// Its name.
    pub name: String,
    /// Its verdict in one word, for instance `Undecided`.
    pub verdict: String,
    /// The counts of both versions, the estimate with its interval, the evidence and what is needed.
    pub message: String,
}
