//! Conditions: their types, statuses and the closed list of reasons.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumMessage, EnumString, IntoStaticStr};

/// What introduces the last lines of a container's log in a message.
pub const LAST_LINES: &str = "its last lines";
/// What introduces a model server's answer.
pub const ANSWERED: &str = "POST /invocations answered";
/// What introduces the result of a failed probe.
pub const PROBE_FAILS: &str = "a probe fails";
/// What introduces text that a container wrote: it begins after the next colon. Such text does not leave the
/// namespace.
pub const CONTAINER_OUTPUT: [&str; 3] = [LAST_LINES, ANSWERED, PROBE_FAILS];

/// Condition types of Laurel's objects. The first three follow kstatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Display, IntoStaticStr, EnumIter)]
pub enum ConditionType {
    /// The desired state is reached in full.
    Ready,
    /// Work towards the desired state is under way.
    Reconciling,
    /// The desired state cannot be reached until somebody acts.
    Stalled,
    /// A ready version answers requests.
    Serving,
    /// The alias in the registry names what serves.
    RegistrySynced,
    /// The desired version meets the promotion rules for the alias. Absent without rules.
    GatesPassed,
    /// The version is no worse on live traffic. Absent without live rules, and once nothing is judged or proven.
    LiveRulesPassed,
    /// The inputs of the version are as in its training. Absent without a rule about drift.
    InputsAsTrained,
    /// The HTTPRoute shares the requests as desired. Absent without `spec.traffic`.
    TrafficSplit,
    /// The requests of an experiment are shared as planned. Absent before enough were counted.
    SplitAsPlanned,
    /// An experiment is over.
    Concluded,
    /// Deliveries of the registry's webhooks arrive. Absent without `spec.webhook`.
    WebhookReady,
    /// The registry is used by objects that name none. Absent without the annotation `laurel.dev/default`.
    Default,
    /// `spec.suspend` is true. Absent otherwise.
    Suspended,
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, IntoStaticStr)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known at present.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// The closed list of reasons. `docs/reasons.md` describes each with its next step; a test keeps that page
/// complete.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    EnumMessage,
    IntoStaticStr,
)]
pub enum Reason {
    // At rest.
    /// The desired version serves.
    Serving,
    /// The alias in the registry names the desired version; the spec has no `serving`.
    AliasSet,
    /// The alias in the registry names what serves.
    Synced,
    /// The model exists in the registry as described.
    ModelSynced,
    /// The registry can be reached and accepts the credentials.
    Connected,
    /// The version meets every promotion rule for the alias.
    GatesPassed,
    /// The version served here before, so the promotion rules do not hold it back.
    ServedBefore,
    /// The version is no worse on live traffic than the live rules allow.
    NoWorse,
    /// The inputs of the version differ no more from its training data than the rule allows.
    NoDrift,
    /// The HTTPRoute shares the requests as desired.
    TrafficSplit,
    /// The requests that pods counted are shared as planned.
    SplitAsPlanned,
    /// The experiment is over: a challenger is better.
    ChallengerWins,
    /// The experiment is over: the champion is better.
    ChampionWins,
    /// The experiment is over: no difference that matters.
    NoDifference,
    /// There is nothing to do.
    AsDesired,
    /// `spec.suspend` is true.
    Suspended,

    // Under way.
    /// The version's pods are being started.
    StartingVersion,
    /// The version's pods are not all ready yet.
    WaitingForPods,
    /// The smoke test is running: the input example is being sent to the version.
    SmokeTesting,
    /// Traffic is being switched.
    MovingTraffic,
    /// The version goes through the steps of a canary.
    CanaryStep,
    /// A step of the canary waits for somebody's approval.
    AwaitingApproval,
    /// The version is judged by its live traffic, and more of it is needed.
    Watching,
    /// The version had fewer requests, or fewer bad ones, than a verdict takes.
    NotEnoughTraffic,
    /// The version has all traffic, and no check has an absolute bound: nothing is judged.
    NoBaseline,
    /// There are live rules, and the rollout has no time in which they judge anything.
    NotJudged,
    /// The experiment counts what its versions answer.
    Collecting,
    /// The HTTPRoute is not accepted by all its parents yet.
    TrafficPending,
    /// Pods are being exchanged, a few at a time.
    ExchangingPods,
    /// New settings are being rolled out to the version that serves.
    UpdatingSettings,
    /// The number of pods is being changed.
    Scaling,
    /// The alias in the registry is set after traffic has been switched.
    RegistryPending,
    /// The object is being deleted.
    Deleting,

