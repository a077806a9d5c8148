//! The input of a decision: plain data, so that scenarios and bug reports can contain it.

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
    attempt::SmokeTest,
    follow::{self, Candidates, Choice, Follower},
    gates::Evidence,
};

/// The input of a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The time. A decision reads no clock.
    pub now: Timestamp,
    /// The desired state.
    pub intent: Intent,
    /// The state of the registry.
    pub registry: RegistryView,
    /// The state of the cluster.
    pub cluster: ClusterView,
    /// The state of the audit writes.
    #[serde(default)]
    pub outbox: Outbox,
    /// The previous status.
    #[serde(default)]
    pub status: ModelAliasStatus,
}

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

/// How a version is to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingIntent {
    /// Number of pods.
    pub replicas: u32,
    /// Whether the spec does not set the size, so that `replicas` is [`ClusterView::size`].
    #[serde(default)]
    pub size_is_open: bool,
    /// The fingerprint of all settings that its pods depend on; `None` while they are unknown or not valid.
    /// Pods then keep their settings.
    pub settings: Option<String>,
    /// How versions replace each other.
    pub strategy: StrategyIntent,
    /// The time limit for a start.
    pub progress_deadline: SignedDuration,
    /// How long the previous version stays at full size.
    pub warm_for: SignedDuration,
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

/// The state of the registry. What is missing here is unknown, never absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryView {
    /// Why the registry cannot be read at present. If set, nothing else here can be relied on.
    #[serde(default)]
    pub error: Option<ReasonMessage>,
    /// The version that the alias names.
    #[serde(default)]
    pub alias: Option<Version>,
    /// The version that the previous alias names.
    #[serde(default)]
    pub previous_alias: Option<Version>,
    /// What is known of the alias that was kept on the version that served before, where that is not desired
    /// any more.
    #[serde(default)]
    pub former_alias: Option<FormerAlias>,
    /// The versions that were read.
    #[serde(default)]
    pub versions: BTreeMap<Version, VersionView>,
    /// The versions that a follower chooses from.
    #[serde(default)]
    pub candidates: Candidates,
    /// The aliases that promotion rules refer to, and the versions they name.
    #[serde(default)]
    pub aliases: BTreeMap<String, Version>,
    /// The alias in the registry that differs from ours only in letter case, where ours names no version.
    #[serde(default)]
    pub similar_alias: Option<String>,
    /// The same for the aliases that promotion rules name.
    #[serde(default)]
    pub similar_aliases: BTreeMap<String, String>,
    /// The evidence for promotion rules, of the versions that may have to be judged.
    #[serde(default)]
    pub evidence: BTreeMap<Version, Evidence>,
    /// The version that we set the alias to last, if this process knows: if the alias names it, nobody else
    /// moved it.
    #[serde(default)]
    pub written: Option<Version>,
    /// The same for the previous alias.
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

/// The results of audit writes since this operator started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    /// The final results, by the time of the entry.
    #[serde(default)]
    pub settled: BTreeMap<Timestamp, Recorded>,
    /// Why the last attempt failed.
    #[serde(default)]
    pub error: Option<ReasonMessage>,
}

/// The state of one version in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionView {
    /// A direct read found that the version does not exist.
    Absent,
    /// It could not be read; the cause.
    Unread(ReasonMessage),
    /// Its registration is pending.
    Pending,
    /// Its registration failed.
    Failed,
    /// It can be served.
    Ready {
        /// The model URI that its pods load.
        model_uri: ModelUri,
        /// Whether its audit tags show that it was live under our alias.
        #[serde(default)]
        was_live: bool,
    },
}

/// The state of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Where the Service routes requests.
    #[serde(default)]
    pub traffic: Traffic,
    /// Whether the Service differs from its desired form in more than the selector.
    #[serde(default)]
    pub service_outdated: bool,
    /// What the PodDisruptionBudget protects: what the Service selects, or [`Traffic::Nowhere`] where it
    /// differs from what would be written today; `None` where there is none.
    #[serde(default)]
    pub budget: Option<Traffic>,
    /// The versions whose pods are among the Service's endpoints.
    #[serde(default)]
    pub endpoints: BTreeSet<Version>,
    /// The versions that have a Deployment.
    #[serde(default)]
    pub workloads: BTreeMap<Version, Workload>,
    /// Those of all these objects that belonged to a ModelAlias of this name which is gone, or to nobody: as
    /// after a restore from a backup.
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
    /// Returns the size of a ModelAlias whose spec does not set one: the previously desired size, the number
    /// of pods that answer now, or 1. A version that serves alone never shrinks because of this: a crash may
    /// have kept its last size out of the status.
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

