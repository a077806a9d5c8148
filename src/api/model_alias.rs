//! `ModelAlias`: which version an alias names, and how it serves.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{CustomResource, KubeSchema, ResourceExt, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DURATION_MAX, DURATION_PATTERN, DeletionPolicy, LocalReference, RegistryStatus,
    condition::Reason,
    follow::Follow,
    names::{AliasName, ModelUri, Version},
};

/// The largest number of pods that may be asked for.
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
    doc = "An alias of a model (for instance @champion): which version it names, and how that version serves. Change spec.version to promote or to roll back.",
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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name also names the Service and the Deployments: at most 52 lower-case letters, digits and '-', starting with a letter")
)]
#[x_kube(validation = Rule::new("has(self.version) != has(self.follow)").message("set exactly one of version and follow"))]
#[x_kube(validation = Rule::new("!has(self.previousAlias) || self.previousAlias != self.alias").message("previousAlias must differ from alias"))]
#[serde(rename_all = "camelCase")]
pub struct ModelAliasSpec {
    /// The RegisteredModel, in the same namespace. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("modelRef is immutable: make another ModelAlias"))]
    pub model_ref: LocalReference,

    /// The alias in the registry, for instance `champion`. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("alias is immutable: make another ModelAlias"))]
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'latest' && !self.matches('^[vV][0-9]+$')").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub alias: AliasName,

    /// The version to serve, for instance `"4"`. Promote or roll back by changing this line. Set either this
    /// or `follow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,

    /// Let something else choose the version. Set either this or `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("(has(self.registry) ? 1 : 0) + (has(self.latest) ? 1 : 0) + (has(self.best) ? 1 : 0) + (has(self.semver) ? 1 : 0) == 1").message("follow takes exactly one of registry, latest, best and semver"))]
    pub follow: Option<Follow>,

    /// An alias to keep on the version that served before, for instance `previous`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'latest' && !self.matches('^[vV][0-9]+$')").message("MLflow reserves the aliases 'latest' and 'v' followed by digits"))]
    pub previous_alias: Option<AliasName>,

    /// How the version serves. Without it nothing runs here: only the alias in the registry is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!has(self.keepAlive) || self.runtime != 'custom'").message("keepAlive is for the runtimes that Laurel renders; a custom server decides it itself"))]
    pub serving: Option<Serving>,

    /// How a change of version is carried out.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!has(self.maxSurge) || self.strategy == 'Rolling'").message("maxSurge is for strategy Rolling"))]
    pub rollout: Rollout,

    /// What to do when somebody moves the alias in the registry by hand: `Correct` (the default) puts it back
    /// on the version that serves, `Report` leaves it and says so. With `follow.registry` this is about
    /// versions that were refused or failed; moving the alias is then how a version is asked for.
    #[serde(default = "correct")]
    pub drift: Drift,

    /// What happens to the alias in the registry when this object is deleted: `Retain` (the default) leaves
    /// it where it is, `Delete` removes it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// While true, Laurel changes nothing for this object, neither here nor in the registry. What serves goes
    /// on serving. This is not a failure: `Ready` stays as it was, and the condition `Suspended` is true.
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
    /// Leave it, and say so.
    Report,
}

/// How a version serves.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    /// What runs in the image: `mlflow` (the default; MLflow's own scoring server), `mlserver` (Seldon
    /// MLServer with its MLflow runtime) or `custom` (your own server; give at least its readinessProbe in
    /// `template`). With the first two, every answer says in the header `Model-Version` which version gave
    /// it.
    #[serde(default = "default_runtime")]
    pub runtime: Runtime,

    /// The container image that serves. It holds the model server and the model's libraries; the model itself
    /// is loaded from the registry when a pod starts.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,

    /// How many pods serve. This is also the scale subresource, so an autoscaler targets the ModelAlias
    /// itself. Leave it out when an autoscaler decides: Laurel then fills in the size that serves now, or 1,
    /// and never changes it again. So taking the line out of a manifest changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = REPLICAS_MAX))]
    pub replicas: Option<u32>,

    /// The port on which the server listens and on which the Service answers. The default is 8080.
    #[serde(default = "default_port")]
    #[schemars(with = "i32", range(min = 1024, max = 65535))]
    pub port: u16,

    /// Whether pods keep a client's connection open after an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,

    /// CPU and memory for each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Environment variables for the model server. It also gets `MODEL_NAME`, `MODEL_VERSION`, `MODEL_ALIAS`
    /// and `MODEL_URI`, which cannot be changed here.
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
    /// What breaks Laurel's promises is refused with its path in the condition. To remove something that
    /// Laurel renders, name it in `templateOmit`: a `null` in the template removes it as well, but `kubectl
    /// apply` drops every `null` on its way to the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub template: Option<serde_json::Value>,

    /// Paths in the pod template that Laurel renders, each of which is removed before `template` is merged
    /// over it, for instance `spec.containers[model].livenessProbe`. An item of a list is named by its key,
    /// which is the `name` of containers, volumes and variables, the `mountPath` of mounts and the
    /// `containerPort` of ports.
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

