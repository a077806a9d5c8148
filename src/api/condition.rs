//! The words that conditions are written in: their types and the closed list of reasons.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumMessage, EnumString, IntoStaticStr};

/// The types of condition on Laurel's objects. The first three follow kstatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Display, IntoStaticStr, EnumIter)]
pub enum ConditionType {
    /// The wish is met in full.
    Ready,
    /// Work towards the wish is under way.
    Reconciling,
    /// The wish cannot be met until somebody does something.
    Stalled,
    /// A ready version answers requests.
    Serving,
    /// The alias in the registry names what serves.
    RegistrySynced,
    /// The wished version meets the promotion rules for the alias. Without rules there is no such condition.
    GatesPassed,
    /// The registry's webhooks wake Laurel. Without `spec.webhook` there is no such condition.
    WebhookReady,
    /// The registry is used where an object names none. Without the annotation `laurel.dev/default` there is
    /// no such condition.
    Default,
    /// `spec.suspend` is true. Otherwise there is no such condition.
    Suspended,
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, IntoStaticStr)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be known now.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Why a condition is as it is: the closed list. `docs/reasons.md` says of each what it means and what to do;
/// a test keeps that page complete.
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
    /// The wished version serves.
    Serving,
    /// The alias in the registry names the wished version; nothing serves here, as wished.
    AliasSet,
    /// The alias in the registry names what serves.
    Synced,
    /// The model exists in the registry as described.
    ModelSynced,
    /// The registry can be reached and lets us in.
    Connected,
    /// The version meets every promotion rule for the alias.
    GatesPassed,
    /// The version served here before, so the promotion rules do not hold it back.
    ServedBefore,
    /// There is nothing to do.
    AsDesired,
    /// `spec.suspend` is true.
    Suspended,

    // Under way.
    /// The version's pods are being started.
    StartingVersion,
    /// The version's pods are not all ready yet.
    WaitingForPods,
    /// The input example is being sent to the version.
    SmokeTesting,
    /// Traffic is being moved.
    MovingTraffic,
    /// Pods are being exchanged, a few at a time.
    ExchangingPods,
    /// New settings are being rolled out to the version that serves.
    UpdatingSettings,
    /// The number of pods is being changed.
    Scaling,
    /// The registry is to be changed after traffic.
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
    /// The registry does not know the login.
    RegistryUnauthorized,
    /// The registry refuses the login permission.
    RegistryForbidden,
    /// MLflow refuses the Host header.
    RegistryHostRefused,
    /// The workspace does not exist there.
    RegistryWorkspaceRefused,
    /// The registry refuses a request.
    RegistryRefused,
    /// The registry answers with errors, or not like a registry.
    RegistryFailing,
    /// The registry lacks what the wish needs.
    RegistryUnsupported,

    // The registry's webhooks.
    /// Deliveries arrive and wake Laurel.
    WebhookReceiving,
    /// No delivery has arrived yet.
    WebhookWaiting,
    /// The operator has no endpoint for webhooks, or no certificate for it.
    WebhookNotListening,
    /// Deliveries arrive that are not signed with the Secret, or at the wrong time.
    WebhookDeliveriesRefused,
    /// MLflow cannot deliver to the endpoint.
    WebhookUndeliverable,
    /// MLflow refuses the URL's scheme.
    WebhookSchemeRefused,
    /// MLflow refuses to deliver to an address that is not public.
    WebhookAddressRefused,
    /// MLflow cannot read its own webhooks, as it does without an encryption key.
    WebhookEncryptionKeyMissing,

    // The wish.
    /// The object that `modelRef` names does not exist.
    RegisteredModelNotFound,
    /// The model does not exist in the registry.
    ModelNotFound,
    /// The model was in the registry with versions or aliases, and is not any more.
    ModelGone,
    /// The version does not exist in the registry.
    VersionNotFound,
    /// The registry is still taking the version in.
    VersionPending,
    /// The version's registration failed.
    VersionFailed,
    /// The version's number now means another model than the one that serves.
    VersionReplaced,
    /// The version does not meet the promotion rules for the alias.
    GatesFailed,
    /// The alias to follow does not exist in the registry.
    AliasNotFound,
    /// No version is one that `follow` could choose.
    NoCandidate,
    /// `follow.semver.range` cannot be read.
    InvalidRange,
    /// Another ModelAlias owns the alias.
    Conflict,
    /// `serving.template` cannot be used.
    InvalidTemplate,
    /// A Service or Deployment of that name belongs to somebody else.
    NameTaken,
    /// Somebody moved the alias in the registry, and `drift` is `Report`.
    AliasDrifted,
    /// The alias in the registry was put back on what serves.
    AliasPutBack,
    /// Somebody else goes on moving the alias in the registry, and Laurel has stopped putting it back.
    Contested,

    // Pods.
    /// The image cannot be pulled.
    ImagePullFailed,
    /// The model server ended while loading, or keeps ending.
    ModelCrashed,
    /// The container cannot be made: a Secret, `ConfigMap` or key is missing.
    ContainerConfigInvalid,
    /// The cluster refuses to make pods: quota, pod security or another policy.
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
    /// The version answered its own input example with an error.
    SmokeTestFailed,
    /// The smoke test cannot be done: the example cannot be read, or the pods cannot be reached.
    SmokeTestUnavailable,
    /// The version that served has no ready pod left.
    BecameUnready,

    // The cluster.
    /// The API server refuses what Laurel writes.
    ApplyRefused,
    /// Laurel lacks a permission in the cluster.
    ApplyForbidden,
    /// The API server fails or cannot be reached.
    ApplyFailed,

    // Not ours.
    /// What a later release of Laurel wrote, and this one does not know.
    #[serde(other)]
    Unknown,
}

