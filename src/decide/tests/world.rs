//! A small world that obeys decisions: Deployments, a Service, a registry, a clock. No Kubernetes, no HTTP.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{
        ModelAliasStatus,
        condition::{Note, Reason},
        model_alias::Drift,
        names::{ModelUri, Version},
    },
    decide::{
        ASK_AGAIN, Action, AliasRole, ClusterView, Decision, Intent, Lifecycle, Observed, RegistryView,
        ServingIntent, SmokeReport, StrategyIntent, Traffic, VersionView, Wish, Workload, decide,
    },
    status::{Applied, Identity, next},
};

/// How long a good version's pod takes to be ready.
const START: SignedDuration = SignedDuration::from_secs(3);
/// How long a pod takes to end.
const END: SignedDuration = SignedDuration::from_secs(2);

pub(super) fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

pub(super) fn uri(number: u32) -> ModelUri {
    format!("models:/m-{number:032x}").parse().unwrap()
}

/// What becomes of a version's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Good,
    NeverReady,
    FailsSmokeTest,
}

#[derive(Clone, Debug)]
struct Pod {
    settings: String,
    born: Timestamp,
    ends: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Deployment {
    desired: u32,
    settings: String,
    model_uri: ModelUri,
    started_at: Timestamp,
    pods: Vec<Pod>,
    smoke: Option<SmokeReport>,
}

/// The world. Its public fields are what the outside may change.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) intent: Intent,
    pub(super) fates: BTreeMap<Version, Fate>,
    pub(super) reachable: bool,
    pub(super) alias: Option<Version>,
    pub(super) previous_alias: Option<Version>,
    pub(super) versions: BTreeMap<Version, ModelUri>,
    pub(super) traffic: Traffic,
    pub(super) record: ModelAliasStatus,
    deployments: BTreeMap<Version, Deployment>,
    endpoints: BTreeSet<Version>,
    /// The version that traffic left last, and when.
    left: Option<(Version, Timestamp)>,
    /// The most pods the world may hold, while it is known.
    pub(super) pod_limit: Option<u32>,
}

impl World {
    pub(super) fn new(strategy: StrategyIntent, replicas: u32) -> Self {
        let serving = ServingIntent {
            replicas,
            settings: "v1-a".into(),
            strategy,
            progress_deadline: SignedDuration::from_secs(60),
            warm_for: SignedDuration::from_secs(300),
            history: 2,
            smoke_test: true,
        };
        Self {
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            intent: Intent {
                wish: Wish::Version(version(1)),
                serving: Some(serving),
                keeps_previous_alias: true,
                drift: Drift::Correct,
                lifecycle: Lifecycle::Active,
                deletes_alias: true,
                has_finalizer: false,
                retry: None,
                obstacle: None,
            },
            fates: BTreeMap::new(),
            reachable: true,
            alias: None,
            previous_alias: None,
            versions: (1..=5).map(|number| (version(number), uri(number))).collect(),
            traffic: Traffic::Nowhere,
            record: ModelAliasStatus::default(),
            deployments: BTreeMap::new(),
            endpoints: BTreeSet::new(),
            left: None,
            pod_limit: None,
        }
    }

    pub(super) fn serving(&mut self) -> &mut ServingIntent {
        self.intent.serving.as_mut().unwrap()
    }

    fn replicas(&self) -> u32 {
        self.intent.serving.as_ref().unwrap().replicas
    }

    fn fate(&self, version: Version) -> Fate {
        self.fates.get(&version).copied().unwrap_or(Fate::Good)
    }

    pub(super) fn observe(&self) -> Observed {
        let trouble =
            (!self.reachable).then(|| Note::new(Reason::RegistryUnreachable, "the registry is away"));
        let registry = match trouble {
            Some(trouble) => RegistryView { trouble: Some(trouble), ..RegistryView::default() },
            None => RegistryView {
                trouble: None,
                alias: self.alias,
                previous_alias: self.previous_alias,
                written: None,
                previous_written: None,
                versions: (1..=6)
                    .map(|number| (version(number), self.version_view(version(number))))
                    .collect(),
            },
        };
        let workloads = self.deployments.keys().map(|&version| (version, self.workload(version))).collect();
        Observed {
            now: self.now,
            intent: self.intent.clone(),
            registry,
            cluster: ClusterView {
                traffic: self.traffic,
                service_outdated: false,
                endpoints: self.endpoints.clone(),
                workloads,
            },
            record: self.record.clone(),
        }
    }

