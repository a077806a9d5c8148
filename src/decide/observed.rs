//! The input of a decision: plain data, so that scenarios and bug reports can contain it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    cluster_view::{ClusterView, Traffic, Workload},
    follow::{self, Choice},
    intent::{Desired, Intent, Lifecycle, ServingIntent, StrategyIntent},
    live::LiveView,
    registry_view::{FormerAlias, Outbox, RegistryView, VersionView},
};
use crate::api::{
    ModelAliasStatus,
    condition::Reason,
    model_alias::{KeptAlias, KnownVersion, Rejection},
    names::Version,
};

/// How soon after a question a registry usually answers.
const SOON: SignedDuration = SignedDuration::from_secs(1);

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
    /// What has been counted of the traffic of a version that is judged by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveView>,
    /// The previous status.
    #[serde(default)]
    pub status: ModelAliasStatus,
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
    /// do include the version that the Service selects, so they are not older than the switch. Nor does the
    /// HTTPRoute, if there is one, send it requests any more.
    #[must_use]
    pub fn has_left(&self, version: Version) -> bool {
        let endpoints = &self.cluster.endpoints;
        let is_current = match self.cluster.traffic {
            Traffic::One(serves) => endpoints.contains(&serves) || !self.is_ready(serves),
            Traffic::Nowhere | Traffic::Shared => true,
        };
        is_current && !endpoints.contains(&version) && self.route_has_left(version)
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

    /// Until when an answer of the registry is expected at any moment, if there is one that is waited for.
    #[must_use]
    pub fn reading_until(&self) -> Option<Timestamp> {
        let until = self.registry.reading_since?.checked_add(SOON).unwrap_or(Timestamp::MAX);
        Some(until).filter(|until| *until > self.now)
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
