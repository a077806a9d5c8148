//! What must hold at rest, once nothing is left to do: the desired state is reached, or there is a reason why
//! not.
//!
//! It is derived from the world itself, independently of the decision's input.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::{Fate, GatewayIs, World, cluster::is_bad};
use crate::{
    api::{
        ModelAliasStatus,
        condition::{Reason, ReasonMessage},
        model_alias::Drift,
        names::Version,
    },
    decide::{Desired, Lifecycle, Observed, Readiness, StrategyIntent, Traffic, decide},
    status::{Applied, SubjectStatus, next},
};

impl World {
    /// Checks all that must hold at rest.
    pub(in crate::decide::tests) fn promise_of_rest(&mut self) {
        for fault in self.faults_at_rest() {
            self.promise(false, |_| fault);
        }
    }

    fn faults_at_rest(&self) -> Vec<String> {
        if self.is_gone {
            return Vec::new();
        }
        let mut faults = Vec::new();
        let observed = self.observe();
        let decision = decide(&observed);
        for later in [0, 1, 24] {
            let observed = Observed { now: self.now + SignedDuration::from_hours(later), ..observed.clone() };
            let decision = decide(&observed);
            let quiet = next(&observed, &decision, &Applied::default(), &SubjectStatus::default());
            if !decision.actions.is_empty() {
                faults.push(format!("at rest nothing is written, {later}h later: {:?}", decision.actions));
            }
            if quiet != *self.status {
                let differ = differences(&self.status, &quiet);
                faults.push(format!("at rest the status does not change, {later}h later: {differ}"));
            }
        }
        let holding = self.status.conditions.iter().filter(|condition| {
            condition.status == "True"
                && ["Ready", "Reconciling", "Stalled"].contains(&condition.type_.as_str())
        });
        let is_suspended = matches!(decision.report.readiness, Readiness::Suspended(_));
        let holding = holding.count();
        if holding > 1 || (holding == 0 && !is_suspended) {
            faults
                .push("of Ready, Reconciling and Stalled exactly one holds, or none while suspended".into());
        }
        let why = match &decision.report.readiness {
            Readiness::Settled(_) => self.met(&observed),
            Readiness::Suspended(_) if self.intent.lifecycle == Lifecycle::Suspended => Ok(()),
            Readiness::Suspended(cause) => Err(format!("nothing is suspended, but: {}", cause.message)),
            Readiness::Stalled(cause) if self.is_stalled_by(cause, &observed) => Ok(()),
            Readiness::Progressing(cause) if self.is_held_up_by(cause, &observed) => Ok(()),
            Readiness::Stalled(cause) | Readiness::Progressing(cause) => {
                Err(format!("nothing blocks the desired state, but: {}: {}", cause.reason, cause.message))
            }
        };
        faults.extend(why.err());
        faults.extend(self.lives_on_at_rest(&decision.report.readiness).err());
        faults.extend(self.serves_at_rest(&observed).err());
        faults.extend(self.recorded_at_rest().err());
        faults
    }

    pub(super) fn desired_version(&self) -> Option<Version> {
        match &self.intent.desired {
            Desired::Version(version) => Some(*version),
            _ if self.registry.error.is_some() => self.status.target_version,
            Desired::Chosen(follower) => self.registry.chosen_by(follower, self.status.target_version),
            Desired::Registry => self.registry.seen.alias,
        }
    }

