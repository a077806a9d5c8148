//! Events from outside, as scenarios spell them.

use std::sync::Arc;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    Cluster, Fate, GatewayIs, RivalIs, World,
    cluster::{Edit, is_bad},
    referred::reference,
    rules::{best, rules},
    uri, version,
};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        model_alias::Drift,
    },
    decide::{
        Blocker, BlockerScope, Desired, Follower, Lifecycle, OnUnavailable, ShareIntent, StepIntent,
        StrategyIntent, Traffic,
    },
};

/// An event from outside, or a single reconcile of an operator that is otherwise down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(in crate::decide::tests) enum Event {
    /// `spec.version`, or `follow: {registry: {}}`.
    Desired(DesiredVersion),
    /// Other settings of the pods. With settings that begin with `bad`, pods never become ready.
    Settings(String),
    /// `spec.serving.replicas`, by a person or an autoscaler.
    Replicas(u32),
    /// `spec.serving.replicas` is removed.
    SizeTakenOut(bool),
    Strategy(Strategy),
    /// `spec.traffic` is set or removed.
    Traffic(bool),
    /// The weights of the challengers, in per cent.
    Challengers(Vec<u32>),
    /// A challenger only gets copies of so many requests in per cent, or is none any more.
    Shadow {
        of: usize,
        copies: u32,
    },
    /// The steps of the strategy `Canary`; none for `BlueGreen`.
    Steps(Vec<Step>),
    /// The annotation that approves a version is set or removed.
    Approve(Option<String>),
    Drift(Drift),
    PreviousAlias(bool),
    SmokeTest(bool),
    /// What to do with a version whose smoke test cannot run.
    OnUnavailable(OnUnavailable),
    /// `spec.serving` is set or removed.
    Serving(bool),
    Suspend(bool),
    /// Sets or removes promotion rules for the alias: an approval, and a metric of at least 90 percent.
    Rules(bool),
    /// A blocker appears, or disappears.
    Blocked(BlockedBy),
    /// The retry annotation.
    Retry(String),
    /// The ModelAlias is deleted.
    Deleted(bool),
    /// The status is lost.
    StatusLost(bool),
    /// The cluster is rebuilt from the manifests: nothing else is left of it.
    ClusterRebuilt(bool),

    /// How a version's pods behave.
    Pods {
        of: u32,
        are: Fate,
    },
    /// The version's pods are evicted, or somebody deletes them.
    PodsLost(u32),
    /// The quota: the maximum number of pods in the namespace.
    Quota(Option<u32>),
    DeploymentDeleted(u32),
    DeploymentScaled {
        of: u32,
        to: u32,
    },
    /// Somebody changes the image of a Deployment.
    DeploymentEdited(u32),
    /// Somebody deletes the Service or points it elsewhere.
    Service(Serves),
    /// Somebody changes the Service's port.
    PortEdited(bool),
    /// How the Gateway's controller works.
    Gateway(GatewayIs),
    /// A challenger comes, goes or changes.
    Rival {
        of: usize,
        is: RivalIs,
    },
    /// Somebody deletes the HTTPRoute.
    RouteDeleted(bool),
    /// Somebody changes the HTTPRoute: gives all requests to a version, or adds a filter.
    RouteEdited(Option<u32>),
    /// `spec.traffic.routeRef` takes the place of `spec.traffic.gateway`, or the other way round.
    Refer(bool),
    /// Somebody applies the manifest of their own route again: it names the Service.
    RouteApplied(bool),
    /// Somebody adds another backend to their own route, or removes it.
    RouteShared(bool),
    /// Somebody deletes the Service of a version.
    VersionServiceDeleted(u32),
    /// A quota, or a policy, does not let anybody create Services of versions.
    VersionServicesRefused(bool),

    Registry(Registers),
    /// Somebody else moves or removes the alias.
    Alias(Option<u32>),
    /// The same for the previous alias.
    MovePreviousAlias(Option<u32>),
    /// Somebody approves a version, or withdraws the approval.
    Approved {
        of: u32,
        is: bool,
    },
    /// The metric of a version's run.
    Percent {
        of: u32,
        is: Option<u32>,
    },
    VersionDeleted(u32),
    VersionRegistered(u32),
    /// The model is deleted and created again: the same numbers refer to other models, and no alias is left.
    ModelRecreated(bool),

    /// The operator starts or stops. When it stops, it forgets what it kept in memory.
    Up(bool),
    /// One reconcile.
    Reconcile(Reconcile),
}

