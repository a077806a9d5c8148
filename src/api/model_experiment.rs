//! `ModelExperiment`: a champion against challengers, by what their live traffic shows over days or weeks.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DURATION_MAX, DURATION_PATTERN, LABEL_PATTERN, LocalReference,
    live::{Nothing, SlowCheck},
    names::{ModelUri, Version},
};

/// The prefix of the tag that a verdict becomes, before the name of the experiment.
pub const VERDICT_TAG: &str = "laurel.experiment.";

/// The namespace and the name of a ModelExperiment.
pub type ExperimentKey = (String, String);

/// A comparison of a champion with challengers.
// The API server compares a whole number with a bound that it has cut to one, so 0 is not below 0.0001.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "laurel.dev",
    version = "v1alpha1",
    kind = "ModelExperiment",
    plural = "modelexperiments",
    shortname = "mexp",
    category = "laurel",
    namespaced,
    status = "ModelExperimentStatus",
    derive = "PartialEq",
    validation = Rule::new("size(self.metadata.name) <= 63").message("the name has at most 63 characters: it becomes part of a tag in the registry"),
    doc = "A comparison of a champion with one to four challengers on live traffic, for days or weeks. The \
         champion's ModelAlias shares requests among them (spec.traffic.challengers); the experiment counts what \
         they answer and says which is better, as soon as that is certain. An experiment runs once: to repeat it, \
         create another one.",
    printcolumn(name = "Champion", type_ = "string", json_path = ".spec.championRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.result.verdict"),
    printcolumn(name = "Difference", type_ = "string", json_path = ".status.result.estimate"),
    printcolumn(name = "Interval", type_ = "string", json_path = ".status.result.interval", priority = 1),
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
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.championRef == oldSelf.championRef && self.challengers == oldSelf.challengers && self.metrics == oldSelf.metrics && self.falseAlarm == oldSelf.falseAlarm && self.minSamples == oldSelf.minSamples && self.minFailures == oldSelf.minFailures && self.duration == oldSelf.duration").message("what is compared, and how, cannot be changed: create another ModelExperiment"))]
#[x_kube(validation = Rule::new("self.falseAlarm > 0.0").message("falseAlarm is greater than 0"))]
#[x_kube(validation = Rule::new("self.challengers.all(challenger, challenger.aliasRef.name != self.championRef.name)").message("the champion is not one of its challengers"))]
pub struct ModelExperimentSpec {
    /// The ModelAlias that answers requests, in the same namespace. Its `spec.traffic.challengers` gives each
    /// challenger a share.
    pub champion_ref: LocalReference,

    /// What it is compared with.
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(validation = Rule::new("self.all(one, self.exists_one(other, other.aliasRef.name == one.aliasRef.name))").message("each challenger is listed once"))]
    pub challengers: Vec<ExperimentChallenger>,

    /// What is compared: exactly one `Primary` metric, which decides, and guardrails, in which no challenger
    /// may be worse.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.exists_one(metric, metric.role == 'Primary')").message("exactly one metric has the role Primary"))]
    pub metrics: Vec<ExperimentMetric>,

    /// The chance of saying that there is a difference where there is none: in the whole experiment, with all
    /// metrics and challengers together, however often one looks. The default is 0.05.
    #[serde(default = "default_false_alarm")]
    #[schemars(range(min = 0.0001, max = 0.5), extend("default" = 0.05))]
    pub false_alarm: f64,

    /// Nothing is concluded before every arm has so many samples of the primary metric. The default is 1000.
    #[serde(default = "default_min_samples")]
    #[schemars(with = "i32", range(min = 100, max = 1_000_000_000))]
    pub min_samples: u32,

    /// A guardrail does not call a challenger worse before so many of its requests were bad: the retries of
    /// one client decide nothing. The default is 5.
    #[serde(default = "default_min_failures")]
    #[schemars(with = "i32", range(min = 1, max = 1_000_000))]
    pub min_failures: u32,

    /// How long it runs.
    #[serde(default)]
    pub duration: ExperimentDuration,

    /// What to do about a challenger that a guardrail finds worse: `Withdraw` (the default) takes the share from
    /// this version until the experiment is deleted; another version there gets it again. `Report` only says so.
    #[serde(default)]
    pub on_guardrail: OnGuardrail,

    /// What to do when a challenger wins: `Report` (the default) only says so. `SetAlias` sets the champion's
    /// alias in the registry to the version that won, once; a champion with `spec.follow.registry` then
    /// promotes it, if its promotion rules let it.
    #[serde(default)]
    pub on_winner: OnWinner,
}

