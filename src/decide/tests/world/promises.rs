//! What must hold at each write and at every moment. A broken promise is collected, or ends the test at once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{Fate, World};
use crate::{
    api::{
        condition::{ConditionType, Reason},
        model_alias::{PUT_BACK_MAX, Rejection},
        names::Version,
    },
    decide::{
        Action, AliasRole, BlockerScope, Decision, Desired, Follower, Lifecycle, Observed, OnUnavailable,
        SKIPPED_AFTER, SmokeReport, StrategyIntent, Traffic, Workload,
    },
};

impl World {
    /// Collects a broken promise; the sentence states what should hold.
    pub(in crate::decide::tests) fn promise(&mut self, holds: bool, sentence: impl FnOnce(&Self) -> String) {
        if !holds {
            let sentence = format!("{} (at {}s)", sentence(self), self.second_of_story());
            self.cause(|| format!("BROKEN: {sentence}"));
            assert!(self.collects, "broken promise: {sentence}");
            self.broken.push(sentence);
        }
    }

    /// Before any write: it must be allowed. A blocker allows only traffic and sizes of existing Deployments.
    pub(super) fn promise_of_action(&mut self, action: &Action) {
        let is_suspended = self.intent.lifecycle == Lifecycle::Suspended;
        self.promise(!is_suspended, |_| "nothing is written while suspended".into());
        let Some(blocker) = &self.intent.blocker else { return };
        let has_served = |version: &Version| {
            self.status.versions.iter().any(|held| held.version == *version && held.served_at.is_some())
        };
        let is_known = |version: &Version| {
            self.answered.contains(version) || has_served(version) || self.cluster.traffic.reaches(*version)
        };
        let starts = |version: &Version| self.desired(*version) == 0 && !is_known(version);
        let may_be_done = match action {
            Action::Route(_) | Action::Share(_) | Action::ApplyVersionService { .. } => {
                blocker.scope == BlockerScope::Changes
            }
            // They change nothing that is missing.
            Action::Adopt(_) | Action::Protect(_) => blocker.scope != BlockerScope::Everything,
            Action::Scale { version, replicas } => *replicas == 0 || !starts(version),
            _ => false,
        };
        let holds = may_be_done || self.intent.lifecycle != Lifecycle::Active;
        self.promise(holds, |world| format!("{action:?} is blocked: {:?}", world.intent.blocker));
    }

    /// Before any write for a follower: a version that the registry requested, and work begun on it, is not
    /// abandoned because the registry does not answer now.
    pub(super) fn promise_of_begun(&mut self, action: &Action) {
        if self.intent.desired != Desired::Registry {
            return;
        }
        let concerns = match action {
            Action::Apply { version, .. } | Action::Scale { version, .. } | Action::Delete { version } => {
                Some(*version)
            }
            Action::Route(Traffic::One(version)) => Some(*version),
            Action::Route(Traffic::Nowhere | Traffic::Shared)
            | Action::SetFinalizer { .. }
            | Action::SmokeTest { .. }
            | Action::DeleteService
            | Action::Share(_)
            | Action::DeleteRoute
            | Action::ApplyVersionService { .. }
            | Action::DeleteVersionService { .. }
            | Action::Protect(_)
            | Action::DeleteBudget
            | Action::Adopt(_)
            | Action::FillInReplicas { .. }
            | Action::SetAlias { .. }
            | Action::DeleteAlias { .. }
            | Action::WriteAudit { .. } => None,
        };
        if self.registry.silence().is_none() {
            if concerns.is_some() && concerns == self.registry.seen.alias {
                self.begun = concerns;
            }
            return;
        }
        let Some(begun) = self.begun.filter(|begun| !self.is_rejected(*begun)) else { return };
        let gives_up = match action {
            Action::Scale { version, replicas: 0 } | Action::Delete { version } => *version == begun,
            Action::Route(Traffic::One(version)) => {
                self.cluster.traffic == Traffic::One(begun) && *version != begun && self.ready(begun) > 0
            }
            Action::Apply { .. }
            | Action::Scale { .. }
            | Action::Route(Traffic::Nowhere | Traffic::Shared)
            | Action::SetFinalizer { .. }
            | Action::SmokeTest { .. }
            | Action::DeleteService
            | Action::Share(_)
            | Action::DeleteRoute
            | Action::ApplyVersionService { .. }
            | Action::DeleteVersionService { .. }
            | Action::Protect(_)
            | Action::DeleteBudget
            | Action::Adopt(_)
            | Action::FillInReplicas { .. }
            | Action::SetAlias { .. }
            | Action::DeleteAlias { .. }
            | Action::WriteAudit { .. } => false,
        };
        self.promise(!gives_up, |_| {
            format!("version {begun} was begun and is not abandoned without an answer: {action:?}")
        });
    }

