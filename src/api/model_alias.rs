//! `ModelAlias`: which version an alias names, and how it serves.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements};
use kube::{CustomResource, KubeSchema, ResourceExt, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DURATION_MAX, DURATION_PATTERN, DeletionPolicy, LocalReference,
    follow::Follow,
    names::{AliasName, Version},
    serving_metrics::ServingMetrics,
    traffic::TrafficSpec,
};

pub use super::model_alias_status::{
    AcceptedRoute, Approval, CanaryStatus, Cause, HistoryEntry, KeptAlias, KnownVersion, ModelAliasStatus,
    Outcome, PUT_BACK_MAX, Recorded, Rejection, RouteRevision, SeenApproval, SmokeTestOutcome, TrafficShare,
    UNKNOWN,
};

/// The maximum of `replicas`.
pub const REPLICAS_MAX: u32 = 10_000;

/// A path in a pod template: names of fields, separated by dots, and keys of items or quoted names of fields
/// in brackets.
const OMIT_PATTERN: &str = r#"^[A-Za-z0-9]+(\.[A-Za-z0-9]+|\[[^\[\]"]+\]|\["[^"]+"\])*$"#;

/// Which version an alias names, and how it serves.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "laurel.dev",
    version = "v1alpha1",
    kind = "ModelAlias",
    plural = "modelaliases",
    shortname = "malias",
    category = "laurel",
    namespaced,
    status = "ModelAliasStatus",
    derive = "PartialEq",
    doc = "An alias of a model (for instance @champion): which version it names, and how that version \
         serves. Change spec.version to promote or to roll back.",
    scale(
        spec_replicas_path = ".spec.serving.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.modelName"),
    printcolumn(name = "Alias", type_ = "string", json_path = ".spec.alias"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.targetVersion"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(name = "Shares", type_ = "string", json_path = ".status.shares", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name also names the Service and the Deployments: at most 52 lower-case letters, \
             digits and '-', starting with a letter"),
    validation = Rule::new("!has(self.spec.traffic) || !has(self.spec.traffic.challengers) || self.spec.traffic.challengers.all(challenger, challenger.aliasRef.name != self.metadata.name)")
        .message("a ModelAlias is no challenger of itself")
)]
#[x_kube(validation = Rule::new("has(self.version) != has(self.follow)").message("set exactly one of version and follow"))]
#[x_kube(validation = Rule::new("!has(self.previousAlias) || self.previousAlias != self.alias").message("previousAlias must differ from alias"))]
#[x_kube(validation = Rule::new("!has(self.traffic) || has(self.serving)").message("traffic needs serving"))]
#[x_kube(validation = Rule::new("!has(self.traffic) || !has(self.rollout) || !has(self.rollout.strategy) || self.rollout.strategy != 'Rolling'").message("traffic needs the strategy BlueGreen or Canary"))]
#[x_kube(validation = Rule::new("has(self.traffic) || !has(self.rollout) || !has(self.rollout.strategy) || self.rollout.strategy != 'Canary'").message("the strategy Canary needs traffic"))]
#[serde(rename_all = "camelCase")]
pub struct ModelAliasSpec {
    /// The RegisteredModel, in the same namespace. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("modelRef is immutable: create another ModelAlias"))]
    pub model_ref: LocalReference,

    /// The alias in the registry, for instance `champion`. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("alias is immutable: create another ModelAlias"))]
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'latest' && !self.matches('^[vV][0-9]+$')").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub alias: AliasName,

    /// The version to serve, for instance `"4"`. Promote or roll back by changing this line. Set either this
    /// or `follow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,

    /// What chooses the version automatically. Set either this or `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("(has(self.registry) ? 1 : 0) + (has(self.latest) ? 1 : 0) + (has(self.best) ? 1 : 0) + (has(self.semver) ? 1 : 0) == 1").message("follow takes exactly one of registry, latest, best and semver"))]
    pub follow: Option<Follow>,

    /// An alias to keep on the previously serving version, for instance `previous`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'latest' && !self.matches('^[vV][0-9]+$')").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub previous_alias: Option<AliasName>,

