//! What a decision is made from: plain data, so that a scenario can be written down and a bug report can carry it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::{
    ModelAliasStatus,
    condition::{Reason, ReasonMessage},
    model_alias::{Drift, KeptAlias, KnownVersion, OnUnavailable, REPLICAS_MAX, Recorded, Rejection},
    names::{AliasName, ModelUri, Version},
    promotion::PromotionRule,
};

use super::{
    Action,
    follow::{self, Candidates, Choice, Follower},
    gates::Evidence,
    smoke_test::SmokeTest,
};

/// All that a decision may know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The time. A decision reads no clock.
    pub now: Timestamp,
    /// What is wished.
    pub intent: Intent,
    /// What the registry says.
    pub registry: RegistryView,
    /// What the cluster shows.
    pub cluster: ClusterView,
    /// What became of the history's way into the registry.
    #[serde(default)]
    pub outbox: Outbox,
    /// What the status remembers.
    #[serde(default)]
    pub status: ModelAliasStatus,
}

/// What is wished, checked and with its references followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Who chooses the version.
    pub desired: Desired,
    /// How it serves; `None` when only the alias in the registry is kept.
    #[serde(default)]
    pub serving: Option<ServingIntent>,
    /// The alias that is kept on the version that served before.
    #[serde(default)]
    pub previous_alias: Option<AliasName>,
    /// What to do about an alias that somebody moved by hand.
    pub drift: Drift,
    /// Whether work is wanted at all.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Whether the alias in the registry goes when the object goes.
    #[serde(default)]
    pub deletes_alias: bool,
    /// Whether the object carries our finalizer.
    #[serde(default)]
    pub has_finalizer: bool,
    /// The promotion rules for the alias.
    #[serde(default)]
    pub rules: Vec<PromotionRule>,
    /// The value of the annotation that asks to try again.
    #[serde(default)]
    pub retry: Option<String>,
    /// Who last decided about the version in the spec, where the API server said so.
    #[serde(default)]
    pub changed_by: Option<String>,
    /// The Git commit that the spec says it comes from.
    #[serde(default)]
    pub commit: Option<String>,
    /// What blocks work on this object, for instance another owner of the alias.
    #[serde(default)]
    pub blocker: Option<Blocker>,
}

/// What blocks work on a ModelAlias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// Why, and what to do about it.
    pub cause: ReasonMessage,
    /// How much of the work it blocks.
    pub scope: BlockerScope,
}

/// How much of the work is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockerScope {
    /// Starting pods with anything new, and writing to the registry. Traffic and the size of the Deployments that exist are not
    /// blocked: a rollback, a failover and a restored Service need nothing that could be missing.
    Changes,
    /// The same, and writing the Service, which belongs to somebody else.
    ChangesAndService,
    /// Everything: what the cluster looks like is not known.
    Everything,
}

impl BlockerScope {
    /// Whether an action may be performed nevertheless.
    #[must_use]
    pub(super) fn allows(self, action: &Action) -> bool {
        match action {
            Action::Route(_) => self == Self::Changes,
            Action::Scale { .. } | Action::Adopt(_) | Action::Protect(_) => self != Self::Everything,
            Action::SetFinalizer { .. }
            | Action::Apply { .. }
            | Action::SmokeTest { .. }
            | Action::Delete { .. }
            | Action::DeleteService
            | Action::DeleteBudget
            | Action::FillInReplicas { .. }
            | Action::SetAlias { .. }
            | Action::DeleteAlias { .. }
            | Action::Record { .. } => false,
        }
    }
}

/// Who chooses the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// `spec.version`.
    Version(Version),
    /// The alias in the registry.
    Registry,
    /// What a follower chooses from the model's versions.
    Chosen(Follower),
}

/// Whether work is wanted.
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

/// How a version is to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingIntent {
    /// How many pods.
    pub replicas: u32,
    /// Whether the spec does not say how many, so that `replicas` is [`ClusterView::size`].
    #[serde(default)]
    pub size_is_open: bool,
    /// The fingerprint of all settings that its pods depend on; `None` while they are not known or cannot be used. Pods then keep
    /// the settings that they have.
    pub settings: Option<String>,
    /// How versions give way to each other.
    pub strategy: StrategyIntent,
    /// How long a start may take.
    pub progress_deadline: SignedDuration,
    /// How long the previous version stays at full size.
    pub warm_for: SignedDuration,
    /// How many versions are kept scaled to zero.
    pub history: usize,
    /// The check before a version's first traffic.
    pub smoke_test: SmokeTestIntent,
}

