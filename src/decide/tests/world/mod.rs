//! A small simulated world that carries out decisions: a cluster, a registry, an operator, a clock. No
//! Kubernetes, no HTTP.
//!
//! ```text
//! event ── from outside ──► cluster, registry, intent ── observe ──► decide ──► apply, the promises checked
//! at each write                                     ▲                                             │
//! └── clock: pods start and end, writes land ◄──┘ ```

mod audit;
mod canonical;
mod challengers;
mod clock;
mod cluster;
mod cost;
mod event;
mod gateway;
mod live;
mod operator;
mod promises;
mod referred;
mod registry;
mod rest;
mod rules;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use self::{audit::Reported, operator::Operator, registry::Registry};
pub(super) use self::{
    cluster::{Cluster, Fate},
    cost::Cost,
    event::{BlockedBy, DesiredVersion, Event, Followed, Reconcile, Registers, Serves, Step, Strategy},
    gateway::{GatewayIs, RivalIs},
    live::Shows,
};
use crate::{
    analysis::live::Verdict,
    api::{
        ModelAliasStatus,
        condition::Reason,
        model_alias::{Drift, OnUnavailable},
        names::{ModelUri, Version},
    },
    decide::{
        AliasRole, Blocker, ClusterView, Desired, FormerAlias, Intent, Lifecycle, LiveView, Observed,
        RegistryView, ServingIntent, ShareIntent, SmokeTestIntent, StrategyIntent,
    },
};

pub(super) fn version(number: u32) -> Version {
    Version::new(number).unwrap()
}

/// Returns the version with this number.
pub(super) fn number(version: Version) -> u32 {
    version.to_string().parse().unwrap()
}

pub(super) fn uri(number: u32) -> ModelUri {
    format!("models:/m-{number:032x}").parse().unwrap()
}

/// Durations of everything that takes time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From moment to moment.
    pub(super) step: SignedDuration,
    /// Until a good version's pod is ready.
    pub(super) start: SignedDuration,
    /// Until a terminating pod is gone.
    pub(super) end: SignedDuration,
    /// How many moments a watch may lag.
    pub(super) lag: usize,
}

impl Pace {
    /// In steps of one second.
    pub(super) const FINE: Self = Self {
        step: SignedDuration::from_secs(1),
        start: SignedDuration::from_secs(3),
        end: SignedDuration::from_secs(2),
        lag: 4,
    };
    /// In coarse steps, few to a deadline, for a small state space.
    pub(super) const COARSE: Self = Self {
        step: SignedDuration::from_secs(10),
        start: SignedDuration::from_secs(10),
        end: SignedDuration::from_secs(10),
        lag: 0,
    };
}

