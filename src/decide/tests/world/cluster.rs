//! The cluster: Deployments, their pods, one Service with its endpoints, and Kubernetes' own controllers.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Pace, gateway::Gateway};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{ModelUri, Version},
    },
    decide::{ClusterView, OwnObject, Traffic, Workload},
};

/// How a version's pods behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::decide::tests) enum Fate {
    /// They are ready a moment after they were created.
    #[default]
    Good,
    /// They are not ready, without a reported cause.
    NeverReady,
    /// They are not ready, and their containers report why.
    Crashes,
    /// One of the existing pods is not ready.
    OneDown,
    /// They are ready, but return an error for their input example.
    FailsSmokeTest,
    /// They are ready, but the operator's requests do not reach them.
    Unreachable,
    /// No node has room for those that are created from now on.
    NoRoom,
}

impl Fate {
    fn is_ready(self) -> bool {
        match self {
            Self::NeverReady | Self::Crashes | Self::NoRoom => false,
            Self::Good | Self::OneDown | Self::FailsSmokeTest | Self::Unreachable => true,
        }
    }

    /// Whether that is an error of the version itself.
    pub(super) fn is_failure(self) -> bool {
        match self {
            Self::Good | Self::NoRoom | Self::Unreachable => false,
            Self::NeverReady | Self::Crashes | Self::OneDown | Self::FailsSmokeTest => true,
        }
    }
}

/// Whether pods with these settings are never ready, as with an image that cannot be pulled.
pub(super) fn is_bad(settings: &str) -> bool {
    settings.starts_with("bad")
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pod {
    pub(super) settings: String,
    pub(super) model_uri: ModelUri,
    /// When it was scheduled to a node.
    pub(super) placed: Option<Timestamp>,
    pub(super) ends: Option<Timestamp>,
    pub(super) is_down: bool,
    pub(super) was_ready: bool,
    /// Since when it has not been ready any more.
    pub(super) unready_since: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) struct Deployment {
    pub(super) desired: u32,
    pub(super) settings: String,
    pub(super) model_uri: ModelUri,
    pub(super) started_at: Timestamp,
    /// Number of changes of its spec.
    pub(super) generation: u64,
    pub(super) edit: Option<Edit>,
}

/// What somebody else changed in a Deployment, until it is applied again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Edit {
    /// Another client owns the changed fields.
    Theirs,
    /// Laurel took the ownership, left a mark, and has not applied the Deployment since.
    TakenOver,
}

/// The cluster.
#[derive(Clone, Debug, Default)]
pub(in crate::decide::tests) struct Cluster {
    pub(in crate::decide::tests) traffic: Traffic,
    /// Somebody gave the Service another port.
    pub(in crate::decide::tests) port_is_edited: bool,
    pub(super) fates: BTreeMap<Version, Fate>,
    pub(super) deployments: BTreeMap<Version, Deployment>,
    /// The pods by version label; they outlive their Deployment for a moment.
    pub(super) pods: BTreeMap<Version, Vec<Pod>>,
    pub(super) endpoints: BTreeSet<Version>,
    /// What the PodDisruptionBudget protects.
    pub(in crate::decide::tests) budget: Option<Traffic>,
    /// What was restored from a backup and has no owner yet.
    pub(in crate::decide::tests) orphans: BTreeSet<OwnObject>,
    /// What an admission policy does not let anybody adopt.
    pub(in crate::decide::tests) unadoptable: BTreeSet<OwnObject>,
    /// The quota: the maximum number of pods in the namespace.
    pub(super) quota: Option<u32>,
    /// How many pods were ever created of a version.
    pub(super) made: BTreeMap<Version, u32>,
    pub(in crate::decide::tests) gateway: Gateway,
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}

impl Cluster {
    pub(super) fn fate(&self, version: Version) -> Fate {
        self.fates.get(&version).copied().unwrap_or_default()
    }

    pub(super) fn set_fate(&mut self, version: Version, fate: Fate) {
        self.fates.insert(version, fate);
        let pods = self.pods.get_mut(&version).map(Vec::as_mut_slice).unwrap_or_default();
        for pod in pods.iter_mut() {
            pod.is_down = false;
        }
        if let Some(pod) = pods.iter_mut().find(|pod| pod.ends.is_none() && fate == Fate::OneDown) {
            pod.is_down = true;
        }
    }