    fn version_view(&self, version: Version) -> VersionView {
        match self.versions.get(&version) {
            Some(model_uri) => VersionView::Ready { model_uri: model_uri.clone() },
            None => VersionView::Absent,
        }
    }

    pub(super) fn has_deployment(&self, version: Version) -> bool {
        self.deployments.contains_key(&version)
    }

    pub(super) fn desired(&self, version: Version) -> u32 {
        self.deployments.get(&version).map_or(0, |deployment| deployment.desired)
    }

    fn is_ready(&self, version: Version, pod: &Pod) -> bool {
        pod.ends.is_none() && self.fate(version) != Fate::NeverReady && pod.born + START <= self.now
    }

    pub(super) fn ready(&self, version: Version) -> u32 {
        self.deployments.get(&version).map_or(0, |deployment| {
            let ready = deployment.pods.iter().filter(|pod| self.is_ready(version, pod)).count();
            u32::try_from(ready).unwrap()
        })
    }

    pub(super) fn pods(&self) -> u32 {
        self.deployments.values().map(|deployment| u32::try_from(deployment.pods.len()).unwrap()).sum()
    }

    fn workload(&self, version: Version) -> Workload {
        let deployment = &self.deployments[&version];
        let current = deployment
            .pods
            .iter()
            .filter(|pod| pod.ends.is_none() && pod.settings == deployment.settings)
            .count();
        let living = deployment.pods.iter().filter(|pod| pod.ends.is_none()).count();
        let ready = self.ready(version);
        Workload {
            desired: deployment.desired,
            pods: u32::try_from(deployment.pods.len()).unwrap(),
            ready,
            rolled_out: current == living
                && ready == deployment.desired
                && u32::try_from(living).unwrap() == deployment.desired,
            edited: false,
            settings: deployment.settings.clone(),
            model_uri: deployment.model_uri.clone(),
            started_at: Some(deployment.started_at),
            trouble: None,
            smoke: deployment.smoke.clone(),
        }
    }

    /// One action, with the promises checked at the moment it is done.
    pub(super) fn apply(&mut self, action: &Action) {
        match action {
            Action::SetFinalizer { present } => self.intent.has_finalizer = *present,
            Action::Apply { version, model_uri, replicas } => {
                self.apply_deployment(*version, model_uri, *replicas);
            }
            Action::Scale { version, replicas } => self.scale(*version, *replicas),
            Action::SmokeTest { version } => {
                assert!(self.ready(*version) > 0, "a smoke test needs a ready pod");
                let report = if self.fate(*version) == Fate::FailsSmokeTest {
                    SmokeReport::Failed("500".into())
                } else {
                    SmokeReport::Passed
                };
                self.deployments.get_mut(version).unwrap().smoke = Some(report);
            }
            Action::Route(traffic) => self.route(*traffic),
            Action::Delete { version } => {
                assert_ne!(self.traffic, Traffic::One(*version), "what serves is never deleted");
                assert!(!self.endpoints.contains(version), "what has endpoints is never deleted");
                self.deployments.remove(version);
            }
            Action::DeleteService => self.traffic = Traffic::Nowhere,
            Action::SetAlias { role, version, replaces, corrects: _ } => {
                assert!(self.reachable, "nothing is written to a registry that is away");
                assert!(
                    self.versions.contains_key(version),
                    "MLflow refuses an alias to a version that does not exist"
                );
                match role {
                    AliasRole::Main => {
                        let serves = match self.traffic {
                            Traffic::One(serves) => Some(serves),
                            // While pods are exchanged, the alias stays on the version that they come from.
                            Traffic::Shared => self.record.version,
                            Traffic::Nowhere => None,
                        };
                        assert_eq!(serves, Some(*version), "the alias names what serves");
                        assert_eq!(self.alias, *replaces);
                        self.alias = Some(*version);
                    }
                    AliasRole::Previous => self.previous_alias = Some(*version),
                }
            }
            Action::DeleteAlias { role, .. } => match role {
                AliasRole::Main => self.alias = None,
                AliasRole::Previous => self.previous_alias = None,
            },
        }
        self.check_pod_limit();
    }

    fn apply_deployment(&mut self, version: Version, model_uri: &ModelUri, replicas: u32) {
        let settings = self.intent.serving.as_ref().unwrap().settings.clone();
        let deployment = self.deployments.entry(version).or_insert_with(|| Deployment {
            desired: 0,
            settings: settings.clone(),
            model_uri: model_uri.clone(),
            started_at: self.now,
            pods: Vec::new(),
            smoke: None,
        });
        deployment.settings = settings;
        deployment.started_at = self.now;
        deployment.model_uri = model_uri.clone();
        deployment.desired = replicas;
        deployment.smoke = None;
        self.controllers();
    }