    /// How the version serves. Without it nothing runs in the cluster: only the alias in the registry is
    /// managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!has(self.keepAlive) || self.runtime != 'custom'").message("keepAlive is for the runtimes that Laurel renders; a custom server decides for itself"))]
    #[x_kube(validation = Rule::new("!has(self.metrics) || !has(self.metrics.predictions) || self.runtime != 'custom'").message("metrics.predictions is for the runtimes that Laurel renders; a custom server decides for itself"))]
    #[x_kube(validation = Rule::new("!has(self.metrics) || !has(self.metrics.port) || self.runtime == 'custom'").message("metrics.port is for the runtime custom; the port of the others is 9464, or 9465 if serving.port is 9464"))]
    #[x_kube(validation = Rule::new("!has(self.metrics) || !has(self.metrics.port) || self.metrics.port != self.port").message("metrics.port must differ from serving.port"))]
    pub serving: Option<Serving>,

    /// How requests from outside the cluster are shared among versions, through the Gateway API. Without it,
    /// they go through the Service alone. This needs an operator with `gatewayAPI.enabled` and the strategy
    /// `BlueGreen` or `Canary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficSpec>,

    /// How a change of version is carried out.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!has(self.maxSurge) || self.strategy == 'Rolling'").message("maxSurge is for strategy Rolling"))]
    #[x_kube(validation = Rule::new("(has(self.steps) && self.steps.size() > 0) == (self.strategy == 'Canary')").message("steps are for strategy Canary, which needs them"))]
    #[x_kube(validation = Rule::new("!has(self.watchFor) || self.strategy == 'Rolling' || duration(self.watchFor) <= duration(self.warmFor)").message("watchFor is at most warmFor"))]
    #[x_kube(validation = Rule::new("!has(self.watchFor) || self.strategy != 'Rolling'").message("watchFor is not for strategy Rolling, which keeps no version warm to go back to"))]
    pub rollout: Rollout,

    /// What to do when somebody moves the alias in the registry by hand: `Correct` (the default) puts it back
    /// on the version that serves, `Report` leaves it and sets a condition. With `follow.registry`, moving
    /// the alias requests a version, and this applies to versions that were rejected.
    #[serde(default = "correct")]
    pub drift: Drift,

    /// What happens to the alias in the registry when this object is deleted: `Retain` (the default) leaves
    /// it where it is, `Delete` removes it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// While true, Laurel changes nothing for this object, neither in the cluster nor in the registry. The
    /// serving version keeps serving. This is not a failure: `Ready` stays as it was, and the condition
    /// `Suspended` is true.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Names a ModelAlias: its namespace and its name.
pub type AliasKey = (String, String);

impl ModelAlias {
    /// Its namespace and its name.
    #[must_use]
    pub fn key(&self) -> AliasKey {
        (self.namespace().unwrap_or_default(), self.name_any())
    }
}

fn correct() -> Drift {
    Drift::Correct
}

/// What to do about an alias that somebody moved by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Drift {
    /// Put it back on the version that serves.
    Correct,
    /// Leave it and report it.
    Report,
}

/// How a version serves.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    /// What runs in the image: `mlflow` (the default; MLflow's own scoring server), `mlserver` (Seldon
    /// MLServer with its MLflow runtime) or `custom` (your own server; give at least its readinessProbe in
    /// `template`). With the first two, every response names its version in the header `Model-Version`.
    #[serde(default = "default_runtime")]
    pub runtime: Runtime,

    /// The container image that serves. It holds the model server and the model's libraries; the model itself
    /// is loaded from the registry when a pod starts.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,

    /// Number of serving pods. Backs the scale subresource, so an autoscaler targets the ModelAlias itself.
    /// Leave it out when an autoscaler decides: Laurel then fills in the current size, or 1, once and never
    /// changes it again. So removing the line from a manifest changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = REPLICAS_MAX))]
    pub replicas: Option<u32>,

    /// The port of the server and of the Service. The default is 8080.
    #[serde(default = "default_port")]
    #[schemars(with = "i32", range(min = 1024, max = 65535))]
    pub port: u16,

    /// Whether pods keep a client's connection open after a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,

    /// What the pods count, for Prometheus: requests with their status and duration, and predictions. With
    /// the runtimes `mlflow` and `mlserver` they count without any change to the image, and show it at
    /// `/metrics` of the container port `metrics`, which is 9464, or 9465 if `port` is 9464. A server of the
    /// runtime `custom` counts by itself; say here where it shows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<ServingMetrics>,

    /// CPU and memory for each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Environment variables for the model server. Laurel also sets `MODEL_NAME`, `MODEL_VERSION`,
    /// `MODEL_ALIAS` and `MODEL_URI`, which cannot be changed here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,

    /// Secrets and `ConfigMaps` whose keys become environment variables of the model server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env_from: Vec<EnvFromSource>,

    /// A partial `PodTemplateSpec`, merged over the one that Laurel renders. The model server is the
    /// container `model`. Lists merge by their Kubernetes keys: containers, volumes and variables by name.
    /// Fields that would break Laurel's guarantees are rejected; the condition lists their paths. To remove
    /// something that Laurel renders, name it in `templateOmit`: a `null` in the template removes it as well,
    /// but `kubectl apply` drops every `null` before it reaches the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub template: Option<serde_json::Value>,

    /// Paths to remove from the pod template that Laurel renders, before `template` is merged over it, for
    /// instance `spec.containers[model].livenessProbe`. An item of a list is named by its key, which is the
    /// `name` of containers, volumes and variables, the `mountPath` of mounts and the `containerPort` of
    /// ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = OMIT_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub template_omit: Vec<String>,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn default_runtime() -> Runtime {
    Runtime::Mlflow
}

