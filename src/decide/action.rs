//! What a decision consists of.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    GatesReport, Traffic,
    attempt::Attempt,
    cluster_view::OwnObject,
    drift::DriftReport,
    intent::BlockerScope,
    live::{LiveReport, LiveWatch},
    shares::Shares,
};
use crate::api::{
    condition::{ConditionStatus, ReasonMessage},
    model_alias::{CanaryStatus, Rejection, SeenApproval},
    names::{ModelUri, Version},
};

/// One write. The order in which a decision lists them is the order in which they are done; each is safe to
/// repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
pub enum Action {
    /// Add our finalizer to the ModelAlias, or remove it.
    SetFinalizer {
        /// Whether it should be there.
        present: bool,
    },
    /// Make the version's Deployment, or give it today's settings.
    Apply {
        /// The version.
        version: Version,
        /// What its pods load.
        model_uri: ModelUri,
        /// How many pods.
        replicas: u32,
    },
    /// Change the number of the version's pods and nothing else.
    Scale {
        /// The version.
        version: Version,
        /// How many pods.
        replicas: u32,
    },
    /// Begin to send the model's input example to a pod of the version. Its result is observed.
    SmokeTest {
        /// The version.
        version: Version,
        /// The attempt that the result belongs to.
        attempt: Attempt,
    },
    /// Become the owner of an object that was restored from a backup, and change nothing else in it.
    Adopt(OwnObject),
    /// Let the Service send requests there. Never [`Traffic::Nowhere`].
    Route(Traffic),
    /// Let the PodDisruptionBudget protect what requests are sent to. Never [`Traffic::Nowhere`].
    Protect(Traffic),
    /// Delete the PodDisruptionBudget.
    DeleteBudget,
    /// Let the HTTPRoute share the requests in this way.
    Share(Shares),
    /// Delete the HTTPRoute.
    DeleteRoute,
    /// Make the Service of a version, or correct it.
    ApplyVersionService {
        /// The version.
        version: Version,
    },
    /// Delete the Service of a version.
    DeleteVersionService {
        /// The version.
        version: Version,
    },
    /// Delete the version's Deployment.
    Delete {
        /// The version.
        version: Version,
    },
    /// Delete the Service.
    DeleteService,
    /// Fill in `spec.serving.replicas`, which is not set, through the scale subresource.
    FillInReplicas {
        /// How many pods.
        replicas: u32,
    },
    /// Let an alias in the registry name a version. This begins the write; that it was done is read from the
    /// registry.
    SetAlias {
        /// Which of the aliases.
        role: AliasRole,
        /// The version.
        version: Version,
        /// What it named when this was decided. When it names something else by then, nothing is written.
        replaces: Option<Version>,
        /// Whether this undoes what somebody else did.
        corrects: bool,
    },
    /// Remove an alias from the registry.
    DeleteAlias {
        /// Which of the aliases.
        role: AliasRole,
        /// What it named when this was decided. When it names something else by then, nothing is written.
        replaces: Version,
    },
    /// Write an entry of the history into the tags of its version in the registry. This begins the write;
    /// that it was done is observed.
    WriteAudit {
        /// The version.
        version: Version,
        /// The entry's time, which names it.
        at: Timestamp,
    },
}

impl Action {
    /// Whether it is only begun, and continues beside the reconcile, so it must not be reported as done.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        match self {
            Self::SmokeTest { .. }
            | Self::SetAlias { .. }
            | Self::DeleteAlias { role: AliasRole::Former, .. }
            | Self::WriteAudit { .. } => true,
            Self::SetFinalizer { .. }
            | Self::Apply { .. }
            | Self::Scale { .. }
            | Self::Route(_)
            | Self::Share(_)
            | Self::DeleteRoute
            | Self::ApplyVersionService { .. }
            | Self::DeleteVersionService { .. }
            | Self::Delete { .. }
            | Self::DeleteService
            | Self::Adopt(_)
            | Self::Protect(_)
            | Self::DeleteBudget
            | Self::FillInReplicas { .. }
            | Self::DeleteAlias { role: AliasRole::Main | AliasRole::Previous, .. } => false,
        }
    }
}

impl Action {
    /// Whether it is about the PodDisruptionBudget, which nothing else depends on.
    #[must_use]
    pub fn is_about_budget(&self) -> bool {
        matches!(self, Self::Protect(_) | Self::DeleteBudget | Self::Adopt(OwnObject::Budget))
    }

    /// Whether it begins to take the route of somebody else over from the Service with the ModelAlias's name.
    #[must_use]
    pub fn takes_over_route(&self) -> bool {
        matches!(self, Self::Share(shares) if shares.follow_service() && !shares.are_handed_back())
    }

    /// Whether it writes the HTTPRoute.
    fn is_about_route(&self) -> bool {
        matches!(self, Self::Share(_) | Self::DeleteRoute)
    }