/// The world. Public fields are those that events may change.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) pace: Pace,
    pub(super) intent: Intent,
    pub(super) status: Arc<ModelAliasStatus>,
    /// What live traffic shows of each version.
    shows: BTreeMap<Version, Shows>,
    /// The tags about drift that a job set, by version.
    pub(super) drift: BTreeMap<Version, BTreeMap<String, String>>,
    /// Whether many `ModelAliases` became worse at once.
    pub(super) many_are_worse: bool,
    pub(super) cluster: Cluster,
    pub(super) registry: Registry,
    pub(super) operator: Operator,
    /// The object is gone: its finalizer was removed after it was deleted.
    pub(super) is_gone: bool,
    /// Broken promises are collected in `broken` instead of ending the test.
    pub(super) collects: bool,
    pub(super) broken: Vec<String>,
    /// The log of what happened, if requested.
    pub(super) log: Option<String>,
    /// The maximum number of pods, while known.
    pub(super) pod_limit: Option<u32>,
    /// `spec.serving` while it is not set.
    serving_aside: Option<ServingIntent>,
    /// The version that traffic left last, and when; traffic that somebody else sent there does not count.
    left: Option<(Version, Timestamp)>,
    /// The desired number of pods of each version when traffic left it, until that was changed.
    left_with: BTreeMap<Version, u32>,
    /// When pods were evicted last.
    lost_pods_at: Option<Timestamp>,
    /// Whether somebody else set the Service's current selector.
    is_pointed_by_others: bool,
    /// Whether the status was lost that named the route of somebody else, so that it may not be handed back.
    has_lost_reference: bool,
    /// Whether somebody else changed the HTTPRoute, until its weights are written again.
    is_routed_by_others: bool,
    /// The step of a canary that each version was in last, from 0, and when the route was written for that.
    steps_since: BTreeMap<Version, (usize, Timestamp)>,
    /// The steps in which a version was approved, until its steps begin again.
    approved_steps: BTreeSet<(Version, usize, ShareIntent)>,
    /// The versions that were ever given up because nobody approved them in time.
    not_approved: BTreeSet<Version>,
    /// When the model was last deleted and registered again.
    model_recreated_at: Option<Timestamp>,
    /// The versions that ever answered requests.
    answered: BTreeSet<Version>,
    /// The last one that did so alone.
    answered_last: Option<Version>,
    /// The version that the registry requested from a follower, once work on it began; nothing else was
    /// requested since.
    begun: Option<Version>,
    /// The versions that ever passed their smoke test.
    proven: BTreeSet<Version>,
    /// The versions that returned an error for their input example in the current attempt.
    failed_smoke_test: BTreeSet<Version>,
    /// How many requests the smoke tests sent to the pods of a version.
    requests: BTreeMap<Version, u32>,
    /// The versions and settings whose pods ever failed.
    pub(super) failed: BTreeSet<Version>,
    /// Every change and failed attempt that was ever in the status and has to be in the audit log.
    reported: BTreeMap<Timestamp, Reported>,
    /// How often somebody else wrote to the aliases.
    pub(super) moves_by_others: u32,
    /// How often the operator was killed.
    kills: u32,
    /// No version answers because of an event from outside.
    silence_is_excused: bool,
    /// The requests that the operator has sent.
    pub(super) cost: Cost,
    began: Timestamp,
    /// The cluster some moments ago, newest last.
    past: VecDeque<(Timestamp, Cluster)>,
}

impl World {
    pub(super) fn new(strategy: StrategyIntent, replicas: u32) -> Self {
        let serving = ServingIntent {
            replicas,
            settings: Some("a".into()),
            strategy,
            routed: false,
            route_ref: None,
            steps: Vec::new(),
            challengers: Vec::new(),
            progress_deadline: SignedDuration::from_secs(60),
            warm_for: SignedDuration::from_secs(300),
            counts_requests: true,
            watch_for: None,
            history: 2,
            size_is_open: false,
            smoke_test: SmokeTestIntent {
                is_enabled: true,
                timeout: SignedDuration::from_secs(60),
                on_unavailable: OnUnavailable::Wait,
            },
        };
        let began = Timestamp::from_second(1_800_000_000).unwrap();
        Self {
            now: began,
            pace: Pace::FINE,
            intent: Intent {
                desired: Desired::Version(version(1)),
                serving: Some(serving),
                previous_alias: Some("previous".parse().unwrap()),
                drift: Drift::Correct,
                lifecycle: Lifecycle::Active,
                deletes_alias: true,
                has_finalizer: false,
                rules: Vec::new(),
                retry: None,
                approval: None,
                changed_by: None,
                commit: None,
                blocker: None,
            },
            status: Arc::default(),
            shows: BTreeMap::new(),
            drift: BTreeMap::new(),
            many_are_worse: false,
            cluster: Cluster::default(),
            registry: Registry::new(5),
            operator: Operator::default(),
            is_gone: false,
            collects: false,
            broken: Vec::new(),
            log: None,
            pod_limit: None,
            serving_aside: None,
            left: None,
            left_with: BTreeMap::new(),
            lost_pods_at: None,
            is_pointed_by_others: false,
            has_lost_reference: false,
            is_routed_by_others: false,
            steps_since: BTreeMap::new(),
            model_recreated_at: None,
            approved_steps: BTreeSet::new(),
            not_approved: BTreeSet::new(),
            answered: BTreeSet::new(),
            answered_last: None,
            begun: None,
            proven: BTreeSet::new(),
            failed_smoke_test: BTreeSet::new(),
            requests: BTreeMap::new(),
            failed: BTreeSet::new(),
            reported: BTreeMap::new(),
            moves_by_others: 0,
            kills: 0,
            silence_is_excused: false,
            cost: Cost::default(),
            began,
            past: VecDeque::new(),
        }
    }