    fn scale(&mut self, version: Version, replicas: u32) {
        let wanted = self.replicas();
        if replicas == 0 {
            assert!(!self.is_warm(version), "a version that traffic left a moment ago stays warm");
        }
        match self.traffic {
            Traffic::One(serves) if serves == version => {
                assert!(replicas >= wanted, "what serves is never scaled below what is wished");
            }
            Traffic::Shared => {
                let others: u32 = self
                    .deployments
                    .keys()
                    .filter(|other| **other != version)
                    .map(|other| self.counted(*other))
                    .sum();
                let before = self.counted(version);
                let after = others + before.min(replicas);
                assert!(
                    after >= wanted.min(others + before),
                    "never fewer ready than wished: {after} of {wanted}"
                );
            }
            _ => assert!(
                replicas > 0 || !self.endpoints.contains(&version),
                "what has endpoints is not scaled to zero"
            ),
        }
        let deployment = self.deployments.get_mut(&version).unwrap();
        deployment.desired = replicas;
        if replicas > 0 {
            deployment.started_at = self.now;
        }
        self.controllers();
    }

    /// Whether traffic left the version so lately that it has to stay at its size. One of which a crash left no record that
    /// it ever answered cannot be known.
    fn is_warm(&self, version: Version) -> bool {
        let serving = self.intent.serving.as_ref().unwrap();
        let rejected =
            self.record.rejected.iter().any(|rejection| rejection.version == version && rejection.held);
        let answered =
            self.record.versions.iter().any(|held| held.version == version && held.served_at.is_some());
        serving.strategy == StrategyIntent::BlueGreen
            && answered
            && !rejected
            && self.left.is_some_and(|(left, at)| left == version && self.now < at + serving.warm_for)
    }

    fn counted(&self, version: Version) -> u32 {
        self.ready(version).min(self.desired(version))
    }

    fn route(&mut self, traffic: Traffic) {
        match traffic {
            Traffic::Nowhere => panic!("a Service is never pointed at nothing"),
            Traffic::One(version) => {
                assert!(self.ready(version) > 0, "traffic only ever reaches a ready version");
                assert_ne!(
                    self.fate(version),
                    Fate::FailsSmokeTest,
                    "a version that fails its smoke test gets no traffic"
                );
            }
            Traffic::Shared => {
                for version in self.deployments.keys().filter(|version| self.ready(**version) > 0) {
                    assert_ne!(
                        self.fate(*version),
                        Fate::FailsSmokeTest,
                        "a version that fails its smoke test gets no traffic"
                    );
                }
            }
        }
        if let (Traffic::One(before), Traffic::One(after)) = (self.traffic, traffic)
            && before != after
        {
            self.left = Some((before, self.now));
        }
        self.traffic = traffic;
    }

    fn check_pod_limit(&self) {
        if let Some(limit) = self.pod_limit {
            assert!(self.pods() <= limit, "{} pods, at most {limit}", self.pods());
        }
    }

    /// What Kubernetes' controllers do at once: pods are made and ended, endpoints follow.
    fn controllers(&mut self) {
        let now = self.now;
        let serving: Vec<Version> = self.deployments.keys().copied().collect();
        for version in serving {
            let ready: Vec<bool> =
                self.deployments[&version].pods.iter().map(|pod| self.is_ready(version, pod)).collect();
            let deployment = self.deployments.get_mut(&version).unwrap();
            roll(deployment, &ready, now);
        }
    }

    /// Time passes, in small steps, as the cluster sees it.
    pub(super) fn pass(&mut self, span: SignedDuration) {
        let until = self.now + span;
        while self.now < until {
            self.now = (self.now + SignedDuration::from_secs(1)).min(until);
            let now = self.now;
            for deployment in self.deployments.values_mut() {
                deployment.pods.retain(|pod| pod.ends.is_none_or(|ends| ends > now));
            }
            self.controllers();
            self.update_endpoints();
            self.check_pod_limit();
        }
    }

    /// Much time passes at once, in a world at rest.
    pub(super) fn jump(&mut self, span: SignedDuration) {
        self.now += span;
        self.pass(START + END);
    }