impl Event {
    /// Whether work begun for the follower must continue after it.
    fn leaves_begun(&self) -> bool {
        match self {
            Self::Registry(_) | Self::Alias(_) | Self::Up(_) | Self::Reconcile(_) => true,
            Self::Desired(_)
            | Self::Settings(_)
            | Self::Replicas(_)
            | Self::SizeTakenOut(_)
            | Self::Strategy(_)
            | Self::Traffic(_)
            | Self::Challengers(_)
            | Self::Shadow { .. }
            | Self::Rival { .. }
            | Self::Steps(_)
            | Self::Approve(_)
            | Self::Gateway(_)
            | Self::RouteDeleted(_)
            | Self::RouteEdited(_)
            | Self::Refer(_)
            | Self::RouteApplied(_)
            | Self::RouteShared(_)
            | Self::VersionServiceDeleted(_)
            | Self::VersionServicesRefused(_)
            | Self::Drift(_)
            | Self::PreviousAlias(_)
            | Self::SmokeTest(_)
            | Self::OnUnavailable(_)
            | Self::Serving(_)
            | Self::Suspend(_)
            | Self::Rules(_)
            | Self::Blocked(_)
            | Self::Retry(_)
            | Self::Deleted(_)
            | Self::StatusLost(_)
            | Self::Pods { .. }
            | Self::DeploymentDeleted(_)
            | Self::DeploymentScaled { .. }
            | Self::DeploymentEdited(_)
            | Self::Service(_)
            | Self::PortEdited(_)
            | Self::MovePreviousAlias(_)
            | Self::Approved { .. }
            | Self::Percent { .. }
            | Self::VersionDeleted(_)
            | Self::VersionRegistered(_)
            | Self::ModelRecreated(_)
            | Self::ClusterRebuilt(_)
            | Self::PodsLost(_)
            | Self::Quota(_) => false,
        }
    }
}

/// What blocks work on the ModelAlias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::decide::tests) enum BlockedBy {
    Nothing,
    /// Another ModelAlias owns the alias.
    Conflict,
    /// The RegisteredModel was deleted, so everything that it refers to is unknown.
    NoRegisteredModel,
    /// `spec.serving.template` is not valid.
    InvalidTemplate,
    /// Somebody deleted the Service and created another one of its name.
    ServiceTaken,
}

/// A step of a canary, which takes at least five seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "StepForm")]
pub(in crate::decide::tests) struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    approval: bool,
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<i64>,
}

/// A step may be only a share in per cent.
#[derive(Deserialize)]
#[serde(untagged)]
enum StepForm {
    Weight(u32),
    #[serde(rename_all = "camelCase")]
    Full {
        weight: Option<u32>,
        mirror: Option<u32>,
        #[serde(default)]
        approval: bool,
        at_most: Option<i64>,
    },
}

impl From<StepForm> for Step {
    fn from(form: StepForm) -> Self {
        match form {
            StepForm::Weight(per_cent) => Self::weight(per_cent),
            StepForm::Full { weight, mirror, approval, at_most } => {
                Self { weight, mirror, approval, at_most }
            }
        }
    }
}

impl Step {
    pub(in crate::decide::tests) const fn weight(per_cent: u32) -> Self {
        Self { weight: Some(per_cent), mirror: None, approval: false, at_most: None }
    }

    pub(in crate::decide::tests) const fn mirror(per_cent: u32) -> Self {
        Self { weight: None, mirror: Some(per_cent), approval: false, at_most: None }
    }

    /// The same, but it waits for an approval, at most for so many seconds.
    pub(in crate::decide::tests) const fn approved(self, at_most: Option<i64>) -> Self {
        Self { approval: true, at_most, ..self }
    }

    /// The same, but it may take no longer than so many seconds.
    pub(in crate::decide::tests) const fn within(self, seconds: i64) -> Self {
        Self { at_most: Some(seconds), ..self }
    }
}