fn default_port() -> u16 {
    8080
}

/// What runs in the serving image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// MLflow's scoring server.
    Mlflow,
    /// Seldon MLServer with its MLflow runtime.
    Mlserver,
    /// A server of your own.
    Custom,
}

/// Whether pods keep a client's connection open after a response. `Disabled` (the default) closes it, so that
/// every client moves as soon as traffic moves, at the cost of one new connection for each request. With
/// `Enabled`, a client of the Service that keeps its connection open gets responses from the old version for
/// as long as that version stays warm, and may lose a request when its pods end. Clients that come through a
/// Gateway (`spec.traffic`) do not, because it chooses a version for each request. It cannot be set for the
/// runtime `custom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeepAlive {
    /// Each response closes its connection.
    Disabled,
    /// Connections stay open.
    Enabled,
}

/// How a change of version is carried out.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `BlueGreen` (the default): the new version starts at full size beside the old one, then traffic
    /// switches at once, and the old one stays warm. `Rolling`: pods are replaced a few at a time, for
    /// clusters without room for two versions; both versions answer meanwhile, and the previous one does not
    /// stay warm. `Canary`: as `BlueGreen`, but a version that has not served gets a growing share of the
    /// requests through the Gateway first, in `steps`.
    #[serde(default)]
    pub strategy: Strategy,

    /// With `Canary`: what the new version gets one after the other: first copies of requests (`mirror`),
    /// then shares of them (`weight`), from the smallest to the largest. After the last step it gets all
    /// requests. When another version is requested in between, the new one loses its share at once. A version
    /// that has served before gets all requests at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = Rule::new("self.map(step, has(step.weight) ? step.weight : has(step.mirror) ? step.mirror - 101 : 0).isSorted() && self.all(step, self.exists_one(other, has(step.weight) ? has(other.weight) && other.weight == step.weight : !has(other.weight) && has(other.mirror) && has(step.mirror) && other.mirror == step.mirror))").message("steps with mirror come first, and the percentages rise"))]
    pub steps: Vec<CanaryStep>,

    /// With `Rolling`: the maximum number of pods above `replicas`. The default is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 10000))]
    pub max_surge: Option<u32>,

    /// Time limit from a version's start until all its pods are ready. After that the version is rejected and
    /// traffic stays where it is. The default is 10m.
    #[serde(default = "default_progress_deadline")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("progressDeadline is at least 1s"))]
    pub progress_deadline: Duration,

    /// With `BlueGreen` and `Canary`: how long the previous version stays at full size after a promotion,
    /// ready for an immediate rollback. The default is 15m.
    #[serde(default = "default_warm_for")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    pub warm_for: Duration,

    /// With `BlueGreen` and `Canary`: how long a version is judged by the live rules of its RegisteredModel
    /// after it got all traffic. Then no other version gets requests beside it, so only checks with `max` can
    /// send it back. Time without data does not count. At most `warmFor`: only as long as the previous version
    /// is warm, there is a way back. The default is 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    pub watch_for: Option<Duration>,

    /// Number of versions to keep scaled to zero, beside the serving and the warm one. The default is 3.
    #[serde(default = "default_revision_history_limit")]
    #[schemars(with = "i32", range(min = 0, max = 20))]
    pub revision_history_limit: u32,

    /// The last check before traffic moves to a version that has not served yet.
    #[serde(default, skip_serializing_if = "SmokeTest::is_default")]
    pub smoke_test: SmokeTest,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            steps: Vec::new(),
            max_surge: None,
            progress_deadline: default_progress_deadline(),
            warm_for: default_warm_for(),
            watch_for: None,
            revision_history_limit: default_revision_history_limit(),
            smoke_test: SmokeTest::default(),
        }
    }
}

fn default_progress_deadline() -> Duration {
    std::time::Duration::from_mins(10).into()
}