    /// Whether some of the version's pods cannot be ready.
    pub(super) fn is_broken(&self, version: Version) -> bool {
        let settings = self.deployments.get(&version).map(|deployment| &deployment.settings);
        let pods = self.pods.get(&version).map(Vec::as_slice).unwrap_or_default();
        !self.fate(version).is_ready()
            || settings.is_some_and(|settings| is_bad(settings))
            || pods.iter().any(|pod| pod.is_down)
            || self.is_refused(version)
    }

    /// Whether the quota prevents some of the version's pods.
    fn is_refused(&self, version: Version) -> bool {
        let pods = self.pods.get(&version).map(Vec::as_slice).unwrap_or_default();
        let Some(deployment) = self.deployments.get(&version) else { return false };
        let of_today = count(pods.iter().filter(|pod| pod.ends.is_none() && deployment.made(pod)).count());
        of_today < deployment.desired && self.quota.is_some_and(|quota| self.all_pods() >= quota)
    }

    /// The version's pods are evicted, or somebody deletes them.
    pub(super) fn lose_pods(&mut self, version: Version, now: Timestamp, pace: Pace) {
        for pod in self.pods.entry(version).or_default() {
            pod.ends.get_or_insert(now + pace.end);
        }
    }

    /// Remembers which pods have been ready.
    pub(super) fn note_ready_pods(&mut self, now: Timestamp, pace: Pace) {
        let versions: Vec<Version> = self.pods.keys().copied().collect();
        for version in versions {
            let ready = self.readiness(version, now, pace);
            for (pod, ready) in self.pods.entry(version).or_default().iter_mut().zip(ready) {
                pod.was_ready |= ready;
                pod.unready_since = (pod.was_ready && !ready).then(|| pod.unready_since.unwrap_or(now));
            }
        }
    }

    pub(super) fn desired(&self, version: Version) -> u32 {
        self.deployments.get(&version).map_or(0, |deployment| deployment.desired)
    }

    /// Whether each of the version's pods is ready, in order.
    fn readiness(&self, version: Version, now: Timestamp, pace: Pace) -> Vec<bool> {
        let pods = self.pods.get(&version).map(Vec::as_slice).unwrap_or_default();
        let ready = |pod: &Pod| {
            let fate = self.fate(version);
            let has_room = fate == Fate::NoRoom && pod.placed.is_some();
            let is_well = !pod.is_down && !is_bad(&pod.settings) && (fate.is_ready() || has_room);
            pod.ends.is_none() && is_well && pod.placed.is_some_and(|placed| placed + pace.start <= now)
        };
        pods.iter().map(ready).collect()
    }

    pub(super) fn ready(&self, version: Version, now: Timestamp, pace: Pace) -> u32 {
        count(self.readiness(version, now, pace).into_iter().filter(|ready| *ready).count())
    }

    /// Returns the pods of a version, including terminating ones.
    pub(super) fn pods(&self, version: Version) -> u32 {
        self.pods.get(&version).map_or(0, |pods| count(pods.len()))
    }

    pub(super) fn all_pods(&self) -> u32 {
        count(self.pods.values().map(Vec::len).sum())
    }

    /// Returns the versions that the Service selects.
    pub(super) fn selected(&self) -> Vec<Version> {
        match self.traffic {
            Traffic::Nowhere => Vec::new(),
            Traffic::One(version) => vec![version],
            Traffic::Shared => self.pods.keys().copied().collect(),
        }
    }

    /// Returns how many ready pods the Service selects.
    pub(super) fn answering(&self, now: Timestamp, pace: Pace) -> u32 {
        self.selected().into_iter().map(|version| self.ready(version, now, pace)).sum()
    }