/// The check before a version's first traffic: a pod has to answer the version's own input example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeTestIntent {
    /// Whether it is asked for.
    pub is_enabled: bool,
    /// How long the answer may take.
    pub timeout: SignedDuration,
    /// What becomes of a version whose test cannot be done.
    pub on_unavailable: OnUnavailable,
}

impl ServingIntent {
    /// Whether the pods of a Deployment are to be started anew, with other settings or another model, or because somebody else
    /// changed what they run.
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

/// How versions give way to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrategyIntent {
    /// All of the new version first, then traffic moves at once.
    BlueGreen,
    /// A few pods at a time.
    Rolling {
        /// How many pods there may be above `replicas`; at least 1.
        max_surge: u32,
    },
}

/// What the registry says. What is not here is unknown, never absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryView {
    /// Why the registry's answers cannot be had now. With it, nothing else here is to be believed.
    #[serde(default)]
    pub error: Option<ReasonMessage>,
    /// The version that the alias names.
    #[serde(default)]
    pub alias: Option<Version>,
    /// The version that the previous alias names.
    #[serde(default)]
    pub previous_alias: Option<Version>,
    /// What is known of the alias that was kept on the version that served before, where that is not desired any more.
    #[serde(default)]
    pub former_alias: Option<FormerAlias>,
    /// The versions that were asked for.
    #[serde(default)]
    pub versions: BTreeMap<Version, VersionView>,
    /// The versions that a follower chooses from.
    #[serde(default)]
    pub candidates: Candidates,
    /// The aliases that promotion rules speak of, and what they name.
    #[serde(default)]
    pub aliases: BTreeMap<String, Version>,
    /// What the promotion rules judge versions by: those that may have to be judged.
    #[serde(default)]
    pub evidence: BTreeMap<Version, Evidence>,
    /// The version that we let the alias name last, as far as it is remembered: what the alias names then is nobody else's
    /// doing.
    #[serde(default)]
    pub written: Option<Version>,
    /// The same of the previous alias.
    #[serde(default)]
    pub previous_written: Option<Version>,
}

/// What is known of an alias that is not desired any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormerAlias {
    /// It belongs to another ModelAlias now, or is the main alias of this one.
    Claimed,
    /// It names this version.
    Names(Option<Version>),
}

/// What became of the entries of the history that were to be written into the registry's tags, since this operator began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    /// Those of which that is settled, by their time.
    #[serde(default)]
    pub settled: BTreeMap<Timestamp, Recorded>,
    /// Why the last try failed.
    #[serde(default)]
    pub error: Option<ReasonMessage>,
}

/// What the registry says of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionView {
    /// It said itself that the version does not exist.
    Absent,
    /// It could not be read, and why.
    Unread(ReasonMessage),
    /// It is still being taken in.
    Pending,
    /// Its registration failed.
    Failed,
    /// It can be served.
    Ready {
        /// What its pods load.
        model_uri: ModelUri,
        /// Whether its audit tags say that it was live under our alias.
        #[serde(default)]
        was_live: bool,
    },
}

/// What the cluster shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Where the Service sends requests.
    #[serde(default)]
    pub traffic: Traffic,
    /// Whether the Service differs from what would be written today in more than its selector.
    #[serde(default)]
    pub service_outdated: bool,
    /// What the PodDisruptionBudget protects: what the Service selects, or [`Traffic::Nowhere`] where it differs from what would be
    /// written today; `None` where there is none.
    #[serde(default)]
    pub budget: Option<Traffic>,
    /// The versions whose pods are among the Service's endpoints.
    #[serde(default)]
    pub endpoints: BTreeSet<Version>,
    /// The versions that have a Deployment.
    #[serde(default)]
    pub workloads: BTreeMap<Version, Workload>,
    /// Those of all these objects that belonged to a ModelAlias of this name which is gone, or to nobody: as after a restore from
    /// a backup.
    #[serde(default)]
    pub orphans: BTreeSet<OwnObject>,
}