/// Where the Service routes requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Traffic {
    /// There is no Service, or its selector is not one of ours.
    #[default]
    Nowhere,
    /// To one version.
    One(Version),
    /// To every version of the alias, while pods are replaced.
    Shared,
}

impl Traffic {
    /// Whether requests are routed to the version.
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
    /// The desired number of pods.
    pub desired: u32,
    /// All pods, including terminating ones.
    pub pods: u32,
    /// Pods that are ready and not terminating.
    pub ready: u32,
    /// Whether all desired pods are ready, with the settings last applied.
    pub rolled_out: bool,
    /// Whether another client changed the pod template since it was applied.
    #[serde(default)]
    pub edited: bool,
    /// The fingerprint of the settings that were applied.
    pub settings: String,
    /// The model URI that its pods load.
    pub model_uri: ModelUri,
    /// When it was last started or updated to new settings, from the Deployment's annotation.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// The ready pods with the settings that were applied last.
    #[serde(default)]
    pub updated_ready: u32,
    /// The pods with earlier settings that are not ending.
    #[serde(default)]
    pub outdated: u32,
    /// What keeps its pods from being ready.
    #[serde(default)]
    pub error: Option<ReasonMessage>,
    /// The last report of a failing probe of a pod that is not ready. It is not an error: while a model is
    /// loading, its probes fail.
    #[serde(default)]
    pub failing_probe: Option<String>,
    /// Since when a pod has been on a node without being ready; the earliest of several. `None` if there is
    /// no such pod: pods that are rejected or unschedulable prove nothing about the version.
    #[serde(default)]
    pub tried_since: Option<Timestamp>,
    /// Whether one of its pods failed by itself: it was ready, no longer is, and is not terminating. Pods
    /// that were evicted, deleted or lost with their node did not fail, nor did those that have never been
    /// ready.
    #[serde(default)]
    pub has_failed: bool,
    /// Its smoke test; `None` if none was started.
    #[serde(default)]
    pub smoke: Option<SmokeTest>,
}

impl Workload {
    /// The number of ready pods, at most the desired number: right after a scale-down more are ready than
    /// desired.
    #[must_use]
    pub fn counted(&self) -> u32 {
        self.ready.min(self.desired)
    }

    /// Whether it has `replicas` ready pods.
    #[must_use]
    pub fn is_full(&self, replicas: u32) -> bool {
        self.counted() >= replicas
    }
}

impl Observed {
    /// Returns the serving version: the one that the Service selects, or while pods are replaced, or without
    /// a Service, the one in the status. A Service that somebody pointed at a version that is not ready
    /// changes nothing.
    #[must_use]
    pub fn serves(&self) -> Option<Version> {
        let remembered = self.status.version;
        match self.cluster.traffic {
            Traffic::One(version) if remembered.is_none() || self.is_ready(version) => Some(version),
            Traffic::One(_) | Traffic::Shared | Traffic::Nowhere => remembered,
        }
    }

    /// Returns the serving version if the Service selects it alone.
    #[must_use]
    pub fn answers_alone(&self) -> Option<Version> {
        self.serves().filter(|version| self.cluster.traffic == Traffic::One(*version))
    }

    /// Whether the Service's endpoints show that traffic has left a version: they do not include it, and they
    /// do include the version that the Service selects, so they are not older than the switch.
    #[must_use]
    pub fn has_left(&self, version: Version) -> bool {
        let endpoints = &self.cluster.endpoints;
        let is_current = match self.cluster.traffic {
            Traffic::One(serves) => endpoints.contains(&serves) || !self.is_ready(serves),
            Traffic::Nowhere | Traffic::Shared => true,
        };
        is_current && !endpoints.contains(&version)
    }

    /// The alias that was kept on the version that served before, where that is not desired any more: it was
    /// removed from the spec, or renamed.
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

    /// Returns the version that served before. If the status could not be written since traffic moved, that
    /// is the version that it still lists as serving.
    #[must_use]
    pub fn previous(&self) -> Option<Version> {
        self.status
            .version
            .filter(|recorded| Some(*recorded) != self.serves())
            .or(self.status.previous_version)
    }

    /// Whether a version has no pods yet, so that scaling it up begins its start. A change of size in the
    /// middle of a start does not restart it.
    #[must_use]
    pub fn is_at_rest(&self, version: Version) -> bool {
        self.cluster.workloads.get(&version).is_none_or(|workload| workload.desired == 0)
    }