/// What a reason means for the one who reads it. Each reason has one, so that a new one cannot be forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// All is well, or work is under way.
    Normal,
    /// Nothing is wrong, and what is waited for comes by itself.
    Waiting,
    /// Something is wrong, and it may pass by itself.
    Transient,
    /// Something is wrong, and somebody has to do something about it.
    Blocking,
}

impl Reason {
    fn severity(self) -> Severity {
        match self {
            Self::Serving
            | Self::AliasSet
            | Self::Synced
            | Self::ModelSynced
            | Self::Connected
            | Self::GatesPassed
            | Self::ServedBefore
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

            Self::WaitingForPods | Self::RegistryPending | Self::RegistryNotRead => Severity::Waiting,

            Self::RegistryUnreachable
            | Self::RegistryFailing
            | Self::VersionPending
            | Self::SmokeTestUnavailable
            | Self::PodsEvicted
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
            | Self::ApplyRefused
            | Self::ApplyForbidden
            | Self::Unknown => Severity::Blocking,
        }
    }

    /// Whether it passes without anybody changing a wish: the registry or the API server is away, or pods are
    /// still busy. kstatus calls that reconciling; anything else stalls.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self.severity(), Severity::Waiting | Severity::Transient)
    }

    /// Whether the API server did not do what it was asked.
    #[must_use]
    pub fn is_of_the_cluster(self) -> bool {
        matches!(self, Self::ApplyRefused | Self::ApplyForbidden | Self::ApplyFailed)
    }

    /// Whether it speaks of something that somebody may have to do something about.
    #[must_use]
    pub fn needs_attention(self) -> bool {
        matches!(self.severity(), Severity::Transient | Severity::Blocking)
    }
}

/// A reason with its sentence, for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonMessage {
    /// The reason, from the closed list.
    pub reason: Reason,
    /// One sentence that names the object, the field, what was seen and the next step.
    pub message: String,
}

impl ReasonMessage {
    /// A note.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A condition as it should be, without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredCondition {
    /// Its type.
    pub type_: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why.
    pub cause: ReasonMessage,
}

/// The longest message that the API server accepts in a condition is 32,768 bytes; a person reads less.
const MESSAGE_MAX: usize = 2000;

/// `previous` with every wished condition in it. `lastTransitionTime` moves only where the status does;
/// conditions of other types stay as they are.
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

/// `text` cut to at most `max` bytes at a character boundary, with an ellipsis where something was cut.
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
    fn conditions_of_others_survive_and_merging_again_changes_nothing() {
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