    /// The desired state is reached in full.
    fn met(&self, observed: &Observed) -> Result<(), String> {
        let desired_version = self.desired_version().ok_or("no version is requested")?;
        let alias_is_known = self.registry.error.is_none();
        if alias_is_known
            && self.intent.drift == Drift::Correct
            && self.registry.seen.alias != Some(desired_version)
        {
            return Err(format!(
                "the alias names {:?} instead of {desired_version}",
                self.registry.seen.alias
            ));
        }
        let Some(serving) = &self.intent.serving else {
            let is_clear = self.cluster.deployments.is_empty()
                && self.cluster.traffic == Traffic::Nowhere
                && self.cluster.budget.is_none()
                && (self.cluster.gateway.rendered.route.is_none()
                    || self.cluster.gateway.is == GatewayIs::Hidden);
            self.their_route_is_met()?;
            return is_clear.then_some(()).ok_or_else(|| "without spec.serving no workload is left".into());
        };
        if !self.cluster.orphans.is_empty() {
            return Err(format!("{:?} have no owner", self.cluster.orphans));
        }
        if self.cluster.traffic != Traffic::One(desired_version) {
            return Err(format!("{:?} serves instead of {desired_version}", self.cluster.traffic));
        }
        if self.cluster.budget != Some(Traffic::One(desired_version)) {
            return Err(format!("{:?} is protected instead of {desired_version}", self.cluster.budget));
        }
        let workload =
            observed.cluster.workloads.get(&desired_version).ok_or("the serving version has a Deployment")?;
        let seen = (workload.desired, workload.ready, Some(&workload.settings));
        let due = (serving.replicas, serving.replicas, serving.settings.as_ref());
        if self.cluster.is_edited(desired_version) {
            return Err(format!("version {desired_version} runs what somebody else changed in it"));
        }
        if seen != due || self.cluster.port_is_edited {
            return Err(format!("version {desired_version} is {seen:?} instead of {due:?}"));
        }
        self.route_is_met(desired_version)?;
        let others = || self.cluster.deployments.iter().filter(|(version, _)| **version != desired_version);
        if let Some((version, _)) = others().find(|(_, deployment)| deployment.desired > 0) {
            return Err(format!("version {version} keeps running"));
        }
        if others().count() > serving.history {
            return Err(format!("{} Deployments are kept at rest", others().count()));
        }
        let left =
            self.registry.previous_is_ours.filter(|_| alias_is_known && self.intent.previous_alias.is_none());
        if left.is_some()
            && [self.registry.truth.previous_alias, self.registry.seen.previous_alias] == [left; 2]
        {
            return Err(format!("the previous alias stays on {left:?}, though it is not asked for"));
        }
        let previous = self.status.previous_version.filter(|version| {
            self.registry.seen.versions.contains_key(version) && self.intent.previous_alias.is_some()
        });
        match previous.filter(|_| alias_is_known) {
            Some(previous) if self.registry.seen.previous_alias != Some(previous) => Err(format!(
                "the previous alias names {:?} instead of {previous}",
                self.registry.seen.previous_alias
            )),
            _ => Ok(()),
        }
    }

    /// Whether a reported blocker really exists.
    fn is_stalled_by(&self, cause: &ReasonMessage, observed: &Observed) -> bool {
        let known = &self.registry.seen.versions;
        let concerned: BTreeSet<Version> =
            self.desired_version().into_iter().chain(observed.serves()).collect();
        match cause.reason {
            reason if self.blocker() == Some(reason) => true,
            Reason::ProgressDeadlineExceeded
            | Reason::SmokeTestFailed
            | Reason::BecameUnready
            | Reason::ModelCrashed => concerned.iter().any(|version| self.failed.contains(version)),
            Reason::NotApproved => concerned.iter().any(|version| self.not_approved.contains(version)),
            Reason::PodsRefused => self.cluster.quota.is_some(),
            Reason::Unschedulable => {
                concerned.iter().any(|version| self.cluster.fate(*version) == Fate::NoRoom)
            }
            Reason::VersionNotFound => concerned.iter().any(|version| !known.contains_key(version)),
            Reason::VersionReplaced => concerned.iter().any(|version| {
                let loaded = observed.cluster.workloads.get(version).map(|workload| &workload.model_uri);
                loaded.is_some() && loaded != known.get(version)
            }),
            Reason::SmokeTestUnavailable => {
                self.desired_version().is_some_and(|version| !self.can_be_tested(version))
            }
            Reason::AliasNotFound => {
                self.registry.seen.alias.is_none() && self.intent.desired == Desired::Registry
            }
            Reason::AliasDrifted => self.intent.drift == Drift::Report,
            Reason::Contested => self.may_be_contested(),
            Reason::GatesFailed => self.is_refused_by_rules(),
            Reason::RouteUnusable => self.route_is_unusable(),
            Reason::TrafficUnsupported => self.cluster.gateway.is == GatewayIs::Hidden,
            Reason::NoCandidate => self.desired_version().is_none(),
            reason => self.registry.error == Some(reason),
        }
    }