    // The registry.
    /// The object that `registryRef` names does not exist.
    ModelRegistryNotFound,
    /// No `registryRef` and no default registry.
    RegistryNotConfigured,
    /// The ClusterModelRegistry does not allow the namespace.
    RegistryNotAllowed,
    /// The registry is the default where an object names none.
    DefaultRegistry,
    /// A newer registry is the default.
    NewerDefaultRegistry,
    /// The ModelRegistry's settings cannot be used.
    RegistryInvalid,
    /// The Secret does not exist.
    SecretNotFound,
    /// The Secret lacks the key, or its value cannot be used.
    SecretKeyInvalid,
    /// The registry has not been read yet.
    RegistryNotRead,
    /// No connection, or no answer in time.
    RegistryUnreachable,
    /// The registry does not accept the credentials (HTTP 401).
    RegistryUnauthorized,
    /// Permission denied for the credentials (HTTP 403).
    RegistryForbidden,
    /// MLflow rejects the Host header.
    RegistryHostRefused,
    /// The workspace does not exist there.
    RegistryWorkspaceRefused,
    /// The registry rejects a request.
    RegistryRefused,
    /// The registry returns errors, or responses that cannot be parsed.
    RegistryFailing,
    /// The registry lacks a feature that the spec needs.
    RegistryUnsupported,

    // The registry's webhooks.
    /// Deliveries arrive and are accepted.
    WebhookReceiving,
    /// No delivery has arrived yet.
    WebhookWaiting,
    /// The operator has no endpoint for webhooks, or no certificate for it.
    WebhookNotListening,
    /// Deliveries arrive that are not signed with the Secret, or whose timestamp is off.
    WebhookDeliveriesRefused,
    /// MLflow cannot deliver to the endpoint.
    WebhookUndeliverable,
    /// MLflow rejects the URL's scheme.
    WebhookSchemeRefused,
    /// MLflow does not deliver to addresses that are not public.
    WebhookAddressRefused,
    /// MLflow cannot read its own webhooks, as it does without an encryption key.
    WebhookEncryptionKeyMissing,

    // The desired state.
    /// The object that `modelRef` names does not exist.
    RegisteredModelNotFound,
    /// The model does not exist in the registry.
    ModelNotFound,
    /// The model was in the registry with versions or aliases, and is not any more.
    ModelGone,
    /// The version does not exist in the registry.
    VersionNotFound,
    /// The version's registration is still pending.
    VersionPending,
    /// The version's registration failed.
    VersionFailed,
    /// The version number now refers to a different model than the one that serves.
    VersionReplaced,
    /// The version does not meet the promotion rules for the alias.
    GatesFailed,
    /// The alias to follow does not exist in the registry.
    AliasNotFound,
    /// No version matches `follow`.
    NoCandidate,
    /// `follow.semver.range` cannot be parsed.
    InvalidRange,
    /// Another ModelAlias owns the alias.
    Conflict,
    /// `serving.template` is not valid.
    InvalidTemplate,
    /// A Service or Deployment of that name belongs to somebody else.
    NameTaken,
    /// Somebody moved the alias in the registry, and `drift` is `Report`.
    AliasDrifted,
    /// The alias in the registry was put back on what serves.
    AliasPutBack,
    /// Another writer keeps moving the alias in the registry, and Laurel has stopped putting it back.
    Contested,

    /// `spec.traffic` needs the Gateway API, which cannot be used here; the version serves through its
    /// Service.
    TrafficUnsupported,
    /// The HTTPRoute in `spec.traffic.routeRef` does not exist, or requests cannot be shared in it as it is.
    RouteUnusable,
    /// A challenger cannot take its share of the requests, so the champion has it.
    ChallengerUnavailable,
    /// The champion of an experiment does not serve one version alone.
    ChampionUnavailable,

    // Pods.
    /// The image cannot be pulled.
    ImagePullFailed,
    /// The model server exited while loading, or keeps exiting.
    ModelCrashed,
    /// The container cannot be created: a Secret, `ConfigMap` or key is missing.
    ContainerConfigInvalid,
    /// The cluster rejects the pods: quota, pod security or another policy.
    PodsRefused,
    /// No node has room for the pods.
    Unschedulable,
    /// A volume of the pods cannot be attached or mounted.
    VolumeMountFailed,
    /// A node rejects the pods, or cannot start them.
    PodStartFailed,
    /// A node ended a pod, for instance because it ran out of memory or disk.
    PodsEvicted,
    /// The version was not ready in time.
    ProgressDeadlineExceeded,
    /// The version returned an error for its own input example.
    SmokeTestFailed,
    /// The smoke test cannot be run: the example cannot be read, or the pods cannot be reached.
    SmokeTestUnavailable,
    /// The serving version has no ready pod left.
    BecameUnready,
    /// Nobody approved the version within the time of a canary's step.
    NotApproved,

