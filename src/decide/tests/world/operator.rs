//! The operator: what it remembers between reconciles, and one reconcile, whole or cut short.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{Fate, Reconcile, World, cluster::Deployment, live::Counted, registry::Write};
use crate::{
    api::{
        ModelAliasStatus,
        condition::{Reason, ReasonMessage},
        model_alias::Recorded,
        names::Version,
    },
    decide::{
        Action, AliasRole, Decision, Lifecycle, LiveReport, Observed, SmokeReport, SmokeTestSlot, Traffic,
        decide,
    },
    status::{Applied, Due, HOLD, SubjectStatus, due, events, next},
};

/// When a reconcile whose write failed is repeated.
const AFTER_FAILURE: SignedDuration = SignedDuration::from_secs(5);

/// What the operator keeps in memory and loses when it is killed.
#[derive(Clone, Debug)]
pub(in crate::decide::tests) struct Operator {
    pub(in crate::decide::tests) is_up: bool,
    /// The smoke test, kept as the operator itself keeps it.
    pub(super) smoke: SmokeTestSlot,
    /// What it has counted of live traffic.
    pub(super) counted: Counted,
    /// The results of audit writes.
    pub(super) settled: BTreeMap<Timestamp, Recorded>,
    /// What the last reconcile saw, except for the time. Anything else wakes it.
    pub(super) saw: Option<Arc<Observed>>,
    /// Its wake-up time.
    pub(super) wake: Option<Timestamp>,
    /// The position of its watches.
    pub(super) seen_until: Timestamp,
    /// When it held back the first change of the status that it has not written.
    pub(super) held_since: Option<Timestamp>,
}

impl Default for Operator {
    fn default() -> Self {
        Self {
            is_up: true,
            smoke: SmokeTestSlot::default(),
            counted: Counted::default(),
            settled: BTreeMap::new(),
            saw: None,
            wake: None,
            seen_until: Timestamp::MIN,
            held_since: None,
        }
    }
}

impl World {
    /// The operator is killed; another one starts, or not.
    pub(in crate::decide::tests) fn kill(&mut self) {
        self.kills += 1;
        let Operator { is_up, .. } = self.operator;
        self.operator = Operator { is_up, seen_until: self.now, ..Operator::default() };
        self.registry.forget();
    }

    /// One reconcile in full, or cut short after this many writes, before the status is written.
    pub(in crate::decide::tests) fn reconcile(&mut self, crash_after: Option<usize>) -> Decision {
        self.reconcile_once(&Reconcile { crash_after, ..Reconcile::default() })
    }

    /// One reconcile.
    pub(in crate::decide::tests) fn reconcile_once(&mut self, how: &Reconcile) -> Decision {
        let observed = self.observe_as_of(how.stale);
        let decision = decide(&observed);
        self.operator.wake = decision.wake;
        let seen = self.now - self.pace.step * i32::try_from(how.stale).unwrap();
        self.operator.seen_until = self.operator.seen_until.max(seen);
        if self.is_gone {
            return decision;
        }
        self.cause(|| {
            let Decision { actions, rejection, report, wake, .. } = &decision;
            let wake = wake
                .map_or_else(String::new, |at| format!(", wakes in {:#}", at.duration_since(observed.now)));
            let rejected =
                rejection.as_ref().map_or_else(String::new, |it| format!(", rejects {}", it.version));
            format!("reconcile {how:?}: {:?}{rejected}{wake}\n        {actions:?}", report.readiness)
        });
        self.forget_what_is_not_asked_for();
        self.promise_of_rejection(&decision, &observed);
        self.operator.smoke.keep_only(decision.smoke_test.as_ref());
        if decision.report.live != LiveReport::Unchanged {
            self.operator.counted.follow(decision.live.clone());
        }
        let mut applied = Applied::default();
        let mut unmet: Vec<&Action> = Vec::new();
        for (index, action) in decision.actions.iter().enumerate() {
            if how.crash_after == Some(index) {
                if how.crash_within {
                    self.begin(action);
                }
                self.kill();
                return decision;
            }
            if unmet.iter().any(|unmet| action.needs(unmet)) {
                continue;
            }
            if let Some(cause) = self.failure(action, how.fails_at == Some(index), how.stale) {
                applied.failed(action, cause);
                self.operator.wake = Some(self.now + AFTER_FAILURE);
                unmet.push(action);
                continue;
            }
            if self.apply(action, &observed) {
                let list = if action.goes_on() { &mut applied.begun } else { &mut applied.done };
                list.push(action.clone());
            }
            self.promise_of_the_moment();
        }
        if how.crash_after.is_some_and(|after| after >= decision.actions.len()) {
            self.kill();
            return decision;
        }
        if unmet.is_empty() && how.stale == 0 {
            self.promise_of_restored_traffic(&observed);
            self.promise_of_no_lost_share(&observed);
        }
        let after = next(&observed, &decision, &applied, &SubjectStatus::default());
        self.promise_of_conditions(&after.conditions);
        self.promise_of_rejections(&after.rejected);
        self.promise_of_target(after.target_version);
        self.write_status(&observed, after, &applied);
        decision
    }