    /// Returns whose pods the status counts and autoscalers measure: those of the serving version, or of all
    /// versions while pods are replaced.
    #[must_use]
    pub fn counted_traffic(&self) -> Traffic {
        match self.cluster.traffic {
            Traffic::Shared => Traffic::Shared,
            Traffic::One(_) | Traffic::Nowhere => self.serves().map_or(Traffic::Nowhere, Traffic::One),
        }
    }

    /// Returns the Deployments whose pods the status counts.
    pub fn counted_workloads(&self) -> impl Iterator<Item = &Workload> {
        let counted = self.counted_traffic();
        self.cluster.workloads.iter().filter(move |(version, _)| counted.reaches(**version)).map(|(_, it)| it)
    }

    /// Returns the versions that the Service routes requests to, with their Deployments.
    pub fn answering(&self) -> impl Iterator<Item = (Version, &Workload)> {
        let traffic = self.cluster.traffic;
        let workloads = self.cluster.workloads.iter().map(|(version, workload)| (*version, workload));
        workloads.filter(move |(version, _)| traffic.reaches(*version))
    }

    /// Whether a version that has served can take over as it is: its ready pods are at least the fewest of
    /// those that answer now, those that are desired and, for a warm version, those it had when traffic left
    /// it.
    #[must_use]
    pub fn can_take_over(&self, version: Version, serving: &ServingIntent) -> bool {
        let Some(workload) = self.cluster.workloads.get(&version) else { return false };
        let answering = self.answering().map(|(_, workload)| workload.ready).fold(0, u32::saturating_add);
        let is_warm = serving.strategy == StrategyIntent::BlueGreen && self.is_as_left(version, workload);
        let left_with = if is_warm { workload.desired } else { u32::MAX };
        let enough = serving.replicas.min(answering).min(left_with).max(1);
        self.has_served(version) && workload.counted() >= enough
    }

    /// Whether the version's pods are still those from when traffic left it: it was not restarted since.
    fn is_as_left(&self, version: Version, workload: &Workload) -> bool {
        let left_at = self.remembered(version).and_then(|held| held.idle_since);
        workload.started_at.zip(left_at).is_some_and(|(started, left)| started <= left)
    }

    /// Returns the version that takes over while no version answers: one that has served and has a ready pod.
    /// `goal` comes first, then the one that served last.
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

    /// Whether the Service selects a ready pod.
    #[must_use]
    pub fn somebody_answers(&self) -> bool {
        self.answering().any(|(_, workload)| workload.ready > 0)
    }

    /// Returns the status entry of a version.
    #[must_use]
    pub fn remembered(&self, version: Version) -> Option<&KnownVersion> {
        self.status.versions.iter().find(|held| held.version == version)
    }

    /// Whether the version has served before, or does now.
    #[must_use]
    pub fn has_served(&self, version: Version) -> bool {
        self.cluster.traffic == Traffic::One(version)
            || self.remembered(version).is_some_and(|held| held.served_at.is_some())
    }

    /// Returns the versions that our aliases name and that were live under them according to the registry's
    /// audit tags: in another cluster, or in this one before it was rebuilt.
    pub fn live_versions(&self) -> impl Iterator<Item = Version> {
        let RegistryView { error, alias, previous_alias, versions, .. } = &self.registry;
        let was_live = |version: &Version| {
            error.is_none()
                && matches!(versions.get(version), Some(VersionView::Ready { was_live: true, .. }))
        };
        [*alias, *previous_alias].into_iter().flatten().filter(was_live)
    }

    /// Whether the version has served before, here or elsewhere.
    #[must_use]
    pub fn has_been_live(&self, version: Version) -> bool {
        self.has_served(version) || self.live_versions().any(|live| live == version)
    }

    /// Returns when the version was last started: now, if a retry is requested or the known start was with
    /// other settings. If a crash kept the last start out of the status, the Deployment's annotation counts.
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

    /// Whether a retry is requested that was not acted on yet and is possible now. Until then the request
    /// stays pending.
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

    /// Whether the followed source requests a version that is not in the status yet. It is written to the
    /// status before anything is done: after a crash the registry may not answer, and the status is then the
    /// only trace of what was begun.
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

    /// Returns the rejection that holds the version back, if any. Settings other than those it failed with
    /// are a new attempt; while the settings are unknown, there is none. Rejections by promotion rules do not
    /// count: the rules hold the version back themselves.
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