    /// Whether the alias was put back often enough. A write whose operator was killed is begun again.
    fn may_be_contested(&self) -> bool {
        self.moves_by_others > 0 && self.moves_by_others + self.kills >= 3
    }

    /// Whether the cause of an unlimited wait really exists.
    fn is_held_up_by(&self, cause: &ReasonMessage, observed: &Observed) -> bool {
        let is_away = self.registry.error.is_some_and(Reason::is_transient);
        let is_unready = self
            .desired_version()
            .into_iter()
            .chain(observed.serves())
            .any(|version| self.cluster.is_broken(version));
        match cause.reason {
            Reason::Deleting => false,
            Reason::SmokeTesting | Reason::SmokeTestUnavailable => {
                self.desired_version().is_some_and(|version| !self.can_be_tested(version))
            }
            Reason::WaitingForPods => is_unready,
            Reason::AwaitingApproval => self.waits_for_approval(),
            Reason::TrafficPending => self.cluster.gateway.is == GatewayIs::Away || is_unready,
            reason if reason.is_transient() => is_away || self.cannot_be_judged(),
            _ => is_unready,
        }
    }

    /// In any case: a version that can serve does, and the alias names it.
    fn serves_at_rest(&self, observed: &Observed) -> Result<(), String> {
        if self.intent.serving.is_none()
            || self.intent.lifecycle != Lifecycle::Active
            || self.blocker() == Some(Reason::NameTaken)
        {
            return Ok(());
        }
        let mut known = self.status.versions.iter().filter(|held| held.served_at.is_some());
        let served = known.find(|held| {
            let version = held.version;
            self.answered.contains(&version) && self.desired(version) > 0 && self.ready(version) > 0
        });
        let served = served.map(|held| held.version);
        if served.is_some() && self.answering() == 0 {
            return Err(format!(
                "version {served:?} is ready and has served, but {:?}",
                self.cluster.traffic
            ));
        }
        if self.intent.blocker.is_some() {
            return self.serves_while_blocked();
        }
        let Traffic::One(selected) = self.cluster.traffic else { return Ok(()) };
        let facts = &self.registry.seen;
        let loaded = observed.cluster.workloads.get(&selected).map(|workload| &workload.model_uri);
        let is_rejected = |named: Version| {
            self.status.rejected.iter().any(|rejection| rejection.version == named && rejection.active)
        };
        // An alias ahead of a rollout that may still succeed is not moved.
        let is_asked_for =
            |named| self.intent.desired == Desired::Registry || !self.answered.contains(&named);
        let is_ahead = facts.alias.is_some_and(|named| {
            self.desired_version() == Some(named) && !is_rejected(named) && is_asked_for(named)
        });
        let can_be_told = self.ready(selected) > 0
            && !is_ahead
            && self.registry.error.is_none()
            && self.intent.drift == Drift::Correct
            && !self.may_be_contested()
            && loaded.is_some()
            && facts.versions.get(&selected) == loaded;
        if can_be_told && facts.alias != Some(selected) {
            return Err(format!("the alias names {:?}, but {selected} serves", facts.alias));
        }
        Ok(())
    }
}

impl World {
    fn blocker(&self) -> Option<Reason> {
        self.intent.blocker.as_ref().map(|blocker| blocker.cause.reason)
    }