/// Whether pods keep a client's connection open after an answer. `Disabled` (the default) closes it, so that
/// every client moves as soon as traffic moves, at the cost of one new connection for each request. With
/// `Enabled`, a client that keeps its connection open is answered by the old version for as long as that
/// version stays warm, and may lose a request when its pods end. It cannot be set for the runtime `custom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeepAlive {
    /// Each answer closes its connection.
    Disabled,
    /// Connections stay open.
    Enabled,
}

/// How a change of version is carried out.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `BlueGreen` (the default): the new version comes up in full beside the old one, then traffic moves at
    /// once, and the old one stays warm. `Rolling`: pods are exchanged a few at a time, for clusters without
    /// room for two; both versions answer meanwhile, and the previous one does not stay warm.
    #[serde(default)]
    pub strategy: Strategy,

    /// With `Rolling`: how many pods there may be above `replicas`. The default is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 10000))]
    pub max_surge: Option<u32>,

    /// How long a version may take from its start until all its pods are ready. After that it is rejected and
    /// traffic stays where it is. The default is 10m.
    #[serde(default = "default_progress_deadline")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("progressDeadline is at least 1s"))]
    pub progress_deadline: Duration,

    /// With `BlueGreen`: how long the previous version stays at full size after a promotion, ready for an
    /// immediate rollback. The default is 15m.
    #[serde(default = "default_warm_for")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    pub warm_for: Duration,

    /// How many versions are kept scaled to zero, beside the one that serves and the warm one. The default is
    /// 3.
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
            max_surge: None,
            progress_deadline: default_progress_deadline(),
            warm_for: default_warm_for(),
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

/// How pods of one version give way to those of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// All of the new version first, then traffic moves at once.
    #[default]
    BlueGreen,
    /// A few pods at a time.
    Rolling,
}

/// The last check before traffic moves to a version that has not served yet.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SmokeTest {
    /// What is sent to a pod of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SmokeTestMode>,

    /// How long the pod may take to answer. The default is 60s.
    #[serde(default = "default_smoke_test_timeout")]
    #[schemars(length(max = DURATION_MAX), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("smokeTest.timeout is at least 1s"))]
    pub timeout: Duration,

    /// What happens while the test cannot be carried out, because the input example cannot be read or the pod
    /// cannot be reached from Laurel: `Wait` (the default) keeps traffic where it is, `Skip` moves it without
    /// a test.
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

/// What is sent to a pod of the version. `InputExample` sends the request that was logged with the model,
/// where there is one; an answer other than 2xx rejects the version. `Disabled` sends nothing. The default is
/// `InputExample`, and `Disabled` for the runtime `custom`.
// This text, and not that of the field, is what a field that may be missing gets as its description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SmokeTestMode {
    /// The model's own input example.
    InputExample,
    /// Nothing.
    Disabled,
}

/// What happens while a smoke test cannot be carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OnUnavailable {
    /// Traffic stays where it is.
    #[default]
    Wait,
    /// Traffic moves without a test.
    Skip,
}