fn default_false_alarm() -> f64 {
    0.05
}

fn default_min_samples() -> u32 {
    1000
}

fn default_min_failures() -> u32 {
    5
}

/// What the champion is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentChallenger {
    /// A ModelAlias of the same namespace that `spec.traffic.challengers` of the champion gives a share.
    pub alias_ref: LocalReference,
}

/// One thing that is compared: exactly one of `predictions`, `failures`, `slow` and `missing`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.predictions), has(self.failures), has(self.slow), has(self.missing)].filter(it, it).size() == 1").message("a metric has exactly one of predictions, failures, slow and missing"))]
#[x_kube(validation = Rule::new("self.role == 'Primary' || !has(self.predictions)").message("a guardrail has one of failures, slow and missing"))]
#[x_kube(validation = Rule::new("self.role == 'Primary' || !has(self.goal)").message("only the primary metric has a goal"))]
#[x_kube(validation = Rule::new("self.role == 'Primary' || !has(self.margin)").message("only the primary metric has a margin"))]
#[x_kube(validation = Rule::new("self.role == 'Guardrail' || !has(self.tolerate)").message("only a guardrail has tolerate"))]
#[x_kube(validation = Rule::new("!has(self.predictions) || has(self.goal)").message("predictions need a goal: Maximize or Minimize"))]
#[x_kube(validation = Rule::new("has(self.predictions) || !has(self.goal) || self.goal == 'Minimize'").message("of failures, slow and missing fewer are better: leave goal out"))]
pub struct ExperimentMetric {
    /// The name of this metric, unique in the list, for instance `approved`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,

    /// `Primary`: it decides. `Guardrail`: no challenger may be worse in it.
    pub role: MetricRole,

    /// Which direction is better, for the primary metric. Of failures, slow and missing answers fewer are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<MetricGoal>,

    /// The smallest difference that matters, for the primary metric, in its own unit: 0.005 of a share is
    /// half a percentage point. Once every difference that is still possible is smaller, the verdict is
    /// `NoDifference`. The default is 0: then only the end of the experiment says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub margin: Option<f64>,

    /// The ratio of the odds to those of the champion that is still fine, for a guardrail. The default is 1:
    /// as good as the champion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub tolerate: Option<f64>,

    /// What the model predicts. Each predicted value is a sample, so send one row with each request: the rows
    /// of one request are not independent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("has(self.mean) != has(self.class)").message("predictions has exactly one of mean and class"))]
    pub predictions: Option<PredictionMetric>,

    /// The share of the requests that were not answered with 2xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Nothing>,

    /// The share of the requests that took longer than a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<SlowCheck>,

    /// The share of the answers in which a predicted value is missing: NaN, infinite or null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Nothing>,
}

/// A metric of predicted values. The pods of the runtimes `mlflow` and `mlserver` count them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PredictionMetric {
    /// The mean of predicted numbers. The ModelAliases need `spec.serving.metrics.predictions: Numbers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<Nothing>,

    /// The share of this class among the predicted values, as it is printed: `"1"`, or `approved`. Pods count
    /// the first 20 classes that they predict by name; if this one may be among the others, nothing is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub class: Option<String>,
}

/// What a metric is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetricRole {
    /// It decides.
    Primary,
    /// No challenger may be worse in it.
    Guardrail,
}

/// Which direction of a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetricGoal {
    /// Higher is better.
    Maximize,
    /// Lower is better.
    Minimize,
}

/// How long an experiment runs.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.atLeast) <= duration(self.atMost)").message("duration.atLeast is at most duration.atMost"))]
pub struct ExperimentDuration {
    /// Nothing is concluded before that; only a guardrail acts at once. Whole weeks are best, because a Monday is
    /// not a Sunday. The default is 168h, a week.
    #[serde(default = "default_at_least")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    pub at_least: Duration,

    /// The experiment ends after this time. The default is 672h, four weeks; the maximum is 8760h, a year.
    #[serde(default = "default_at_most")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('8760h')").message("duration.atMost is from 1m to 8760h"))]
    pub at_most: Duration,
}

impl Default for ExperimentDuration {
    fn default() -> Self {
        Self { at_least: default_at_least(), at_most: default_at_most() }
    }
}

fn default_at_least() -> Duration {
    std::time::Duration::from_hours(7 * 24).into()
}

fn default_at_most() -> Duration {
    std::time::Duration::from_hours(28 * 24).into()
}