    /// Time passes until something that is watched changes; answers false when nothing did within `span`.
    fn pass_until_change(&mut self, span: SignedDuration) -> bool {
        let before = self.observe();
        let until = self.now + span;
        while self.now < until {
            self.pass(SignedDuration::from_secs(1));
            if (Observed { now: before.now, ..self.observe() }) != before {
                return true;
            }
        }
        false
    }

    /// The endpoint controller catches up.
    pub(super) fn update_endpoints(&mut self) {
        self.endpoints = match self.traffic {
            Traffic::Nowhere => BTreeSet::new(),
            Traffic::One(version) => [version].into(),
            Traffic::Shared => self.deployments.keys().copied().collect(),
        }
        .into_iter()
        .filter(|version| self.ready(*version) > 0)
        .collect();
    }

    /// One pass of the operator, crashing after `crash_after` actions if there are that many.
    pub(super) fn reconcile(&mut self, crash_after: Option<usize>) -> Decision {
        let observed = self.observe();
        let decision = decide(&observed);
        assert_eq!(decision, decide(&observed), "the same observation gives the same decision");
        let mut applied = Applied::default();
        for action in &decision.actions {
            if crash_after == Some(applied.actions.len()) {
                return decision;
            }
            self.apply(action);
            applied.actions.push(action.clone());
        }
        if crash_after == Some(applied.actions.len()) {
            return decision;
        }
        self.record = next(&observed, &decision, &applied, &Identity::default());
        self.update_endpoints();
        decision
    }

    /// Lets the operator work, with time passing as it asks for, until it is quiet. Answers the number of passes.
    pub(super) fn settle(&mut self) -> usize {
        const MOST: usize = 400;
        let mut asked_in_vain = 0;
        for passes in 0..MOST {
            let before = (self.record.clone(), self.now);
            let decision = self.reconcile(None);
            if !decision.actions.is_empty() || self.record != before.0 {
                continue;
            }
            let changed = self.pass_until_change(START + END);
            match decision.wake {
                _ if changed => {}
                // Asking a registry again that does not answer is as quiet as it can be, once all else has run out too.
                Some(at) if at <= self.now + ASK_AGAIN && !decision.report.readiness.is_settled() => {
                    if asked_in_vain == 3 {
                        return passes;
                    }
                    asked_in_vain += 1;
                    self.pass(SignedDuration::from_mins(6));
                }
                Some(at) if at > self.now => self.pass(at.duration_since(self.now)),
                Some(_) => {}
                None => return passes,
            }
        }
        panic!("not quiet after {MOST} passes: {:#?}\n{:#?}", self.record, self.observe().cluster);
    }
}

/// A Deployment's rolling update with `maxUnavailable: 0` and `maxSurge: 1`, and its scaling.
fn roll(deployment: &mut Deployment, ready: &[bool], now: Timestamp) {
    let Deployment { desired, settings, pods, .. } = deployment;
    let is_old = |pod: &Pod| pod.settings != *settings;
    let living = |pods: &[Pod]| pods.iter().filter(|pod| pod.ends.is_none()).count();
    let desired = *desired as usize;
    let scaling_down = living(pods).saturating_sub(desired + usize::from(pods.iter().any(is_old)));
    let mut candidates: Vec<usize> = (0..pods.len()).filter(|index| pods[*index].ends.is_none()).collect();
    candidates.sort_by_key(|index| ready.get(*index).copied().unwrap_or(false));
    for index in candidates.into_iter().take(if desired == 0 { usize::MAX } else { scaling_down }) {
        pods[index].ends = Some(now + END);
    }
    let ready_now =
        |pods: &[Pod], index: usize| pods[index].ends.is_none() && ready.get(index).copied().unwrap_or(false);
    let available = (0..pods.len()).filter(|index| ready_now(pods, *index)).count();
    let mut spare = available.saturating_sub(desired);
    for (index, pod) in pods.iter_mut().enumerate() {
        let unready = !ready.get(index).copied().unwrap_or(false);
        if pod.ends.is_none() && is_old(pod) && (spare > 0 || unready) {
            spare -= usize::from(!unready && spare > 0);
            pod.ends = Some(now + END);
        }
    }
    let wanted_new =
        desired - pods.iter().filter(|pod| pod.ends.is_none() && !is_old(pod)).count().min(desired);
    let surge = usize::from(pods.iter().any(|pod| pod.ends.is_none() && is_old(pod)));
    let room = (desired + surge).saturating_sub(living(pods));
    for _ in 0..wanted_new.min(room) {
        pods.push(Pod { settings: settings.clone(), born: now, ends: None });
    }
}