/// One of the objects that belong to a ModelAlias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OwnObject {
    /// The Service.
    Service,
    /// The PodDisruptionBudget.
    Budget,
    /// The Deployment of a version.
    Deployment(Version),
}

impl ClusterView {
    /// How many pods a ModelAlias has whose spec does not say it: as many as it was to have before, or as answer now, or
    /// one. What answers alone never shrinks for that: a crash may have kept its last size from the status.
    #[must_use]
    pub fn size(&self, previous: &ModelAliasStatus) -> u32 {
        let reached = self.workloads.iter().filter(|(version, _)| self.traffic.reaches(**version));
        let answering = reached.map(|(_, workload)| workload.desired).fold(0, u32::saturating_add);
        let size = match (previous.desired_replicas, self.traffic) {
            (Some(known), Traffic::One(_)) => known.max(answering),
            (Some(known), Traffic::Shared | Traffic::Nowhere) => known,
            (None, _) => answering,
        };
        size.clamp(1, REPLICAS_MAX)
    }
}

/// Where the Service sends requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Traffic {
    /// There is no Service, or its selector is none of ours.
    #[default]
    Nowhere,
    /// To one version.
    One(Version),
    /// To every version of the alias, while pods are exchanged.
    Shared,
}

impl Traffic {
    /// Whether requests are sent to the version.
    #[must_use]
    pub fn reaches(self, version: Version) -> bool {
        match self {
            Self::One(selected) => version == selected,
            Self::Shared => true,
            Self::Nowhere => false,
        }
    }
}

/// A version's Deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The number of pods asked for.
    pub desired: u32,
    /// The pods there are, also those that are ending.
    pub pods: u32,
    /// The pods that are ready and not ending.
    pub ready: u32,
    /// Whether every pod asked for is ready, with the settings last applied.
    pub rolled_out: bool,
    /// Whether somebody else changed what its pods run since it was applied.
    #[serde(default)]
    pub edited: bool,
    /// The fingerprint of the settings that were applied.
    pub settings: String,
    /// What its pods load.
    pub model_uri: ModelUri,
    /// When it was last started or given new settings, as the Deployment itself says.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// What keeps its pods from being ready.
    #[serde(default)]
    pub error: Option<ReasonMessage>,
    /// Since when a pod has been on a node without being ready; of several, the first one. `None` where there is no such pod: pods
    /// that are refused, or that no node takes, say nothing about the version.
    #[serde(default)]
    pub tried_since: Option<Timestamp>,
    /// Whether one of its pods failed by itself: it was ready, is not any more, and is not ending. Pods that were evicted,
    /// deleted or lost with their node did not fail, and neither did those that have not been ready yet.
    #[serde(default)]
    pub has_failed: bool,
    /// Its smoke test; `None` when none was begun.
    #[serde(default)]
    pub smoke: Option<SmokeTest>,
}

impl Workload {
    /// The ready pods among those that are still wanted. Right after a scale-down more are ready than are wanted.
    #[must_use]
    pub fn counted(&self) -> u32 {
        self.ready.min(self.desired)
    }

    /// Whether it is ready at `replicas` pods.
    #[must_use]
    pub fn is_full(&self, replicas: u32) -> bool {
        self.counted() >= replicas
    }
}

impl Observed {
    /// The version that serves: the one that the Service selects; while pods are exchanged, or without a Service, the one
    /// that the status remembers. A Service that somebody pointed at what is not ready changes nothing.
    #[must_use]
    pub fn serves(&self) -> Option<Version> {
        let remembered = self.status.version;
        match self.cluster.traffic {
            Traffic::One(version) if remembered.is_none() || self.is_ready(version) => Some(version),
            Traffic::One(_) | Traffic::Shared | Traffic::Nowhere => remembered,
        }
    }

    /// The version that serves, where the Service selects it alone.
    #[must_use]
    pub fn answers_alone(&self) -> Option<Version> {
        self.serves().filter(|version| self.cluster.traffic == Traffic::One(*version))
    }

    /// Whether the Service's endpoints show that requests have left a version: they do not name it, and they do name what the
    /// Service selects, so they are not from a time before that.
    #[must_use]
    pub fn has_left(&self, version: Version) -> bool {
        let endpoints = &self.cluster.endpoints;
        let is_current = match self.cluster.traffic {
            Traffic::One(serves) => endpoints.contains(&serves) || !self.is_ready(serves),
            Traffic::Nowhere | Traffic::Shared => true,
        };
        is_current && !endpoints.contains(&version)
    }