    /// Writes the status, or holds it back for a moment.
    fn write_status(&mut self, observed: &Observed, after: ModelAliasStatus, applied: &Applied) {
        let events = events(&observed.status, &after, applied);
        self.cost.add(applied, events.len());
        let must = !events.is_empty() || applied.failure.is_some();
        let held_since = self.operator.held_since.take();
        match due(&observed.status, &after, must, held_since, HOLD, self.now) {
            Due::Never => {}
            Due::Now => {
                self.cost.statuses += 1;
                self.status = Arc::new(after);
                self.look_at_route();
                self.remember_told();
            }
            Due::At(at) => {
                self.promise_of_what_is_held_back(&after);
                self.operator.held_since = held_since.or(Some(self.now));
                self.operator.wake = Some(self.operator.wake.map_or(at, |wake| wake.min(at)));
            }
        }
    }

    /// What is held back makes no difference to any decision, so it may get lost.
    fn promise_of_what_is_held_back(&mut self, after: &ModelAliasStatus) {
        let without = self.observe();
        let with = Observed { status: after.clone(), ..without.clone() };
        let (without, with) = (decide(&without), decide(&with));
        self.promise(without == with, |_| {
            format!("a status that is held back changes no decision: {without:?} instead of {with:?}")
        });
    }

    /// Why an action fails, if it does.
    fn failure(&mut self, action: &Action, fails: bool, stale: usize) -> Option<ReasonMessage> {
        match action {
            _ if fails => Some(ReasonMessage::new(Reason::ApplyFailed, "the API server does not answer")),
            Action::Adopt(object) if self.cluster.unadoptable.contains(object) => {
                Some(ReasonMessage::new(Reason::ApplyRefused, "a policy rejects it"))
            }
            Action::ApplyVersionService { .. } if self.cluster.gateway.refuses_services => {
                Some(ReasonMessage::new(Reason::ApplyRefused, "a quota does not allow another Service"))
            }
            Action::Route(traffic) if !self.would_answer(*traffic) => {
                // Laurel reads from the API server right before. With an up-to-date view it has seen the
                // same.
                self.promise(stale > 0, |_| "no action is decided that is visibly impossible".into());
                Some(ReasonMessage::new(Reason::WaitingForPods, "no pod is ready any more"))
            }
            Action::Share(shares) if !self.is_share_possible(shares) => {
                self.promise(stale > 0, |_| "no action is decided that is visibly impossible".into());
                Some(ReasonMessage::new(Reason::WaitingForPods, "no pod is ready any more"))
            }
            _ => None,
        }
    }

    /// Performs the first of the two writes of an action that has two.
    fn begin(&mut self, action: &Action) {
        if let Action::Apply { version, .. } = action {
            self.cluster.take_over(*version);
        }
    }