fn default_warm_for() -> Duration {
    std::time::Duration::from_mins(15).into()
}

fn default_revision_history_limit() -> u32 {
    3
}

/// How the pods of one version are replaced by those of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// All pods of the new version start first, then traffic switches at once.
    #[default]
    BlueGreen,
    /// A few pods at a time.
    Rolling,
    /// As `BlueGreen`, but requests move in steps.
    Canary,
}

/// What a new version gets for a while: a share of the requests, or copies of them.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.weight) != has(self.mirror)").message("a step has exactly one of weight and mirror"))]
#[x_kube(validation = Rule::new("!has(self.atMost) || duration(self.atMost) >= duration(self.atLeast)").message("atMost is not shorter than atLeast"))]
pub struct CanaryStep {
    /// The share of the requests in per cent, at most 50. Set either this or `mirror`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 50))]
    pub weight: Option<u32>,

    /// How many of the requests are copied to the version, in per cent. The version that serves answers each
    /// of them, and the answers to the copies are dropped. Use it only if a request has no side effects. Not
    /// every implementation of the Gateway API copies requests, and some copy all of them whatever is set
    /// here; no condition shows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 100))]
    pub mirror: Option<u32>,

    /// How long the version keeps this share, counted from when every Gateway has accepted it. Changes of the
    /// route for other reasons, and pods that are not ready, begin it again.
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    pub at_least: Duration,

    /// How long the step may take. A version that still waits for its approval then loses its share and is
    /// rejected; if live rules have proven nothing by then, their `whenUndecided` says what happens. The time
    /// is stopped while nobody could do anything about it: while the ModelAlias is suspended or blocked, the
    /// registry cannot be reached, or the Gateways do not accept the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    pub at_most: Option<Duration>,

    /// Whether the step waits for an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<StepApproval>,
}

/// Whether the step waits for an approval. With `Required`, it ends only once somebody has approved the
/// version: with the annotation `laurel.dev/approve` on the ModelAlias, set to the version (`"5"`), or to the
/// version and the number of the step (`"5/2"`), while the version is in this step.
// An optional field gets this text as its description, not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepApproval {
    /// It does.
    Required,
}

/// The last check before traffic moves to a version that has not served yet.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SmokeTest {
    /// What is sent to a pod of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SmokeTestMode>,

    /// Time limit for the pod's response. The default is 60s.
    #[serde(default = "default_smoke_test_timeout")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("smokeTest.timeout is at least 1s"))]
    pub timeout: Duration,

    /// What to do while the test cannot run, because the input example cannot be read or the pod cannot be
    /// reached from Laurel: `Wait` (the default) keeps traffic where it is, `Skip` moves it without a test.
    #[serde(default)]
    pub on_unavailable: OnUnavailable,
}

impl Default for SmokeTest {
    fn default() -> Self {
        Self { mode: None, timeout: default_smoke_test_timeout(), on_unavailable: OnUnavailable::default() }
    }
}

fn default_smoke_test_timeout() -> Duration {
    std::time::Duration::from_mins(1).into()
}

impl SmokeTest {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is sent to a pod of the version. `InputExample` sends the request that was logged with the model, if
/// there is one; a response other than 2xx rejects the version. `Disabled` sends nothing. The default is
/// `InputExample`, and `Disabled` for the runtime `custom`.
// An optional field gets this text as its description, not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SmokeTestMode {
    /// The model's own input example.
    InputExample,
    /// Nothing.
    Disabled,
}

/// What to do while a smoke test cannot run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OnUnavailable {
    /// Traffic stays where it is.
    #[default]
    Wait,
    /// Traffic moves without a test.
    Skip,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition::Reason;

    #[test]
    fn a_status_of_a_later_release_can_be_parsed() {
        let status: ModelAliasStatus = serde_yaml::from_str(
            "
history: [{version: '2', at: '2026-01-01T00:00:00Z', cause: Dream, outcome: Celebrated}]
rejected: [{version: '3', at: '2026-01-01T00:00:00Z', reason: TooSlow, message: p99, settings: v9-a, \
active: true}]
versions: [{version: '2', smokeTest: Skipped}]
mood: good
",
        )
        .unwrap();
        assert_eq!(status.history[0].outcome, Outcome::Unknown);
        assert_eq!(status.history[0].requested_by, UNKNOWN);
        assert_eq!(status.rejected[0].reason, Reason::Unknown);
        assert_eq!(status.versions[0].smoke_test, Some(SmokeTestOutcome::Unknown));
    }
}