    /// The registry answers, and requests something else by now.
    pub(super) fn forget_what_is_not_asked_for(&mut self) {
        if self.registry.silence().is_none() && self.registry.seen.alias != self.begun {
            self.begun = None;
        }
    }

    pub(super) fn is_rejected(&self, version: Version) -> bool {
        self.status.rejected.iter().any(|rejection| rejection.version == version && rejection.active)
    }

    /// Before traffic is switched: the version must be ready and proven, and at full size if traffic leaves a
    /// ready one.
    pub(super) fn promise_of_route(&mut self, traffic: Traffic, observed: &Observed) {
        let known = |version: Version| observed.cluster.workloads.get(&version);
        let replicas = self.replicas();
        match traffic {
            // Only other fields of the Service are corrected.
            _ if traffic == self.cluster.traffic => {}
            Traffic::Nowhere => self.promise(false, |_| {
                "bug in Laurel, please report it: a Service without a selected version".into()
            }),
            Traffic::One(version) => {
                let ready = known(version).map_or(0, Workload::counted);
                let is_ready = ready > 0 && self.ready(version) > 0;
                self.promise(is_ready, |_| {
                    format!("traffic only ever reaches a ready version, not {version}")
                });
                // While pods are replaced, its own are among those that answer.
                let leaves = observed.answering().map(|(_, workload)| workload.ready).sum::<u32>();
                // A version that has served needs as many pods as answer now, or as it had itself.
                let left_with = self.left_with.get(&version).copied().unwrap_or(u32::MAX);
                let has_served = self.answered.contains(&version);
                let enough = if has_served { replicas.min(leaves).min(left_with) } else { replicas };
                self.promise(leaves == 0 || ready >= enough, |_| {
                    format!(
                        "traffic leaves a ready version only for one at full size, not {ready} of {enough}"
                    )
                });
                self.promise_of_proof(version);
                self.promise_of_approved_route(version, observed);
            }
            Traffic::Shared => {
                let reached = self.cluster.deployments.keys().filter(|version| self.ready(**version) > 0);
                for version in reached.copied().collect::<Vec<_>>() {
                    self.promise_of_proof(version);
                }
            }
        }
    }

    /// After all writes of a reconcile: the Service selects a ready pod again, if there is one of a version
    /// that has served, whatever another version is waiting for.
    pub(super) fn promise_of_restored_traffic(&mut self, observed: &Observed) {
        let scope = self.intent.blocker.as_ref().map(|blocker| blocker.scope);
        let may_route = scope.is_none_or(|scope| scope == BlockerScope::Changes)
            && self.intent.lifecycle == Lifecycle::Active
            && self.intent.serving.is_some();
        if !may_route || observed.desired_is_new() || observed.stand_in(None).is_none() {
            return;
        }
        let answering = self.answering();
        self.promise(answering > 0, |_| "the Service selects a version that has served and is ready".into());
    }

    /// Whether pods were lost that the operator has not seen go: it counts on them, and makes no room for
    /// their successors.
    fn is_blind(&self) -> bool {
        self.lost_pods_at.is_some_and(|lost| self.operator.seen_until < lost)
    }

    /// A version that never served passes its smoke test first.
    pub(super) fn promise_of_proof(&mut self, version: Version) {
        self.promise_of_rules(version);
        let is_needed = self.intent.serving.as_ref().is_some_and(|serving| serving.smoke_test.is_enabled);
        let is_skipped = self.may_skip_smoke_test(version);
        let is_proven = self.answered.contains(&version) || self.proven.contains(&version) || is_skipped;
        self.promise(!is_needed || is_proven, |_| {
            format!("version {version} gets no traffic without a smoke test")
        });
        let fails = self.cluster.fate(version) == Fate::FailsSmokeTest && !self.proven.contains(&version);
        let holds = !is_needed || !fails || self.answered.contains(&version) || is_skipped;
        self.promise(holds, |_| format!("version {version} fails its smoke test and gets no traffic"));
    }

    /// Whether the version may get traffic because its smoke test cannot run.
    fn may_skip_smoke_test(&self, version: Version) -> bool {
        let policy = self.intent.serving.as_ref().map(|serving| serving.smoke_test.on_unavailable);
        let report = self.operator.smoke.of(version).map(|test| &test.report);
        let is_unavailable = matches!(report, Some(SmokeReport::Unavailable { since, .. })
            if self.now >= *since + SKIPPED_AFTER);
        policy == Some(OnUnavailable::Skip) && is_unavailable
    }