    /// The alias that was kept on the version that served before, where that is not desired any more: it was removed from the spec,
    /// or renamed.
    #[must_use]
    pub fn former_alias(&self) -> Option<&KeptAlias> {
        let kept = self.status.previous_alias.as_ref();
        kept.filter(|kept| self.intent.previous_alias.as_ref() != Some(&kept.alias))
    }

    /// The version that the former alias names because Laurel let it.
    #[must_use]
    pub fn former_alias_names(&self) -> Option<Version> {
        match self.registry.former_alias {
            Some(FormerAlias::Names(named)) if self.registry.error.is_none() => {
                named.filter(|named| self.former_alias().is_some_and(|kept| kept.versions.contains(named)))
            }
            _ => None,
        }
    }

    /// Whether the version has a ready pod.
    #[must_use]
    pub fn is_ready(&self, version: Version) -> bool {
        self.cluster.workloads.get(&version).is_some_and(|workload| workload.ready > 0)
    }

    /// The version that served before. When the status does not know yet that traffic has moved, because it could not be
    /// written since, that is the one it still says to serve.
    #[must_use]
    pub fn previous(&self) -> Option<Version> {
        self.status
            .version
            .filter(|recorded| Some(*recorded) != self.serves())
            .or(self.status.previous_version)
    }

    /// Whether a version has no pods yet, so that more of them begin its start. A change of size in the middle of a start does not
    /// begin it anew.
    #[must_use]
    pub fn is_at_rest(&self, version: Version) -> bool {
        self.cluster.workloads.get(&version).is_none_or(|workload| workload.desired == 0)
    }

    /// Whose pods the status counts and autoscalers measure: those of what serves, and of all versions while pods are exchanged.
    #[must_use]
    pub fn counted_traffic(&self) -> Traffic {
        match self.cluster.traffic {
            Traffic::Shared => Traffic::Shared,
            Traffic::One(_) | Traffic::Nowhere => self.serves().map_or(Traffic::Nowhere, Traffic::One),
        }
    }

    /// The Deployments whose pods the status counts.
    pub fn counted_workloads(&self) -> impl Iterator<Item = &Workload> {
        let counted = self.counted_traffic();
        self.cluster.workloads.iter().filter(move |(version, _)| counted.reaches(**version)).map(|(_, it)| it)
    }

    /// The versions that the Service sends requests to, with their Deployments.
    pub fn answering(&self) -> impl Iterator<Item = (Version, &Workload)> {
        let traffic = self.cluster.traffic;
        let workloads = self.cluster.workloads.iter().map(|(version, workload)| (*version, workload));
        workloads.filter(move |(version, _)| traffic.reaches(*version))
    }

    /// Whether a version that has served can take over as it is: with as many ready pods as answer now, or as are desired, or, of
    /// a warm version, as it had when traffic left it, whichever is the fewest.
    #[must_use]
    pub fn can_take_over(&self, version: Version, serving: &ServingIntent) -> bool {
        let Some(workload) = self.cluster.workloads.get(&version) else { return false };
        let others = self.answering().filter(|(other, _)| *other != version);
        let answering = others.map(|(_, other)| other.ready).fold(0, u32::saturating_add);
        let is_warm = serving.strategy == StrategyIntent::BlueGreen && self.is_as_left(version, workload);
        let left_with = if is_warm { workload.desired } else { u32::MAX };
        let enough = serving.replicas.min(answering).min(left_with).max(1);
        self.has_served(version) && workload.counted() >= enough
    }

    /// Whether the version's pods are those that were there when traffic left it: they have not been started again since.
    fn is_as_left(&self, version: Version, workload: &Workload) -> bool {
        let left_at = self.remembered(version).and_then(|held| held.idle_since);
        workload.started_at.zip(left_at).is_some_and(|(started, left)| started <= left)
    }