impl From<Step> for StepIntent {
    fn from(step: Step) -> Self {
        let mirror = step.mirror.map(ShareIntent::Mirror);
        Self {
            share: mirror.or_else(|| step.weight.map(ShareIntent::Weight)).unwrap(),
            at_least: SignedDuration::from_secs(5),
            at_most: step.at_most.map(SignedDuration::from_secs),
            needs_approval: step.approval,
        }
    }
}

impl BlockedBy {
    pub(super) fn blocker(self) -> Option<Blocker> {
        let (reason, scope) = match self {
            Self::Nothing => return None,
            Self::Conflict => (Reason::Conflict, BlockerScope::Changes),
            Self::NoRegisteredModel => (Reason::RegisteredModelNotFound, BlockerScope::Changes),
            Self::InvalidTemplate => (Reason::InvalidTemplate, BlockerScope::Changes),
            Self::ServiceTaken => (Reason::NameTaken, BlockerScope::ChangesAndService),
        };
        Some(Blocker { cause: ReasonMessage::new(reason, "somebody has to act"), scope })
    }
}

/// What chooses the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(in crate::decide::tests) enum DesiredVersion {
    Version(u32),
    Follow(Followed),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::decide::tests) enum Followed {
    Registry,
    Latest,
    /// The best metric.
    Best,
}

impl From<&Followed> for Desired {
    fn from(who: &Followed) -> Self {
        match who {
            Followed::Registry => Self::Registry,
            Followed::Latest => Self::Chosen(Follower::Latest),
            Followed::Best => Self::Chosen(best()),
        }
    }
}

impl DesiredVersion {
    pub(in crate::decide::tests) const REGISTRY: Self = Self::Follow(Followed::Registry);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::decide::tests) enum Strategy {
    #[default]
    BlueGreen,
    Rolling,
}

impl From<Strategy> for StrategyIntent {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::BlueGreen => Self::BlueGreen,
            Strategy::Rolling => Self::Rolling { max_surge: 1 },
        }
    }
}

/// What somebody does to the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::decide::tests) enum Serves {
    Deleted,
    SharedByAll,
    #[serde(untagged)]
    Version(u32),
}

/// How the registry answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::decide::tests) enum Registers {
    /// It answers at once.
    Fine,
    /// It does not answer.
    Away,
    /// Permission denied.
    Forbids,
    /// The model does not exist.
    HasNoModel,
    /// It returns old data.
    Lags,
    /// Writes are slow.
    IsSlow,
    /// Runs cannot be read.
    HidesRuns,
    /// It cannot fetch artifacts.
    HidesExamples,
    /// Lists lack the newest version.
    ListsPartly,
}