    /// Whether it cannot be done because an earlier action of the same decision was not. An object without an
    /// owner holds up only what is written to it, and the Service also what is said of traffic. An HTTPRoute
    /// that cannot be written, or the Service of a version, holds up neither the Service nor pods: a rollback
    /// and a failover inside the cluster do not depend on a Gateway.
    #[must_use]
    pub fn needs(&self, earlier: &Self) -> bool {
        match earlier {
            Self::Protect(_) | Self::DeleteBudget | Self::Adopt(OwnObject::Budget) => self.is_about_budget(),
            Self::Adopt(OwnObject::Deployment(orphan)) => match self {
                Self::Apply { version, .. } | Self::Scale { version, .. } | Self::Delete { version } => {
                    version == orphan
                }
                _ => false,
            },
            Self::Share(_)
            | Self::DeleteRoute
            | Self::ApplyVersionService { .. }
            | Self::DeleteVersionService { .. }
            | Self::Adopt(OwnObject::Route | OwnObject::VersionService(_)) => {
                self.is_about_route()
                    || matches!(self, Self::ApplyVersionService { .. } | Self::DeleteVersionService { .. })
            }
            Self::Adopt(OwnObject::Service) => match self {
                Self::Route(_)
                | Self::DeleteService
                | Self::SetAlias { .. }
                | Self::DeleteAlias { .. }
                | Self::WriteAudit { .. } => true,
                Self::Share(_)
                | Self::DeleteRoute
                | Self::ApplyVersionService { .. }
                | Self::DeleteVersionService { .. }
                | Self::SetFinalizer { .. }
                | Self::Apply { .. }
                | Self::Scale { .. }
                | Self::SmokeTest { .. }
                | Self::Adopt(_)
                | Self::Protect(_)
                | Self::DeleteBudget
                | Self::Delete { .. }
                | Self::FillInReplicas { .. } => false,
            },
            Self::SetFinalizer { .. }
            | Self::Apply { .. }
            | Self::Scale { .. }
            | Self::SmokeTest { .. }
            | Self::Route(_)
            | Self::Delete { .. }
            | Self::DeleteService
            | Self::FillInReplicas { .. }
            | Self::SetAlias { .. }
            | Self::DeleteAlias { .. }
            | Self::WriteAudit { .. } => true,
        }
    }
}

impl BlockerScope {
    /// Whether an action is still allowed.
    #[must_use]
    pub(super) fn allows(self, action: &Action) -> bool {
        match action {
            Action::Route(_) | Action::Share(_) | Action::ApplyVersionService { .. } => self == Self::Changes,
            Action::Scale { .. } | Action::Adopt(_) | Action::Protect(_) => self != Self::Everything,
            Action::SetFinalizer { .. }
            | Action::Apply { .. }
            | Action::SmokeTest { .. }
            | Action::Delete { .. }
            | Action::DeleteService
            | Action::DeleteBudget
            | Action::DeleteRoute
            | Action::DeleteVersionService { .. }
            | Action::FillInReplicas { .. }
            | Action::SetAlias { .. }
            | Action::DeleteAlias { .. }
            | Action::WriteAudit { .. } => false,
        }
    }
}

/// One of the aliases that a ModelAlias keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AliasRole {
    /// `spec.alias`.
    Main,
    /// `spec.previousAlias`.
    Previous,
    /// What `spec.previousAlias` was before: `status.previousAlias`.
    Former,
}

/// The actions, the report and the next wake-up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// The writes, in order.
    pub actions: Vec<Action>,
    /// A version that is given up by this decision. It is written to the status first; what follows from it
    /// is decided from there.
    pub rejection: Option<Rejection>,
    /// The desired version, if known.
    pub target: Option<Version>,
    /// The smoke test that is begun or waited for. Any other is ended.
    pub smoke_test: Option<(Version, Attempt)>,
    /// The version that is to be judged by its live traffic. Any other is judged no longer.
    #[serde(skip)]
    pub live: Option<LiveWatch>,
    /// The step of a canary that the target version is in, for the status.
    pub canary: Option<CanaryStatus>,
    /// What the annotation that approves a version was found to say, for the status.
    pub approval: Option<SeenApproval>,
    /// The report for the status.
    pub report: Report,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// The report on the desired state, for the status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether the desired state is reached.
    pub readiness: Readiness,
    /// Whether a ready version answers.
    #[serde(skip)]
    pub serving: (ConditionStatus, ReasonMessage),
    /// Whether the alias in the registry names what serves.
    #[serde(skip)]
    pub registry: (ConditionStatus, ReasonMessage),
    /// Whether the desired version meets the promotion rules.
    #[serde(skip)]
    pub gates: GatesReport,
    /// What live traffic says about the version that is judged by it.
    #[serde(skip)]
    pub live: LiveReport,
    /// Whether the inputs of the version are as in its training.
    #[serde(skip)]
    pub drift: DriftReport,
    /// Whether the HTTPRoute shares the requests as desired; `None` without one.
    #[serde(skip)]
    pub traffic: Option<(ConditionStatus, ReasonMessage)>,
}

/// Whether the desired state is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Readiness {
    /// It is met.
    Settled(ReasonMessage),
    /// Work is under way, or something is waited for that comes by itself.
    Progressing(ReasonMessage),
    /// Somebody has to do something.
    Stalled(ReasonMessage),
    /// Work is suspended. What was reported before stays as it was.
    Suspended(ReasonMessage),
}

impl Readiness {
    /// Whether the desired state is reached.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Settled(_))
    }

    /// The reason and its sentence.
    #[must_use]
    pub fn cause(&self) -> &ReasonMessage {
        match self {
            Self::Settled(cause)
            | Self::Progressing(cause)
            | Self::Stalled(cause)
            | Self::Suspended(cause) => cause,
        }
    }
}