    fn workload(&self, version: Version, now: Timestamp, pace: Pace) -> Workload {
        let deployment = &self.deployments[&version];
        let pods = self.pods.get(&version).map(Vec::as_slice).unwrap_or_default();
        let living: Vec<&Pod> = pods.iter().filter(|pod| pod.ends.is_none()).collect();
        let ready = self.ready(version, now, pace);
        let rolled_out = living.iter().all(|pod| deployment.made(pod))
            && count(living.len()) == deployment.desired
            && ready >= deployment.desired;
        let fate = self.fate(version);
        let error = match fate {
            _ if self.is_refused(version) => Some(Reason::PodsRefused),
            Fate::Crashes if !living.is_empty() => Some(Reason::ModelCrashed),
            Fate::NoRoom if living.iter().any(|pod| pod.placed.is_none()) => Some(Reason::Unschedulable),
            _ => None,
        };
        let unready = pods.iter().zip(self.readiness(version, now, pace)).filter(|(_, ready)| !ready);
        let unready: Vec<&Pod> = unready.map(|(pod, _)| pod).filter(|pod| pod.ends.is_none()).collect();
        let updated_ready = pods
            .iter()
            .zip(self.readiness(version, now, pace))
            .filter(|(pod, ready)| *ready && pod.ends.is_none() && deployment.made(pod));
        Workload {
            desired: deployment.desired,
            pods: count(pods.len()),
            ready,
            rolled_out,
            edited: deployment.edit.is_some(),
            settings: deployment.settings.clone(),
            model_uri: deployment.model_uri.clone(),
            started_at: Some(deployment.started_at),
            updated_ready: count(updated_ready.count()),
            outdated: count(living.iter().filter(|pod| !deployment.made(pod)).count()),
            error: error.map(|reason| ReasonMessage::new(reason, format!("version {version} is failing"))),
            failing_probe: None,
            tried_since: unready.iter().filter_map(|pod| pod.tried_since(now)).min(),
            has_failed: unready.iter().any(|pod| pod.was_ready),
            smoke: None,
        }
    }

    pub(super) fn view(&self, now: Timestamp, pace: Pace) -> ClusterView {
        let workload = |version: &Version| (*version, self.workload(*version, now, pace));
        let mut view = ClusterView {
            traffic: self.traffic,
            service_outdated: self.port_is_edited,
            budget: self.budget.map(|budget| if budget == self.traffic { budget } else { Traffic::Nowhere }),
            budget_is_unknown: false,
            endpoints: self.endpoints.clone(),
            workloads: self.deployments.keys().map(workload).collect(),
            orphans: self.orphans.clone(),
            ..ClusterView::default()
        };
        self.gateway.show(&self.gateway, &mut view);
        view
    }

    /// Returns the cluster as a lagging watch shows it: current for what we write, older for pods, endpoints
    /// and the status of Deployments.
    pub(super) fn stale_view(
        &self,
        before: &Self,
        then: Timestamp,
        now: Timestamp,
        pace: Pace,
    ) -> ClusterView {
        let mut view = self.view(now, pace);
        view.endpoints.clone_from(&before.endpoints);
        self.gateway.show(&before.gateway, &mut view);
        for (&version, workload) in &mut view.workloads {
            let known = before.deployments.get(&version).map(|_| before.workload(version, then, pace));
            let generation = |cluster: &Self| cluster.deployments.get(&version).map(|known| known.generation);
            workload.pods = before.pods(version);
            workload.ready = before.ready(version, then, pace);
            workload.rolled_out = known.as_ref().is_some_and(|known| known.rolled_out)
                && generation(before) == generation(self)
                && workload.ready >= workload.desired;
            workload.tried_since = known.as_ref().and_then(|known| known.tried_since);
            workload.has_failed = known.as_ref().is_some_and(|known| known.has_failed);
            workload.error = known.and_then(|known| known.error);
        }
        view
    }

    /// Creates the Deployment, or updates it to these settings.
    pub(super) fn apply(&mut self, version: Version, deployment: Deployment) {
        let generation = self.deployments.get(&version).map_or(0, |known| known.generation) + 1;
        self.deployments.insert(version, Deployment { generation, ..deployment });
    }

    /// Takes the ownership of what somebody else changed, before the Deployment is applied.
    pub(super) fn take_over(&mut self, version: Version) {
        if let Some(edit) = self.deployments.get_mut(&version).and_then(|it| it.edit.as_mut()) {
            *edit = Edit::TakenOver;
        }
    }

    pub(super) fn is_edited(&self, version: Version) -> bool {
        self.deployments.get(&version).is_some_and(|deployment| deployment.edit.is_some())
    }

    pub(super) fn scale(&mut self, version: Version, desired: u32) -> Option<&mut Deployment> {
        let deployment = self.deployments.get_mut(&version)?;
        deployment.desired = desired;
        deployment.generation += 1;
        Some(deployment)
    }

    /// Deletes the Deployment; its pods terminate.
    pub(super) fn delete(&mut self, version: Version, now: Timestamp, pace: Pace) {
        self.deployments.remove(&version);
        for pod in self.pods.entry(version).or_default() {
            pod.ends.get_or_insert(now + pace.end);
        }
    }