    /// Performs one action, and checks the promises at that moment. Returns whether it is done: a write
    /// already in progress is not.
    fn apply(&mut self, action: &Action, observed: &Observed) -> bool {
        self.promise_of_action(action);
        self.promise_of_begun(action);
        match action {
            Action::SetFinalizer { present } => self.set_finalizer(*present),
            Action::Apply { version, model_uri, replicas } => {
                let settings = self.intent.serving.as_ref().and_then(|serving| serving.settings.clone());
                let deployment = Deployment {
                    desired: *replicas,
                    settings: settings.unwrap_or_default(),
                    model_uri: model_uri.clone(),
                    started_at: self.now,
                    generation: 0,
                    edit: None,
                };
                self.promise_of_room(*version, *replicas);
                if replicas < &self.desired(*version) {
                    self.promise_of_scale(*version, *replicas);
                }
                self.left_with.remove(version);
                self.cluster.apply(*version, deployment);
                self.failed_smoke_test.remove(version);
            }
            Action::Scale { version, replicas } => {
                self.promise_of_scale(*version, *replicas);
                self.promise_of_room(*version, *replicas);
                let begins = (*replicas > 0 && observed.is_at_rest(*version)).then_some(self.now);
                self.promise_of_start(*version, begins.is_some());
                self.left_with.remove(version);
                if begins.is_some() {
                    self.failed_smoke_test.remove(version);
                }
                if let Some(deployment) = self.cluster.scale(*version, *replicas) {
                    deployment.started_at = begins.unwrap_or(deployment.started_at);
                }
            }
            Action::SmokeTest { version, attempt } => {
                let is_ready = observed.is_ready(*version);
                self.promise(is_ready, |_| "a smoke test needs a ready pod".into());
                self.operator.smoke.begin(*version, attempt);
            }
            Action::Route(traffic) => {
                self.promise_of_route(*traffic, observed);
                self.route(*traffic);
            }
            Action::Share(shares) => {
                self.promise_of_shares(shares, observed);
                self.remember_shares(shares);
                self.cluster.gateway.write(shares.clone());
                self.is_routed_by_others = false;
            }
            Action::DeleteRoute => {
                self.promise(!self.cluster.gateway.is_theirs, |_| "their route is not deleted".into());
                self.cluster.gateway.delete_route();
            }
            Action::ApplyVersionService { version } => {
                self.cluster.gateway.services.entry(*version).or_default();
            }
            Action::DeleteVersionService { version } => {
                self.promise_of_version_service(*version);
                self.cluster.gateway.services.remove(version);
            }
            Action::Delete { version } => {
                self.promise_of_delete(*version);
                self.cluster.delete(*version, self.now, self.pace);
            }
            Action::Adopt(object) => {
                self.cluster.orphans.remove(object);
            }
            Action::Protect(traffic) => self.cluster.budget = Some(*traffic),
            Action::DeleteBudget => self.cluster.budget = None,
            Action::DeleteService => self.route(Traffic::Nowhere),
            Action::FillInReplicas { replicas } => {
                let serving = self.serving();
                serving.replicas = *replicas;
                serving.size_is_open = false;
            }
            Action::SetAlias { role, version, replaces, corrects } => {
                if self.registry.is_writing(*role) {
                    return false;
                }
                if *corrects {
                    self.promise_of_contention(observed);
                }
                self.promise_of_alias(*role, *version, *replaces);
                self.write_alias(*role, Some(*version), *replaces);
            }
            Action::DeleteAlias { role, replaces } => {
                if self.registry.is_writing(*role) {
                    return false;
                }
                self.promise(self.registry.silence().is_none(), |_| {
                    "no write to an unreachable registry".into()
                });
                self.write_alias(*role, None, Some(*replaces));
            }
            Action::WriteAudit { version, at } => self.write_audit(*version, *at, observed),
        }
        self.cluster.controllers(self.now, self.pace);
        true
    }