    /// When a version is rejected: because of this attempt, and never because its smoke test could not run.
    /// An attempt ends when another version is requested, on a retry, and when the version is rejected or
    /// restarted.
    pub(super) fn promise_of_rejection(&mut self, decision: &Decision, observed: &Observed) {
        if observed.retry_is_asked() {
            self.failed_smoke_test.clear();
        }
        self.failed_smoke_test.retain(|version| decision.target == Some(*version));
        let Some(rejection) = &decision.rejection else { return };
        let version = rejection.version;
        let is_same = |known: &Rejection| {
            known.version == version && known.active && known.settings == rejection.settings
        };
        if observed.status.rejected.iter().any(is_same) {
            return;
        }
        let workload = observed.cluster.workloads.get(&version);
        let is_due = match rejection.reason {
            Reason::SmokeTestFailed => self.failed_smoke_test.contains(&version),
            Reason::ProgressDeadlineExceeded => workload.is_none_or(|workload| !workload.rolled_out),
            Reason::NotApproved => self.was_approved_too_late(version, observed),
            reason => reason != Reason::SmokeTestUnavailable,
        };
        self.promise(is_due, |_| {
            format!("version {version} is rejected because of this attempt: {}", rejection.reason)
        });
        self.failed_smoke_test.remove(&version);
    }

    /// Before pods are started by a change of size alone: they run what was rendered, where that can be
    /// rendered again.
    pub(super) fn promise_of_start(&mut self, version: Version, begins: bool) {
        let settings = self.intent.serving.as_ref().and_then(|serving| serving.settings.as_ref());
        let can_be_rendered = settings.is_some() && self.intent.blocker.is_none();
        let is_edited = self.cluster.is_edited(version);
        self.promise(!(begins && is_edited && can_be_rendered), |_| {
            format!("version {version} is not started with what somebody else changed in it")
        });
    }

    /// Before a version is scaled down.
    pub(super) fn promise_of_scale(&mut self, version: Version, replicas: u32) {
        let wanted = self.replicas();
        if replicas == 0 {
            self.promise(!self.is_warm(version), |_| {
                format!("version {version}, which traffic just left, stays warm")
            });
            self.promise_of_what_the_gateway_reaches(version);
        }
        match self.cluster.traffic {
            Traffic::One(serves) if serves == version => {
                let shrinks = replicas < self.cluster.desired(version);
                self.promise(replicas >= wanted || !shrinks, |_| {
                    format!("the serving version is not scaled to {replicas} of {wanted}")
                });
            }
            Traffic::Shared => {
                let others = self.cluster.deployments.keys().filter(|other| **other != version);
                let others: u32 = others.map(|other| self.counted(*other)).sum();
                let before = self.counted(version);
                let after = others + before.min(replicas);
                let holds = after >= wanted.min(others + before) || self.is_blind();
                self.promise(holds, |_| format!("never fewer ready than desired: {after} of {wanted}"));
            }
            _ => {
                let holds = replicas > 0 || !self.cluster.endpoints.contains(&version);
                self.promise(holds, |_| format!("version {version} has endpoints and is not scaled to zero"));
            }
        }
    }

    /// Before a version is scaled up: with `Rolling` there is room beside all other pods, including
    /// terminating ones. If no version answers at all, the goal does not wait for room; pods whose Deployment
    /// somebody deleted are not visible.
    pub(super) fn promise_of_room(&mut self, version: Version, replicas: u32) {
        let strategy = self.intent.serving.as_ref().map(|serving| serving.strategy);
        let Some(StrategyIntent::Rolling { max_surge }) = strategy else { return };
        let cluster = &self.cluster;
        let is_missing =
            !cluster.deployments.contains_key(&version) && cluster.traffic == Traffic::One(version);
        if self.is_blind()
            || is_missing
            || cluster.traffic == Traffic::Nowhere
            || replicas <= cluster.desired(version)
        {
            return;
        }
        let others = cluster.deployments.iter().filter(|(other, _)| **other != version);
        let others: u32 = others.map(|(other, it)| it.desired.max(cluster.pods(*other))).sum();
        let own = if cluster.deployments.contains_key(&version) { cluster.pods(version) } else { 0 };
        let pods = others + own.max(replicas);
        let limit = self.replicas() + max_surge;
        self.promise(pods <= limit, |_| {
            format!("version {version} grows to {replicas} where there is room: {pods} pods of {limit}")
        });
    }

    /// Before a Deployment is deleted.
    pub(super) fn promise_of_delete(&mut self, version: Version) {
        if self.intent.serving.is_none() {
            return;
        }
        let serves = self.cluster.traffic == Traffic::One(version) || self.cluster.traffic == Traffic::Shared;
        let has_endpoints = self.cluster.endpoints.contains(&version);
        self.promise(!serves && !has_endpoints, |_| format!("version {version} answers and is not deleted"));
        self.promise_of_what_the_gateway_reaches(version);
    }

    /// When an alias begins to be put back: not once more than agreed, until somebody asks for it.
    pub(super) fn promise_of_contention(&mut self, observed: &Observed) {
        let is_allowed = self.status.put_back_at.len() < PUT_BACK_MAX || observed.retry_is_asked();
        self.promise(is_allowed, |_| "a contested alias is not put back once more".into());
    }

