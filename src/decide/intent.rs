//! What is desired, and what blocks it: plain data.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{cluster_view::Workload, follow::Follower, shares::Shares};
use crate::api::{
    condition::ReasonMessage,
    model_alias::{Drift, OnUnavailable},
    names::{AliasName, ModelUri, Version},
    promotion::PromotionRule,
    traffic::RouteReference,
};

/// The desired state, validated and with its references followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// What chooses the version.
    pub desired: Desired,
    /// How it serves; `None` when only the alias in the registry is kept.
    #[serde(default)]
    pub serving: Option<ServingIntent>,
    /// The alias that is kept on the previous version.
    #[serde(default)]
    pub previous_alias: Option<AliasName>,
    /// What to do about an alias that somebody moved by hand.
    pub drift: Drift,
    /// Whether work is requested at all.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Whether the alias in the registry is deleted with the object.
    #[serde(default)]
    pub deletes_alias: bool,
    /// Whether the object carries our finalizer.
    #[serde(default)]
    pub has_finalizer: bool,
    /// The promotion rules for the alias.
    #[serde(default)]
    pub rules: Vec<PromotionRule>,
    /// The value of the retry annotation.
    #[serde(default)]
    pub retry: Option<String>,
    /// The annotation that approves a version.
    #[serde(default)]
    pub approval: Option<ApprovalIntent>,
    /// Who last changed the version in the spec, if the API server recorded it.
    #[serde(default)]
    pub changed_by: Option<String>,
    /// The Git commit that the spec was applied from.
    #[serde(default)]
    pub commit: Option<String>,
    /// What blocks work on this object, for instance another owner of the alias.
    #[serde(default)]
    pub blocker: Option<Blocker>,
}

/// What blocks work on a ModelAlias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// The cause and the next step.
    pub cause: ReasonMessage,
    /// How much of the work it blocks.
    pub scope: BlockerScope,
}

/// How much of the work is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockerScope {
    /// Starting pods with anything new, and writing to the registry. Traffic to, and the size of, existing
    /// Deployments are not blocked: a rollback, a failover and a restored Service need nothing that could be
    /// missing.
    Changes,
    /// The same, and writing the Service, which has another owner.
    ChangesAndService,
    /// Everything: the state of the cluster is not known.
    Everything,
}

/// What chooses the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// `spec.version`.
    Version(Version),
    /// The alias in the registry.
    Registry,
    /// What a follower chooses from the model's versions.
    Chosen(Follower),
}

/// Whether work is requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifecycle {
    /// It is.
    #[default]
    Active,
    /// `spec.suspend` is true.
    Suspended,
    /// The object is being deleted.
    Deleting {
        /// Since when.
        since: Timestamp,
    },
}

fn counts_requests() -> bool {
    true
}

/// How a version is to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingIntent {
    /// Number of pods.
    pub replicas: u32,
    /// Whether the spec does not set the size, so that `replicas` is
    /// [`ClusterView::size`](super::ClusterView::size).
    #[serde(default)]
    pub size_is_open: bool,
    /// The fingerprint of all settings that its pods depend on; `None` while they are unknown or not valid.
    /// Pods then keep their settings.
    pub settings: Option<String>,
    /// How versions replace each other.
    pub strategy: StrategyIntent,
    /// Whether an HTTPRoute shares the requests among versions.
    #[serde(default)]
    pub routed: bool,
    /// The HTTPRoute of somebody else that does so; `None` if Laurel renders one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_ref: Option<RouteReference>,
    /// The shares that a version which has not served gets, one after the other, before it gets everything.
    #[serde(default)]
    pub steps: Vec<StepIntent>,
    /// The other `ModelAliases` that get a share of the requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub challengers: Vec<ChallengerIntent>,
    /// The time limit for a start.
    pub progress_deadline: SignedDuration,
    /// How long the previous version stays at full size.
    pub warm_for: SignedDuration,
    /// Whether its pods count requests, so that live rules can judge it.
    #[serde(default = "counts_requests")]
    pub counts_requests: bool,
    /// How long a version is judged by live rules after it got all traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch_for: Option<SignedDuration>,
    /// The number of versions to keep scaled to zero.
    pub history: usize,
    /// The check before a version's first traffic.
    pub smoke_test: SmokeTestIntent,
}

/// The check before a version's first traffic: a pod has to answer the version's own input example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeTestIntent {
    /// Whether it is enabled.
    pub is_enabled: bool,
    /// The time limit for the response.
    pub timeout: SignedDuration,
    /// What to do with a version whose test cannot run.
    pub on_unavailable: OnUnavailable,
}

impl ServingIntent {
    /// Whether the pods of a Deployment have to be restarted, with other settings or another model, or
    /// because another client changed their template.
    pub(super) fn replaces(&self, workload: &Workload, model_uri: &ModelUri) -> bool {
        let is_outdated = |settings: &String| {
            *settings != workload.settings || *model_uri != workload.model_uri || workload.edited
        };
        self.settings.as_ref().is_some_and(is_outdated)
    }

    /// The settings that a version has, or would be started with.
    pub(super) fn settings_of<'a>(&'a self, workload: Option<&'a Workload>) -> Option<&'a str> {
        workload.map(|workload| workload.settings.as_str()).or(self.settings.as_deref())
    }
}

/// One step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepIntent {
    /// What the version gets.
    pub share: ShareIntent,
    /// How long the version keeps this share at least.
    pub at_least: SignedDuration,
    /// How long the step may wait for its approval.
    #[serde(default)]
    pub at_most: Option<SignedDuration>,
    /// Whether the step ends only with an approval.
    #[serde(default)]
    pub needs_approval: bool,
}

/// What a version gets in a step, or a challenger for long, in per cent of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ShareIntent {
    /// It answers them; at most 50.
    Weight(u32),
    /// It gets copies, and its answers are dropped.
    Mirror(u32),
}

impl ShareIntent {
    /// Returns the weight in the route.
    pub(super) const fn weight(self) -> u32 {
        match self {
            Self::Weight(per_cent) => per_cent * (Shares::WHOLE / 100),
            Self::Mirror(_) => 0,
        }
    }

    /// Returns how many of the requests are copied, in per cent.
    pub(super) const fn mirror(self) -> Option<u32> {
        match self {
            Self::Weight(_) => None,
            Self::Mirror(per_cent) => Some(per_cent),
        }
    }
}

/// The value of the annotation that approves a version, and who set it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalIntent {
    /// The value.
    pub value: String,
    /// The field manager that set it, if the API server recorded one.
    pub manager: Option<String>,
    /// When that one last changed the object.
    pub at: Option<Timestamp>,
}

/// Another ModelAlias that gets a share of the requests, or copies of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChallengerIntent {
    /// Its name, in the same namespace.
    pub name: String,
    /// What it gets. The weights of all of them are at most 50 together.
    pub share: ShareIntent,
}

/// How versions replace each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrategyIntent {
    /// All pods of the new version start first, then traffic switches at once.
    BlueGreen,
    /// A few pods at a time.
    Rolling {
        /// The maximum number of pods above `replicas`; at least 1.
        max_surge: u32,
    },
}