    /// Runs Kubernetes' controllers: pods are created and terminated.
    pub(super) fn controllers(&mut self, now: Timestamp, pace: Pace) {
        for pods in self.pods.values_mut() {
            pods.retain(|pod| pod.ends.is_none_or(|ends| ends > now));
        }
        let versions: Vec<Version> = self.deployments.keys().copied().collect();
        for version in versions {
            let ready = self.readiness(version, now, pace);
            let allowed = self.quota.map_or(u32::MAX, |quota| quota.saturating_sub(self.all_pods()));
            let pods = self.pods.entry(version).or_default();
            let made = self.deployments[&version].roll(pods, &ready, allowed, now, pace);
            *self.made.entry(version).or_default() += made;
        }
        self.place_pods(now);
        self.pods.retain(|_, pods| !pods.is_empty());
    }

    /// Runs the scheduler.
    fn place_pods(&mut self, now: Timestamp) {
        for (version, pods) in &mut self.pods {
            let has_room = self.fates.get(version) != Some(&Fate::NoRoom);
            for pod in pods.iter_mut().filter(|_| has_room) {
                pod.placed.get_or_insert(now);
            }
        }
    }

    /// Runs the endpoint controller.
    pub(super) fn update_endpoints(&mut self, now: Timestamp, pace: Pace) {
        let ready = |version: &Version| self.ready(*version, now, pace) > 0;
        let endpoints = self.selected().into_iter().filter(ready).collect();
        let ready: BTreeSet<Version> = self.pods.keys().copied().filter(ready).collect();
        self.endpoints = endpoints;
        self.gateway.moment(now, |version| ready.contains(&version));
    }
}

impl Pod {
    /// Since when it has been on a node without being ready.
    fn tried_since(&self, now: Timestamp) -> Option<Timestamp> {
        let unready_since = self.was_ready.then(|| self.unready_since.unwrap_or(now));
        self.placed.map(|placed| unready_since.map_or(placed, |since| since.max(placed)))
    }
}

impl Deployment {
    /// Whether the pod matches the Deployment's template.
    fn made(&self, pod: &Pod) -> bool {
        pod.settings == self.settings && pod.model_uri == self.model_uri
    }

    /// A rolling update with `maxUnavailable: 0` and `maxSurge: 1`, and scaling, with no more new pods than
    /// allowed. Returns how many it created.
    fn roll(&self, pods: &mut Vec<Pod>, ready: &[bool], allowed: u32, now: Timestamp, pace: Pace) -> u32 {
        let desired = self.desired as usize;
        let is_old = |pod: &Pod| !self.made(pod);
        let living = |pods: &[Pod]| pods.iter().filter(|pod| pod.ends.is_none()).count();
        let is_ready = |index: usize| ready.get(index).copied().unwrap_or(false);

        let excess = living(pods).saturating_sub(desired + usize::from(pods.iter().any(is_old)));
        let mut candidates: Vec<usize> =
            (0..pods.len()).filter(|index| pods[*index].ends.is_none()).collect();
        // Youngest first.
        candidates.sort_by_key(|index| (is_ready(*index), std::cmp::Reverse(*index)));
        for index in candidates.into_iter().take(if desired == 0 { usize::MAX } else { excess }) {
            pods[index].ends = Some(now + pace.end);
        }

        let available =
            (0..pods.len()).filter(|index| pods[*index].ends.is_none() && is_ready(*index)).count();
        let mut spare = available.saturating_sub(desired);
        for (index, pod) in pods.iter_mut().enumerate() {
            if pod.ends.is_none() && is_old(pod) && (spare > 0 || !is_ready(index)) {
                spare -= usize::from(is_ready(index));
                pod.ends = Some(now + pace.end);
            }
        }

        let new = pods.iter().filter(|pod| pod.ends.is_none() && !is_old(pod)).count();
        let surge = usize::from(pods.iter().any(|pod| pod.ends.is_none() && is_old(pod)));
        let room = (desired + surge).saturating_sub(living(pods));
        let made = desired.saturating_sub(new).min(room).min(allowed as usize);
        for _ in 0..made {
            let (settings, model_uri) = (self.settings.clone(), self.model_uri.clone());
            pods.push(Pod {
                settings,
                model_uri,
                placed: None,
                ends: None,
                is_down: false,
                was_ready: false,
                unready_since: None,
            });
        }
        count(made)
    }
}