    pub(super) fn serving(&mut self) -> &mut ServingIntent {
        self.intent.serving.as_mut().or(self.serving_aside.as_mut()).unwrap()
    }

    pub(super) fn replicas(&self) -> u32 {
        self.intent.serving.as_ref().map_or(0, |serving| serving.replicas)
    }

    /// A removed size that the operator cannot know any more, or never saw, is not desired any more.
    pub(super) fn forget_size(&mut self) {
        let size = self.views(0).0.size(&self.status);
        if let Some(serving) = self.intent.serving.as_mut().filter(|serving| serving.size_is_open) {
            serving.replicas = size;
        }
    }

    pub(super) fn desired(&self, version: Version) -> u32 {
        self.cluster.desired(version)
    }

    pub(super) fn ready(&self, version: Version) -> u32 {
        self.cluster.ready(version, self.now, self.pace)
    }

    /// Whether somebody else changed the version's Deployment since it was last applied.
    pub(super) fn is_edited(&self, number: u32) -> bool {
        self.cluster.is_edited(version(number))
    }

    /// Returns how many pods were ever created of the version.
    pub(super) fn made(&self, version: Version) -> u32 {
        self.cluster.made.get(&version).copied().unwrap_or_default()
    }

    /// Returns how many requests smoke tests ever sent to the version.
    pub(super) fn requests(&self, version: Version) -> u32 {
        self.requests.get(&version).copied().unwrap_or_default()
    }

    /// Returns how many ready pods the Service selects.
    pub(super) fn answering(&self) -> u32 {
        self.cluster.answering(self.now, self.pace)
    }

    /// Returns the versions of these pods.
    pub(super) fn answering_versions(&self) -> Vec<u32> {
        let selected = self.cluster.selected().into_iter().filter(|version| self.ready(*version) > 0);
        selected.map(number).collect()
    }

    /// The version that an alias names; 0 for none.
    pub(super) fn alias(&self, role: AliasRole) -> u32 {
        let facts = &self.registry.truth;
        let named = if role == AliasRole::Main { facts.alias } else { facts.previous_alias };
        named.map_or(0, number)
    }

    /// The versions with a Deployment.
    pub(super) fn deployments(&self) -> Vec<u32> {
        self.cluster.deployments.keys().copied().map(number).collect()
    }

    /// Returns what the operator sees now.
    pub(super) fn observe(&self) -> Observed {
        self.observe_as_of(0)
    }

    /// Returns what the operator sees if its watches lag up to `moments` for everything that it did not write
    /// itself. Its view never goes back in time.
    pub(super) fn observe_as_of(&self, moments: usize) -> Observed {
        let (cluster, registry) = self.views(moments);
        let status = ModelAliasStatus::clone(&self.status);
        let outbox = self.outbox();
        let live = self.operator.counted.view();
        let mut observed =
            Observed { now: self.now, intent: self.intent.clone(), registry, cluster, outbox, live, status };
        if let Some(serving) = observed.intent.serving.as_mut().filter(|serving| serving.size_is_open) {
            serving.replicas = observed.cluster.size(&observed.status);
        }
        self.gather(&mut observed);
        if observed.registry.error.is_none() {
            observed.registry.drift.clone_from(&self.drift);
        }
        self.hide_what_a_blocker_hides(&mut observed);
        observed
    }