    // Live rules.
    /// The version is worse on live traffic than the live rules allow.
    Regressed,
    /// The time of a canary's step is over, and the live rules have proven nothing.
    Undecided,
    /// The pods do not let Laurel read what they count.
    MetricsUnreachable,
    /// The pods do not count what a check needs, or their numbers are incomplete.
    MetricsMissing,
    /// A value was found several times where one is expected.
    MetricsAmbiguous,
    /// Requests are not shared as planned, so versions cannot be compared.
    SplitMismatch,
    /// The requests of a user stay together, so they are not judged.
    StickyAssignment,
    /// Many `ModelAliases` became worse at the same time, so the measuring is doubted.
    ManyRegressed,
    /// The inputs of the version differ from its training data.
    InputsDrifted,
    /// Nothing reliable is known about the inputs of the version.
    DriftUnknown,

    // The cluster.
    /// The API server rejects a write.
    ApplyRefused,
    /// Laurel lacks a permission in the cluster.
    ApplyForbidden,
    /// The API server returns errors or cannot be reached.
    ApplyFailed,

    // Other releases.
    /// A value written by a later release of Laurel.
    #[serde(other)]
    Unknown,
}

/// How serious a reason is. Exhaustive, so that a new reason cannot be forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// All is well, or work is under way.
    Normal,
    /// Nothing is wrong; the wait ends by itself.
    Waiting,
    /// Something is wrong, and may recover by itself.
    Transient,
    /// Something is wrong, and somebody has to act.
    Blocking,
}

impl Reason {
    #[expect(clippy::too_many_lines, reason = "a line for each reason")]
    fn severity(self) -> Severity {
        match self {
            Self::Serving
            | Self::AliasSet
            | Self::Synced
            | Self::ModelSynced
            | Self::Connected
            | Self::GatesPassed
            | Self::ServedBefore
            | Self::TrafficSplit
            | Self::SplitAsPlanned
            | Self::ChallengerWins
            | Self::ChampionWins
            | Self::NoDifference
            | Self::Collecting
            | Self::CanaryStep
            | Self::NoWorse
            | Self::NoDrift
            | Self::Watching
            | Self::NotEnoughTraffic
            | Self::NoBaseline
            | Self::NotJudged
            | Self::AsDesired
            | Self::Suspended
            | Self::StartingVersion
            | Self::SmokeTesting
            | Self::MovingTraffic
            | Self::ExchangingPods
            | Self::UpdatingSettings
            | Self::Scaling
            | Self::Deleting
            | Self::WebhookReceiving
            | Self::WebhookWaiting
            | Self::DefaultRegistry => Severity::Normal,

            Self::WaitingForPods
            | Self::TrafficPending
            | Self::AwaitingApproval
            | Self::RegistryPending
            | Self::RegistryNotRead => Severity::Waiting,

            Self::RegistryUnreachable
            | Self::RegistryFailing
            | Self::VersionPending
            | Self::SmokeTestUnavailable
            | Self::ChallengerUnavailable
            | Self::ChampionUnavailable
            | Self::PodsEvicted
            | Self::MetricsUnreachable
            | Self::MetricsMissing
            | Self::MetricsAmbiguous
            | Self::SplitMismatch
            | Self::StickyAssignment
            | Self::ManyRegressed
            | Self::DriftUnknown
            | Self::ApplyFailed => Severity::Transient,

            Self::ModelRegistryNotFound
            | Self::RegistryNotConfigured
            | Self::RegistryInvalid
            | Self::NewerDefaultRegistry
            | Self::RegistryNotAllowed
            | Self::SecretNotFound
            | Self::SecretKeyInvalid
            | Self::RegistryUnauthorized
            | Self::RegistryForbidden
            | Self::RegistryHostRefused
            | Self::RegistryWorkspaceRefused
            | Self::RegistryRefused
            | Self::RegistryUnsupported
            | Self::WebhookNotListening
            | Self::WebhookDeliveriesRefused
            | Self::WebhookUndeliverable
            | Self::WebhookSchemeRefused
            | Self::WebhookAddressRefused
            | Self::WebhookEncryptionKeyMissing
            | Self::RegisteredModelNotFound
            | Self::ModelNotFound
            | Self::ModelGone
            | Self::VersionNotFound
            | Self::VersionFailed
            | Self::VersionReplaced
            | Self::GatesFailed
            | Self::AliasNotFound
            | Self::NoCandidate
            | Self::InvalidRange
            | Self::Conflict
            | Self::InvalidTemplate
            | Self::NameTaken
            | Self::AliasDrifted
            | Self::AliasPutBack
            | Self::Contested
            | Self::TrafficUnsupported
            | Self::RouteUnusable
            | Self::ImagePullFailed
            | Self::ModelCrashed
            | Self::ContainerConfigInvalid
            | Self::PodsRefused
            | Self::Unschedulable
            | Self::VolumeMountFailed
            | Self::PodStartFailed
            | Self::ProgressDeadlineExceeded
            | Self::SmokeTestFailed
            | Self::BecameUnready
            | Self::NotApproved
            | Self::Regressed
            | Self::Undecided
            | Self::InputsDrifted
            | Self::ApplyRefused
            | Self::ApplyForbidden
            | Self::Unknown => Severity::Blocking,
        }
    }