    /// If the desired version is rejected and nothing serves, the version that was live before does, here or
    /// in another cluster.
    fn lives_on_at_rest(&self, readiness: &Readiness) -> Result<(), String> {
        // A version that only waits for room, or for its smoke test, is not rejected.
        let cannot_be_had = self.desired_version().is_none_or(|version| {
            self.is_rejected(version) || !self.registry.seen.versions.contains_key(&version)
        });
        let is_refused =
            matches!(readiness, Readiness::Stalled(_)) && (cannot_be_had || self.is_refused_by_rules());
        let is_free = self.intent.lifecycle == Lifecycle::Active && self.intent.blocker.is_none();
        let is_silent = self.cluster.traffic == Traffic::Nowhere && self.status.version.is_none();
        let can_be_known = self.registry.silence().is_none() && self.intent.serving.is_some();
        if !is_refused || !is_free || !is_silent || !can_be_known {
            return Ok(());
        }
        let facts = &self.registry.seen;
        let previous = facts.previous_alias.filter(|_| self.intent.previous_alias.is_some());
        let named = [facts.alias, previous].into_iter().flatten();
        let mut live = named.filter(|version| self.registry.was_live(*version));
        let due = live.find(|version| Some(*version) != self.desired_version());
        let can_serve = |version: &Version| {
            let settings = self.intent.serving.as_ref().and_then(|serving| serving.settings.as_deref());
            !self.cluster.is_broken(*version) && !settings.is_some_and(is_bad)
        };
        match due.filter(can_serve) {
            Some(version) => Err(format!("version {version} was live, but nothing serves")),
            None => Ok(()),
        }
    }

    /// A blocker prevents neither a rollback to a version that served, nor its size.
    fn serves_while_blocked(&self) -> Result<(), String> {
        let has_served = |version: Version| {
            self.status.versions.iter().any(|held| held.version == version && held.served_at.is_some())
        };
        let desired_version = match self.intent.desired {
            Desired::Version(version) => Some(version),
            Desired::Registry | Desired::Chosen(_) => None,
        };
        let due = desired_version.filter(|version| {
            has_served(*version)
                && self.cluster.deployments.contains_key(version)
                && !self.is_rejected(*version)
        });
        let Some(serves) = due.or(self.status.version).filter(|version| !self.cluster.is_broken(*version))
        else {
            return Ok(());
        };
        let is_there = self.cluster.deployments.contains_key(&serves);
        if self.cluster.traffic != Traffic::One(serves) && due.is_some() && !self.is_room_taken() {
            return Err(format!(
                "{:?} serves instead of {serves}, which served before",
                self.cluster.traffic
            ));
        }
        // If the spec does not set the size, any size is right.
        let replicas = self.intent.serving.as_ref().filter(|serving| !serving.size_is_open);
        let size = self.cluster.desired(serves);
        let replicas = replicas.map_or(size, |serving| serving.replicas);
        if self.cluster.traffic == Traffic::One(serves) && is_there && size != replicas {
            return Err(format!("version {serves} has {size} of {replicas} pods"));
        }
        Ok(())
    }

    /// Whether pods of the serving version that cannot become ready take the room that `Rolling` would start
    /// another version in: without the blocker, that is what is reported.
    fn is_room_taken(&self) -> bool {
        let strategy = self.intent.serving.as_ref().map(|serving| serving.strategy);
        let is_rolling = matches!(strategy, Some(StrategyIntent::Rolling { .. }));
        is_rolling && self.status.version.is_some_and(|serves| self.cluster.is_broken(serves))
    }
}

/// Returns the fields in which two statuses differ.
fn differences(before: &ModelAliasStatus, after: &ModelAliasStatus) -> String {
    let fields = |status: &ModelAliasStatus| serde_json::to_value(status).unwrap();
    let (before, after) = (fields(before), fields(after));
    let names: BTreeSet<&String> = [&before, &after]
        .into_iter()
        .filter_map(|fields| fields.as_object())
        .flat_map(|it| it.keys())
        .collect();
    let differ = names.into_iter().filter(|name| before.get(name) != after.get(name));
    let reported = differ.map(|name| format!("{name}: {:?} then {:?}", before.get(name), after.get(name)));
    reported.collect::<Vec<_>>().join("; ")
}