/// What to do about a challenger that a guardrail finds worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnGuardrail {
    /// It gets no requests any more.
    #[default]
    Withdraw,
    /// It is only reported.
    Report,
}

/// What to do when a challenger wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnWinner {
    /// It is only reported.
    #[default]
    Report,
    /// The champion's alias in the registry is set to the version that won.
    SetAlias,
}

/// What was counted, and what it says.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelExperimentStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Pending`: nothing has been counted yet. `Collecting`. `Concluded`: every challenger has a verdict, or
    /// the time is over; nothing is counted any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ExperimentPhase>,
    /// When counting began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it was concluded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concluded_at: Option<Timestamp>,
    /// The version of the champion that is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion_version: Option<Version>,
    /// The challengers, in the order of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arms: Vec<ArmStatus>,
    /// The result of the winner; without one, of the challenger that is nearest to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ExperimentResult>,
    /// The challenger that won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
    /// Whether the champion's alias in the registry was set to the version that won (`onWinner: SetAlias`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alias_set: bool,
    /// Why it was not, and will not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_skipped: Option<String>,
    /// The versions of challengers that no longer get requests, because a guardrail found them worse
    /// (`onGuardrail: Withdraw`), at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<WithdrawnVersion>,
    /// `Ready`, `Reconciling` and `Stalled`; `SplitAsPlanned` (requests are shared as the weights say) and
    /// `Concluded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How far an experiment has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display)]
pub enum ExperimentPhase {
    /// Nothing has been counted yet.
    #[default]
    Pending,
    /// What the versions answer is counted.
    Collecting,
    /// It is over.
    Concluded,
    /// A value written by a later release of Laurel.
    #[serde(other)]
    Unknown,
}

/// One challenger of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArmStatus {
    /// The ModelAlias.
    pub alias: String,
    /// Its version that is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The champion's version that it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Version>,
    /// The model URI that the challenger's pods load. The same number with another model is another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_uri: Option<ModelUri>,
    /// The model URI that the champion's pods load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against_model_uri: Option<ModelUri>,
    /// When the comparison of these two versions began. Another version of either begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Its share of the requests in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub weight: Option<u32>,
    /// The result so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ExperimentResult>,
    /// The verdict written to the version's tag in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tagged: Option<String>,
    /// The interval over time, oldest first, at most 64 points: with more, every second one is dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<IntervalPoint>,
    /// What was counted, for Laurel's own use: from this it goes on after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// A version of a challenger that no longer gets requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WithdrawnVersion {
    /// The ModelAlias.
    pub alias: String,
    /// Its version.
    pub version: Version,
    /// What the guardrail found.
    pub message: String,
}

/// What is known of a challenger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentResult {
    /// Which is better, once that is certain.
    #[schemars(with = "String")]
    pub verdict: Verdict,
    /// Why, in one word, for instance `TooFewSamples`.
    pub reason: String,
    /// The challenger's value of the primary metric minus the champion's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<String>,
    /// Where the true difference lies, however often one looks: `0.0021 to 0.0148`. It may be elsewhere with the
    /// chance `falseAlarm`, divided by the number of challengers and by that of the metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// The p-value, which also holds however often one looks. The interval excludes 0 once it is smaller than
    /// `falseAlarm`, divided in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<String>,
    /// The samples of the champion, then those of the challenger.
    pub samples: Vec<i64>,
    /// All of it as a sentence, with the guardrails.
    pub message: String,
}

/// Which of two versions is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display)]
pub enum Verdict {
    /// Nothing is certain yet.
    #[default]
    Collecting,
    /// The challenger.
    ChallengerWins,
    /// The champion.
    ChampionWins,
    /// There is no difference that matters, or none was found in time.
    NoDifference,
    /// The time was over before there were enough samples.
    Undecided,
    /// A value written by a later release of Laurel.
    #[serde(other)]
    Unknown,
}

impl Verdict {
    /// The value of the tag of the challenger's version; `None` while there is nothing to say.
    #[must_use]
    pub const fn tag(self) -> Option<&'static str> {
        match self {
            Self::ChallengerWins => Some("wins"),
            Self::ChampionWins => Some("loses"),
            Self::NoDifference => Some("no_difference"),
            Self::Collecting | Self::Undecided | Self::Unknown => None,
        }
    }
}

/// The interval at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntervalPoint {
    /// The time.
    pub at: Timestamp,
    /// The difference.
    pub estimate: f64,
    /// The lower end of the interval.
    pub lower: f64,
    /// The upper end of the interval.
    pub upper: f64,
    /// The samples of both arms together.
    pub samples: i64,
}