    /// Whether it ends without a change of any spec: the registry or the API server is away, or pods are
    /// still busy. kstatus calls that reconciling; anything else is stalled.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self.severity(), Severity::Waiting | Severity::Transient)
    }

    /// Whether a call to the API server failed.
    #[must_use]
    pub fn is_api_server_error(self) -> bool {
        matches!(self, Self::ApplyRefused | Self::ApplyForbidden | Self::ApplyFailed)
    }

    /// Whether somebody may have to act on it.
    #[must_use]
    pub fn needs_attention(self) -> bool {
        matches!(self.severity(), Severity::Transient | Severity::Blocking)
    }
}

/// A reason with its message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonMessage {
    /// The reason, from the closed list.
    pub reason: Reason,
    /// One sentence for people: the object, the field, the cause and the next step.
    pub message: String,
}

impl ReasonMessage {
    /// Creates a reason with its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A desired condition, without its transition time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredCondition {
    /// Its type.
    pub type_: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why.
    pub cause: ReasonMessage,
}

/// The API server accepts messages of up to 32,768 bytes; people read less.
const MESSAGE_MAX: usize = 2000;

/// Merges the desired conditions into `previous`. `lastTransitionTime` moves only with the status; conditions
/// of other types stay as they are.
#[must_use]
pub fn merge_conditions(
    previous: &[Condition],
    desired: Vec<DesiredCondition>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = previous.to_vec();
    for DesiredCondition { type_, status, cause } in desired {
        let type_: &str = type_.into();
        let known = merged.iter().position(|condition| condition.type_ == type_);
        let since = known
            .map(|index| &merged[index])
            .filter(|condition| condition.status == status.to_string())
            .map_or_else(|| Time(now), |condition| condition.last_transition_time.clone());
        let condition = Condition {
            type_: type_.to_owned(),
            status: status.to_string(),
            reason: cause.reason.to_string(),
            message: shortened(&cause.message, MESSAGE_MAX),
            observed_generation: generation,
            last_transition_time: since,
        };
        match known {
            Some(index) => merged[index] = condition,
            None => merged.push(condition),
        }
    }
    merged
}

/// Returns the condition of a type.
#[must_use]
pub fn condition(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    let name: &str = type_.into();
    conditions.iter().find(|condition| condition.type_ == name)
}

/// Returns a number with what it counts, which has an `s` unless there is one.
#[must_use]
pub fn counted(number: u32, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Cuts `text` to at most `max` bytes at a character boundary, with an ellipsis if anything was cut.
#[must_use]
pub fn shortened(text: &str, max: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub(ELLIPSIS.len()));
    format!("{}{ELLIPSIS}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(status: ConditionStatus, reason: Reason) -> Vec<DesiredCondition> {
        vec![DesiredCondition {
            type_: ConditionType::Ready,
            status,
            cause: ReasonMessage::new(reason, "why"),
        }]
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let first =
            merge_conditions(&[], desired(ConditionStatus::False, Reason::StartingVersion), Some(1), at(1));
        let second =
            merge_conditions(&first, desired(ConditionStatus::False, Reason::WaitingForPods), Some(1), at(2));
        assert_eq!(second[0].last_transition_time, Time(at(1)));
        assert_eq!(second[0].reason, "WaitingForPods");
        let third =
            merge_conditions(&second, desired(ConditionStatus::True, Reason::Serving), Some(1), at(3));
        assert_eq!(third[0].last_transition_time, Time(at(3)));
    }

    #[test]
    fn conditions_of_other_types_are_kept_and_merging_is_idempotent() {
        let foreign = Condition {
            type_: "Audited".into(),
            status: "True".into(),
            reason: "Yes".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(at(0)),
        };
        let once = merge_conditions(
            std::slice::from_ref(&foreign),
            desired(ConditionStatus::True, Reason::Serving),
            None,
            at(1),
        );
        assert!(once.contains(&foreign));
        assert_eq!(
            merge_conditions(&once, desired(ConditionStatus::True, Reason::Serving), None, at(9)),
            once
        );
    }

    #[test]
    fn shortening_keeps_characters_whole() {
        assert_eq!(shortened("kurz", 10), "kurz");
        assert_eq!(shortened("äöüäöü", 8), "äö…");
    }
}