    /// When an alias write begins: the alias will name a version that serves.
    pub(super) fn promise_of_alias(&mut self, role: AliasRole, version: Version, replaces: Option<Version>) {
        let answers = self.registry.silence().is_none();
        self.promise(answers, |_| "nothing is written to an unreachable registry".into());
        let exists = self.registry.seen.versions.contains_key(&version);
        self.promise(exists, |_| {
            format!("no alias is set to version {version}, which the registry does not have")
        });
        let named = *self.registry.seen.named(role);
        self.promise(named == replaces, |_| "a write names what it replaces".into());
        if role == AliasRole::Main && self.intent.serving.is_some() {
            // While pods are replaced, the alias stays on the old version.
            let is_shared = self.cluster.traffic == Traffic::Shared;
            let serves = if is_shared { self.status.version } else { self.answered_last };
            self.promise(serves == Some(version), |_| {
                format!(
                    "the alias names the version that answers, or did so last: not {version}, but {serves:?}"
                )
            });
        }
    }

    /// When the status is written: the transition time of a condition is that of its last change.
    pub(super) fn promise_of_conditions(&mut self, after: &[Condition]) {
        let now = Time(self.now);
        for condition in after {
            let before = self.status.conditions.iter().find(|before| before.type_ == condition.type_);
            let since = before.filter(|before| before.status == condition.status);
            let due = since.map_or(&now, |before| &before.last_transition_time).clone();
            self.promise(condition.last_transition_time == due, |_| {
                format!("{} holds since {:?}", condition.type_, due)
            });
            let gave_up = condition.type_ == ConditionType::RegistrySynced.to_string()
                && condition.reason == Reason::Contested.to_string();
            let is_writing = self.registry.is_writing(AliasRole::Main);
            self.promise(!gave_up || !is_writing, |_| "who writes the alias has not given up".into());
        }
    }

    /// When the status is written: versions are rejected only for their own errors.
    pub(super) fn promise_of_rejections(&mut self, after: &[Rejection]) {
        let others = [Reason::GatesFailed, Reason::NotApproved];
        for rejection in after.iter().filter(|it| it.active && !others.contains(&it.reason)) {
            let is_new = !self.status.rejected.iter().any(|before| before == rejection);
            let is_fair = !is_new
                || self.failed.contains(&rejection.version)
                || self.is_shown_by_traffic(rejection.version, rejection.reason);
            self.promise(is_fair, |_| {
                format!("version {} did not fail by itself: {}", rejection.version, rejection.message)
            });
        }
    }

    /// When the status is written: a follower of the newest version never turns to a lower one while the
    /// higher one exists.
    pub(super) fn promise_of_target(&mut self, after: Option<Version>) {
        let follows_newest = self.intent.desired == Desired::Chosen(Follower::Latest);
        let before = self.status.target_version;
        let is_there = before.is_some_and(|before| self.registry.seen.versions.contains_key(&before));
        let is_lower = after.is_some() && after < before;
        self.promise(!follows_newest || !is_there || !is_lower, |_| {
            format!("version {before:?} exists, so {after:?} is not chosen")
        });
    }

    /// At every moment: the operator never leaves a service without a ready pod, and pods stay within the
    /// limit.
    pub(super) fn promise_of_the_moment(&mut self) {
        let answering = self.answering();
        if answering > 0 {
            self.silence_is_excused = false;
            let reached = self.cluster.selected().into_iter().filter(|version| self.ready(*version) > 0);
            let reached: Vec<Version> = reached.collect();
            if let Traffic::One(serves) = self.cluster.traffic {
                self.answered_last = Some(serves);
            }
            self.answered.extend(reached);
        }
        let holds = answering > 0 || self.answered.is_empty() || self.silence_is_excused;
        self.promise(holds, |_| "the operator does not leave the Service without a ready pod".into());
        if !holds {
            self.silence_is_excused = true;
        }
        if let Some(limit) = self.pod_limit {
            let pods = self.cluster.all_pods();
            self.promise(pods <= limit, |_| format!("{pods} pods, at most {limit}"));
        }
    }

    /// Whether traffic left the version so recently that it has to keep its size. A version whose serving a
    /// crash left no trace of does not count.
    fn is_warm(&self, version: Version) -> bool {
        let Some(serving) = &self.intent.serving else { return false };
        let is_known =
            self.status.versions.iter().any(|held| held.version == version && held.served_at.is_some());
        serving.strategy == StrategyIntent::BlueGreen
            && is_known
            && !self.is_rejected(version)
            && self.left.is_some_and(|(left, at)| left == version && self.now < at + serving.warm_for)
    }

    fn counted(&self, version: Version) -> u32 {
        self.ready(version).min(self.cluster.desired(version))
    }
}