    /// The version that takes over while nobody answers: any one that has served and has a ready pod. First comes `goal`, then
    /// what served last.
    #[must_use]
    pub fn stand_in(&self, goal: Option<Version>) -> Option<Version> {
        if self.somebody_answers() {
            return None;
        }
        let workloads = self.cluster.workloads.iter();
        let ready = workloads.filter(|(_, workload)| workload.counted() > 0).map(|(version, _)| *version);
        let last_used = |version: Version| self.remembered(version).and_then(|held| held.idle_since);
        ready.filter(|version| self.has_served(*version)).max_by_key(|version| {
            let version = Some(*version);
            let is_previous = version == self.previous();
            (
                version == goal,
                version == self.status.version,
                is_previous,
                version.and_then(last_used),
                version,
            )
        })
    }

    /// Whether a ready pod is among those that the Service selects.
    #[must_use]
    pub fn somebody_answers(&self) -> bool {
        self.answering().any(|(_, workload)| workload.ready > 0)
    }

    /// What the status remembers of a version.
    #[must_use]
    pub fn remembered(&self, version: Version) -> Option<&KnownVersion> {
        self.status.versions.iter().find(|held| held.version == version)
    }

    /// Whether the version has answered requests before, or does now.
    #[must_use]
    pub fn has_served(&self, version: Version) -> bool {
        self.cluster.traffic == Traffic::One(version)
            || self.remembered(version).is_some_and(|held| held.served_at.is_some())
    }

    /// The versions that our aliases name and that were live under them, as the registry's audit tags say: in another cluster, or
    /// in this one before it was made anew.
    pub fn live_versions(&self) -> impl Iterator<Item = Version> {
        let RegistryView { error, alias, previous_alias, versions, .. } = &self.registry;
        let was_live = |version: &Version| {
            error.is_none()
                && matches!(versions.get(version), Some(VersionView::Ready { was_live: true, .. }))
        };
        [*alias, *previous_alias].into_iter().flatten().filter(was_live)
    }

    /// Whether the version has answered requests before, here or elsewhere.
    #[must_use]
    pub fn has_been_live(&self, version: Version) -> bool {
        self.has_served(version) || self.live_versions().any(|live| live == version)
    }

    /// When the version was last started; now, when somebody asks to try again, or when what is remembered is about other
    /// settings. Where a crash kept the last start from the status, the Deployment remembers it.
    #[must_use]
    pub fn started_at(&self, version: Version) -> Timestamp {
        let workload = self.cluster.workloads.get(&version);
        let settings = workload.map(|workload| &workload.settings);
        let held = self.remembered(version).filter(|held| held.settings.as_ref() == settings);
        match held.and_then(|held| held.started_at) {
            Some(started) if !self.retry_is_asked() => {
                workload.and_then(|workload| workload.started_at).map_or(started, |again| started.max(again))
            }
            _ => self.now,
        }
    }

    /// Whether somebody asks to try again, it was not done yet, and it can be done now. Until it can, the question stands.
    #[must_use]
    pub fn retry_is_asked(&self) -> bool {
        let intent = &self.intent;
        intent.retry.is_some()
            && intent.retry != self.status.retried
            && intent.lifecycle == Lifecycle::Active
            && intent.blocker.is_none()
            && self.registry.error.is_none()
            && !self.desired_is_new()
    }

    /// Whether what is followed asks for another version than the status says. That is written down before anything is done
    /// about it: after a crash the registry may not answer, and the status is then all that tells what was begun.
    #[must_use]
    pub fn desired_is_new(&self) -> bool {
        let RegistryView { error, alias, .. } = &self.registry;
        let asked = match &self.intent.desired {
            Desired::Version(_) => None,
            Desired::Registry => *alias,
            Desired::Chosen(follower) => match follow::target(self, follower) {
                Choice::Version(version) => Some(version),
                Choice::Unknown(_) | Choice::Nobody(_) => None,
            },
        };
        error.is_none() && asked.is_some() && asked != self.status.target_version
    }

    /// The rejection that holds the version back, if one does. Settings other than those it failed with are another
    /// try; while the settings are not known, there is none. What the promotion rules refused, they hold back themselves, for as long as they do.
    #[must_use]
    pub fn rejection(&self, version: Version, settings: Option<&str>) -> Option<&Rejection> {
        let holds = |rejection: &&Rejection| {
            rejection.version == version
                && rejection.active
                && settings.is_none_or(|settings| rejection.settings == settings)
                && rejection.reason != Reason::GatesFailed
        };
        self.status.rejected.iter().find(holds).filter(|_| !self.retry_is_asked())
    }
}