    /// Without the RegisteredModel nothing that it refers to is known; what belongs to another ModelAlias is
    /// not read.
    fn hide_what_a_blocker_hides(&self, observed: &mut Observed) {
        let Some(Blocker { cause, .. }) = &self.intent.blocker else { return };
        if cause.reason == Reason::RegisteredModelNotFound {
            observed.intent.rules.clear();
            if let Some(serving) = &mut observed.intent.serving {
                serving.settings = None;
            }
        }
        if matches!(cause.reason, Reason::RegisteredModelNotFound | Reason::Conflict) {
            observed.registry = RegistryView { error: Some(cause.clone()), ..RegistryView::default() };
        }
    }

    /// Whether everything visible is unchanged, except for the time.
    pub(super) fn looks_like(&self, before: &Observed) -> bool {
        before.status == *self.status && {
            let now = self.observe();
            before.intent == now.intent
                && before.cluster == now.cluster
                && before.registry == now.registry
                && before.outbox == now.outbox
                && before.live.as_ref().map(news) == now.live.as_ref().map(news)
        }
    }

    fn views(&self, moments: usize) -> (ClusterView, RegistryView) {
        let newest = self.past.len().saturating_sub(moments);
        let past = self.past.iter().skip(newest).find(|(then, _)| *then >= self.operator.seen_until);
        let facts = &self.registry.seen;
        let status = &self.status;
        let spec = match &self.intent.desired {
            Desired::Version(version) => Some(*version),
            Desired::Registry => None,
            Desired::Chosen(_) => self.desired_version(),
        };
        let wanted: BTreeSet<Version> = [
            spec,
            facts.alias,
            facts.previous_alias,
            status.target_version,
            status.version,
            status.previous_version,
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut cluster = match past {
            Some((then, before)) => self.cluster.stale_view(before, *then, self.now, self.pace),
            None => self.cluster.view(self.now, self.pace),
        };
        let foreign = self.foreign_backend();
        if let Some(route) = cluster.route.as_mut().and_then(|route| route.referred.as_mut()) {
            route.unusable = foreign.map(|name| format!("it sends requests to {name:?} as well"));
        }
        for (version, workload) in &mut cluster.workloads {
            workload.smoke = self.operator.smoke.of(*version).cloned();
        }
        let mut registry = self.registry.view(wanted);
        if matches!(self.intent.desired, Desired::Chosen(_)) && registry.error.is_none() {
            registry.candidates = self.registry.candidates();
        }
        if self.intent.previous_alias.is_none() {
            let is_former = self.status.previous_alias.is_some() && registry.error.is_none();
            let is_running = self.registry.writes.iter().any(|write| write.is_heard);
            let named = registry.previous_alias.take();
            registry.former_alias = (is_former && !is_running).then_some(FormerAlias::Names(named));
        }
        (cluster, registry)
    }

    /// Adds a line to the log.
    fn cause(&mut self, what: impl FnOnce() -> String) {
        let second = self.second_of_story();
        if let Some(log) = &mut self.log {
            writeln!(log, "{second:>5}s  {}", what()).unwrap();
        }
    }

    /// Returns how many seconds the story has lasted.
    pub(super) fn second_of_story(&self) -> i64 {
        self.now.duration_since(self.began).as_secs()
    }

    /// Resets the counters and the start time.
    pub(super) fn begin_story(&mut self) {
        self.began = self.now;
    }
}

/// The operator is woken by what is new in the counts, not by their growth.
fn news(view: &LiveView) -> (Option<u32>, Vec<Verdict>, bool, i64) {
    let verdicts = view.findings.iter().map(|finding| finding.verdict).collect();
    (view.step, verdicts, view.outage.is_some(), view.covered.as_secs())
}