/// What serves, and what Laurel is doing to get to what the spec asks for.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelAliasStatus {
    /// The generation of the spec that this status speaks of.
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
    /// The version that is to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_version: Option<Version>,
    /// The version that answered requests before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<Version>,
    /// The version that the alias in the registry named when it last agreed with what serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_version: Option<Version>,
    /// The alias that is kept on the version that answered before. When `spec.previousAlias` is removed or
    /// renamed, Laurel deletes it in the registry, unless somebody else has moved it or claims it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_alias: Option<KeptAlias>,
    /// When the alias in the registry was put back after somebody had moved it, newest first, at most 3. It
    /// is forgotten when nothing happened for ten minutes, when `spec.version` changes, or when somebody asks
    /// to try again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put_back_at: Vec<Timestamp>,
    /// The URL for predictions inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How many pods are to serve: `spec.serving.replicas` as it was last known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub desired_replicas: Option<u32>,
    /// The pods of the version that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub replicas: Option<u32>,
    /// Those of them that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub ready_replicas: Option<u32>,
    /// Selects the pods of the version that serves; autoscalers read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The versions that have a Deployment here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["version".into()]))]
    pub versions: Vec<KnownVersion>,
    /// Versions that were tried and failed, newest first, at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejection>,
    /// What was done, newest first: the newest 10, and older ones that are not in the registry's tags yet, at
    /// most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// The value of the annotation `laurel.dev/retry` that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<String>,
    /// `Ready`, `Reconciling` and `Stalled` as kstatus defines them; `Serving` (a ready version answers),
    /// `RegistrySynced` (the alias in the registry names what serves) and `GatesPassed` (the promotion rules
    /// let the version in); and `Suspended` while `spec.suspend` is true.
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

/// How often the alias is put back before Laurel takes it for contested.
pub const PUT_BACK_MAX: usize = 3;

/// A version that has a Deployment here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KnownVersion {
    /// The version's number.
    pub version: Version,
    /// What its pods load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_uri: Option<ModelUri>,
    /// Since when it is being started or given new settings; gone once it serves in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The fingerprint of the settings that this start is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// When it first answered requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_at: Option<Timestamp>,
    /// When traffic left it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
    /// How the smoke test of its last start ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub smoke_test: Option<SmokeTestOutcome>,
}

/// How a smoke test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SmokeTestOutcome {
    /// The pod answered the input example with 2xx.
    Passed,
    /// The model has no input example.
    NoInputExample,
    /// What a later release of Laurel wrote, and this one does not know.
    #[serde(other)]
    Unknown,
}

/// A version that was tried and failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// The version's number.
    pub version: Version,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence, with what was seen last.
    pub message: String,
    /// The time of the rejection.
    pub at: Timestamp,
    /// The settings it was tried with. Other settings are another try.
    pub settings: String,
    /// Whether the version is held back: true until the spec, or the alias in the registry, names another
    /// version, or somebody sets the annotation `laurel.dev/retry`.
    pub active: bool,
}

/// One change of what serves, or a failed try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The version this is about.
    pub version: Version,
    /// The version that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
    /// The time of the change.
    pub at: Timestamp,
    /// What asked for it.
    pub cause: Cause,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took from the version's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub duration: Option<Duration>,
    /// Who asked for it: a user as the API server knew them, `laurel` where Laurel chose by itself (a
    /// follower, a failure), or `unknown`.
    #[serde(default = "unknown")]
    pub requested_by: String,
    /// The Git commit that asked for it, from the annotation `laurel.dev/commit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Why it was rejected, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub reason: Option<Reason>,
    /// Why it was rejected, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether this entry was written to the tags of the version in the registry: `Pending`, `Written`, or
    /// `Impossible` where the version is gone or the registry keeps no tags.
    #[serde(default)]
    pub recorded: Recorded,
}

/// Who asked for a change of which nobody can say.
pub const UNKNOWN: &str = "unknown";

fn unknown() -> String {
    UNKNOWN.to_owned()
}

/// Whether an entry of the history stands in the registry's tags.
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
    /// What a later release of Laurel wrote, and this one does not know.
    #[serde(other)]
    Unknown,
}

/// What asked for a change.
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
    /// What a later release of Laurel wrote, and this one does not know.
    #[serde(other)]
    Unknown,
}

/// How a change ended.
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
    /// What a later release of Laurel wrote, and this one does not know.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition::Reason;

    #[test]
    fn a_status_of_a_later_release_can_be_read() {
        let status: ModelAliasStatus = serde_yaml::from_str(
            "
history: [{version: '2', at: '2026-01-01T00:00:00Z', cause: Dream, outcome: Celebrated}]
rejected: [{version: '3', at: '2026-01-01T00:00:00Z', reason: TooSlow, message: p99, settings: v9-a, active: true}]
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