/// How one reconcile goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::decide::tests) struct Reconcile {
    /// The operator is killed after this many writes; the status is not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::decide::tests) crash_after: Option<usize>,
    /// It is killed between the two writes of the next action, if that has two.
    #[serde(skip_serializing_if = "is_false")]
    pub(in crate::decide::tests) crash_within: bool,
    /// This write fails, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::decide::tests) fails_at: Option<usize>,
    /// How many moments its view of the cluster lags, except for its own writes.
    #[serde(skip_serializing_if = "is_zero")]
    pub(in crate::decide::tests) stale: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl World {
    pub(in crate::decide::tests) fn happen(&mut self, event: &Event) {
        self.cause(|| format!("{event:?}"));
        if !event.leaves_begun() {
            self.begun = None;
        }
        match event {
            Event::Desired(DesiredVersion::Version(number)) => {
                self.intent.desired = Desired::Version(version(*number));
            }
            Event::Desired(DesiredVersion::Follow(who)) => self.intent.desired = who.into(),
            Event::Settings(settings) => self.serving().settings = Some(settings.clone()),
            Event::Replicas(replicas) => {
                self.serving().replicas = *replicas;
                self.serving().size_is_open = false;
            }
            Event::SizeTakenOut(_) => {
                self.serving().size_is_open = true;
                self.forget_size();
            }
            // The API server accepts no route with the strategy `Rolling`.
            Event::Strategy(strategy) => {
                self.serving().strategy = (*strategy).into();
                self.serving().routed &= *strategy == Strategy::BlueGreen;
                self.serving().steps.clear();
                if !self.serving().routed {
                    self.serving().challengers.clear();
                }
            }
            Event::Challengers(weights) => self.set_challengers(weights),
            Event::Shadow { of, copies } => self.set_shadow(*of, *copies),
            // Nor does it accept steps without a route.
            Event::Steps(steps) => {
                let steps = steps.iter().filter(|_| self.serving().routed);
                self.serving().steps = steps.map(|step| StepIntent::from(*step)).collect();
            }
            Event::Approve(value) => self.annotate(value.as_deref()),
            Event::Traffic(wanted) => {
                let is_possible = self.serving().strategy == StrategyIntent::BlueGreen;
                self.serving().routed = *wanted && is_possible;
                if !*wanted {
                    self.serving().steps.clear();
                    self.serving().challengers.clear();
                }
            }
            Event::Refer(theirs) => self.serving().route_ref = theirs.then(reference),
            Event::Drift(drift) => self.intent.drift = *drift,
            Event::PreviousAlias(kept) => {
                self.intent.previous_alias = kept.then(|| "previous".parse().unwrap());
            }
            Event::SmokeTest(wanted) => self.serving().smoke_test.is_enabled = *wanted,
            Event::OnUnavailable(policy) => self.serving().smoke_test.on_unavailable = *policy,
            Event::Serving(wanted) => self.set_serving(*wanted),
            Event::Rules(there) => self.intent.rules = if *there { rules() } else { Vec::new() },
            Event::Suspend(suspend) => self.live_or(*suspend, Lifecycle::Suspended),
            Event::Blocked(by) => {
                self.intent.blocker = by.blocker();
                if *by == BlockedBy::ServiceTaken {
                    self.happen_outside(&Event::Service(Serves::Deleted));
                }
            }
            Event::Retry(text) => self.intent.retry = Some(text.clone()),
            Event::Deleted(_) => {
                self.intent.lifecycle = Lifecycle::Deleting { since: self.now };
                self.is_gone = !self.intent.has_finalizer;
            }
            Event::StatusLost(_) => {
                self.forget_pending();
                self.lose_reference();
                self.status = Arc::default();
                self.registry.forget_status();
                self.forget_size();
            }
            Event::ClusterRebuilt(_) => self.rebuild_cluster(),
            Event::Up(up) => {
                self.operator.is_up = *up;
                if !up {
                    self.kill();
                }
            }
            Event::Reconcile(how) => drop(self.reconcile_once(how)),
            _ => self.happen_outside(event),
        }
        self.look_at_route();
        self.note_failures();
        self.silence_is_excused |= self.answering() == 0;
        self.promise_of_the_moment();
    }

    fn rebuild_cluster(&mut self) {
        self.forget_pending();
        self.status = Arc::default();
        self.registry.forget_status();
        self.intent.has_finalizer = false;
        self.is_gone |= matches!(self.intent.lifecycle, Lifecycle::Deleting { .. });
        self.cluster = Cluster {
            fates: self.cluster.fates.clone(),
            made: self.cluster.made.clone(),
            quota: self.cluster.quota,
            ..Cluster::default()
        };
        self.has_lost_reference = false;
        if self.serving().route_ref.is_some() {
            self.cluster.gateway.apply_manifest();
        }
        self.left = None;
        self.left_with.clear();
        self.approved_steps.clear();
        self.kill();
    }

    /// What happens in the cluster and in the registry.
    fn happen_outside(&mut self, event: &Event) {
        let cluster = &mut self.cluster;
        let registry = &mut self.registry;
        match event {
            Event::Pods { of, are } => cluster.set_fate(version(*of), *are),
            Event::PodsLost(number) => {
                cluster.lose_pods(version(*number), self.now, self.pace);
                self.lost_pods_at = Some(self.now);
            }
            Event::Quota(most) => cluster.quota = *most,
            Event::DeploymentDeleted(number) => cluster.delete(version(*number), self.now, self.pace),
            Event::DeploymentScaled { of, to } => {
                cluster.scale(version(*of), *to);
                if let Some(left_with) = self.left_with.get_mut(&version(*of)) {
                    *left_with = (*left_with).min(*to);
                }
            }
            Event::DeploymentEdited(number) => {
                if let Some(deployment) = cluster.deployments.get_mut(&version(*number)) {
                    deployment.edit = Some(Edit::Theirs);
                }
            }
            Event::Service(what) => {
                let is_taken =
                    self.intent.blocker.as_ref().is_some_and(|it| it.cause.reason == Reason::NameTaken);
                cluster.traffic = match what {
                    // Ours is already gone.
                    _ if is_taken => Traffic::Nowhere,
                    Serves::Deleted => Traffic::Nowhere,
                    Serves::SharedByAll => Traffic::Shared,
                    Serves::Version(number) => Traffic::One(version(*number)),
                };
                cluster.budget = cluster.budget.filter(|_| *what != Serves::Deleted);
                self.is_pointed_by_others = true;
                self.left = None;
            }
            Event::PortEdited(edited) => {
                cluster.port_is_edited = *edited && cluster.traffic != Traffic::Nowhere;
            }
            Event::Registry(how) => {
                registry.error = match how {
                    Registers::Away => Some(Reason::RegistryUnreachable),
                    Registers::Forbids => Some(Reason::RegistryForbidden),
                    Registers::HasNoModel => Some(Reason::ModelNotFound),
                    Registers::Fine
                    | Registers::Lags
                    | Registers::IsSlow
                    | Registers::HidesRuns
                    | Registers::HidesExamples
                    | Registers::ListsPartly => None,
                };
                registry.lags = *how == Registers::Lags;
                registry.is_slow = *how == Registers::IsSlow;
                registry.lists_partly = *how == Registers::ListsPartly;
                registry.hides_runs = *how == Registers::HidesRuns;
                registry.hides_examples = *how == Registers::HidesExamples;
            }
            Event::Alias(number) => {
                registry.truth.alias = number.map(version);
                self.moves_by_others += 1;
            }
            Event::MovePreviousAlias(number) => {
                registry.truth.previous_alias = number.map(version);
                registry.previous_is_ours = None;
                self.moves_by_others += 1;
            }
            Event::Approved { of, is: true } => {
                registry.truth.merits.unapproved.remove(&version(*of));
            }
            Event::Approved { of, is: false } => {
                registry.truth.merits.unapproved.insert(version(*of));
            }
            Event::Percent { of, is } => {
                registry.truth.merits.percent.insert(version(*of), *is);
            }
            Event::VersionDeleted(number) => {
                registry.log.retain(|_, reported| reported.version != version(*number));
                self.reported.retain(|_, reported| reported.version != version(*number));
                let facts = &mut registry.truth;
                Arc::make_mut(&mut facts.versions).remove(&version(*number));
                facts.alias = facts.alias.filter(|named| *named != version(*number));
                facts.previous_alias = facts.previous_alias.filter(|named| *named != version(*number));
            }
            Event::VersionRegistered(number) => {
                let versions = Arc::make_mut(&mut registry.truth.versions);
                versions.entry(version(*number)).or_insert_with(|| uri(*number));
            }
            Event::ModelRecreated(_) => {
                registry.log.clear();
                self.reported.clear();
                self.model_recreated_at = Some(self.now);
                let facts = &mut registry.truth;
                (facts.alias, facts.previous_alias) = (None, None);
                for (number, model_uri) in (100..).zip(Arc::make_mut(&mut facts.versions).values_mut()) {
                    *model_uri = uri(number);
                }
            }
            _ => self.happen_at_the_gateway(event),
        }
        self.cluster.controllers(self.now, self.pace);
    }

    fn live_or(&mut self, other: bool, lifecycle: Lifecycle) {
        if !matches!(self.intent.lifecycle, Lifecycle::Deleting { .. }) {
            self.intent.lifecycle = if other { lifecycle } else { Lifecycle::Active };
        }
    }

    fn set_serving(&mut self, wanted: bool) {
        if wanted {
            self.intent.serving = self.serving_aside.take().or_else(|| self.intent.serving.take());
        } else {
            self.serving_aside = self.intent.serving.take().or_else(|| self.serving_aside.take());
            // The serving version is to be removed.
            self.answered.clear();
        }
    }

    /// Remembers which versions ever had a reason to be rejected.
    fn note_failures(&mut self) {
        let settings = self.intent.serving.as_ref().and_then(|serving| serving.settings.as_deref());
        let settings_are_bad = settings.is_some_and(is_bad);
        if settings_are_bad {
            self.failed.extend(self.registry.truth.versions.keys());
        }
        let bad = self.cluster.fates.iter().filter(|(_, fate)| fate.is_failure());
        self.failed.extend(bad.map(|(version, _)| *version));
    }
}