    fn set_finalizer(&mut self, present: bool) {
        if !present {
            self.promise_of_handed_back_route();
        }
        self.intent.has_finalizer = present;
        let is_deleting = matches!(self.intent.lifecycle, Lifecycle::Deleting { .. });
        self.is_gone = is_deleting && !present;
    }

    /// Whether a pod is ready that the Service would then select.
    fn would_answer(&self, traffic: Traffic) -> bool {
        let cluster = &self.cluster;
        match traffic {
            Traffic::Nowhere => false,
            Traffic::One(version) => self.ready(version) > 0,
            Traffic::Shared => cluster.pods.keys().any(|version| self.ready(*version) > 0),
        }
    }

    fn route(&mut self, traffic: Traffic) {
        if self.cluster.traffic != traffic {
            for (&version, deployment) in &self.cluster.deployments {
                if self.cluster.traffic.reaches(version) {
                    self.left_with.insert(version, deployment.desired);
                }
            }
            if let Traffic::One(before) = self.cluster.traffic {
                self.left =
                    (!self.is_pointed_by_others).then_some((before, self.known_to_serve_until(before)));
            }
            self.is_pointed_by_others = false;
        }
        if traffic == Traffic::Nowhere {
            self.silence_is_excused = true;
        }
        self.cluster.traffic = traffic;
        self.cluster.port_is_edited = false;
    }

    /// Returns the version that traffic leaves now, if the status has it as served. If the reconciles that
    /// switched traffic there and away again were both cut short, only the time before is known.
    fn known_to_serve_until(&self, version: Version) -> Timestamp {
        let idle_since =
            self.status.versions.iter().find(|held| held.version == version).and_then(|held| held.idle_since);
        idle_since.filter(|_| self.status.version != Some(version)).unwrap_or(self.now)
    }

    /// Begins a write of an alias, which lands later.
    pub(in crate::decide::tests) fn write_alias(
        &mut self,
        role: AliasRole,
        version: Option<Version>,
        replaces: Option<Version>,
    ) {
        let moments = if self.registry.is_slow { 5 } else { 1 };
        self.registry.writes.push(Write {
            role,
            version,
            replaces,
            lands: self.now + self.pace.step * moments,
            is_heard: true,
            is_written_down: true,
        });
    }

    /// One attempt of the pending smoke test.
    pub(super) fn try_smoke_test(&mut self) {
        let Some((version, test)) = self.operator.smoke.get().cloned() else { return };
        let report = match &test.report {
            report @ (SmokeReport::Running(_) | SmokeReport::Unavailable { .. }) => {
                self.smoke_test(version, report)
            }
            _ => return,
        };
        self.operator.smoke.update(version, &test.attempt, report);
    }

    /// Returns the result of one attempt, given the last report.
    pub(in crate::decide::tests) fn smoke_test(
        &mut self,
        version: Version,
        before: &SmokeReport,
    ) -> SmokeReport {
        if !self.can_be_tested(version) {
            let why = "no answer".to_owned();
            return match before {
                SmokeReport::Running(None) => SmokeReport::Running(Some(why)),
                SmokeReport::Unavailable { since, .. } => SmokeReport::Unavailable { since: *since, why },
                _ => SmokeReport::Unavailable { since: self.now, why },
            };
        }
        *self.requests.entry(version).or_default() += 1;
        if self.cluster.fate(version) == Fate::FailsSmokeTest {
            self.failed_smoke_test.insert(version);
            self.failed.insert(version);
            return SmokeReport::Failed("500".into());
        }
        self.proven.insert(version);
        SmokeReport::Passed
    }

    /// Whether the example can be read and a pod reached.
    pub(super) fn can_be_tested(&self, version: Version) -> bool {
        let is_read = self.registry.error.is_none() && !self.registry.hides_examples;
        is_read && self.ready(version) > 0 && self.cluster.fate(version) != Fate::Unreachable
    }
}
