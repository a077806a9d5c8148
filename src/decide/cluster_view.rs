//! What the cluster shows of one ModelAlias's objects: plain data.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{attempt::SmokeTest, shares::Shares};
use crate::api::{
    ModelAliasStatus,
    condition::ReasonMessage,
    model_alias::{REPLICAS_MAX, RouteRevision},
    names::{ModelUri, Version},
};

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
    /// Whether it is not known if there is a PodDisruptionBudget: Laurel may not read them.
    #[serde(default)]
    pub budget_is_unknown: bool,
    /// The versions whose pods are among the Service's endpoints.
    #[serde(default)]
    pub endpoints: BTreeSet<Version>,
    /// The versions that have a Deployment.
    #[serde(default)]
    pub workloads: BTreeMap<Version, Workload>,
    /// The HTTPRoute, if there is one.
    #[serde(default)]
    pub route: Option<RouteView>,
    /// Why HTTPRoutes cannot be used here; if it is set, it is not known whether there is one.
    #[serde(default)]
    pub route_error: Option<ReasonMessage>,
    /// The versions that have a Service of their own, for the route to name.
    #[serde(default)]
    pub version_services: BTreeMap<Version, VersionService>,
    /// The challengers that the spec or the route names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub challengers: BTreeMap<String, ChallengerView>,
    /// The `ModelAliases` that name this one as a challenger.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub champions: BTreeMap<String, ChampionView>,
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
    /// The HTTPRoute.
    Route,
    /// The Service of a version.
    VersionService(Version),
}

/// The HTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    /// The weights that it has.
    pub shares: Shares,
    /// Whether it differs from its desired form in more than the weights.
    #[serde(default)]
    pub outdated: bool,
    /// Its current revision.
    pub revision: RouteRevision,
    /// Why not every parent has accepted this revision yet; `None` once they have. That the data plane uses
    /// it is not known even then.
    #[serde(default)]
    pub pending: Option<String>,
    /// How it belongs to somebody else; `None` if Laurel renders it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referred: Option<ReferredRoute>,
}

/// The HTTPRoute of somebody else, of which Laurel manages the backends of one ModelAlias.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferredRoute {
    /// Its name.
    pub name: String,
    /// Why requests cannot be shared in it as it is.
    #[serde(default)]
    pub unusable: Option<String>,
    /// The last client that wrote its rules, if that is not Laurel.
    #[serde(default)]
    pub written_by: Option<String>,
}

/// The Service of one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionService {
    /// Whether it differs from its desired form.
    #[serde(default)]
    pub outdated: bool,
    /// Whether it has a ready endpoint.
    #[serde(default)]
    pub has_endpoints: bool,
}

/// A challenger: another ModelAlias, as far as its champion depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengerView {
    /// Its Service, if that selects a version.
    #[serde(default)]
    pub service: Option<ChallengerService>,
    /// Why it gets no share whatever its Service does: it does not exist, or is being deleted.
    #[serde(default)]
    pub excluded: Option<String>,
}

/// The Service of a challenger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengerService {
    /// The version that it selects. While pods are exchanged it is the one that the challenger's status
    /// shows.
    pub version: Version,
    /// Its port.
    pub port: u16,
    /// Whether it has a ready endpoint.
    pub has_endpoints: bool,
}

/// A ModelAlias that gives this one a share of its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChampionView {
    /// Its route, if there is one.
    #[serde(default)]
    pub route: Option<ChampionRoute>,
}

/// The route of a champion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChampionRoute {
    /// Whether it names the Service of this ModelAlias.
    #[serde(default)]
    pub names_it: bool,
    /// When its parents accepted it as it is now.
    #[serde(default)]
    pub accepted_at: Option<Timestamp>,
}

impl ClusterView {
    /// Returns the size of a ModelAlias whose spec does not set one: the previously desired size, the number
    /// of pods that answer now, or 1. A version that serves alone never shrinks because of this, even if its
    /// Service has been deleted: a crash may have kept its last size out of the status.
    #[must_use]
    pub fn size(&self, previous: &ModelAliasStatus) -> u32 {
        let serves = |version: Version| match self.traffic {
            Traffic::Nowhere => previous.version == Some(version),
            Traffic::One(_) | Traffic::Shared => self.traffic.reaches(version),
        };
        let serving = self.workloads.iter().filter(|(version, _)| serves(**version));
        let size = serving.map(|(_, workload)| workload.desired).fold(0, u32::saturating_add);
        let size = match (previous.desired_replicas, self.traffic) {
            (Some(known), Traffic::One(_) | Traffic::Nowhere) => known.max(size),
            (Some(known), Traffic::Shared) => known,
            (None, _) => size,
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
