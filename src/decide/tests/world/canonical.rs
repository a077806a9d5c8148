//! A world as a hash that two worlds share if no future can distinguish them: times count relative to now,
//! and only as far as anything depends on them.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

use jiff::{SignedDuration, Timestamp};

use super::World;
use crate::{
    api::model_alias::{KnownVersion, Recorded},
    decide::{
        CONTENTION, Desired, GRACE, Lifecycle, REGISTRY_DEADLINE, SKIPPED_AFTER, SmokeReport,
        SmokeTestIntent, StrategyIntent, Traffic,
    },
    status::HOLD,
};

struct Digest<'a> {
    world: &'a World,
    hasher: DefaultHasher,
}

impl World {
    pub(in crate::decide::tests) fn digest(&self) -> u64 {
        let mut digest = Digest { world: self, hasher: DefaultHasher::new() };
        digest.intent();
        digest.status();
        digest.cluster();
        digest.registry();
        digest.operator();
        digest.judgement();
        digest.hasher.finish()
    }
}

impl Digest<'_> {
    fn add(&mut self, value: impl Hash) {
        value.hash(&mut self.hasher);
    }

    /// How long ago, in seconds, capped where it no longer matters.
    fn age(&mut self, since: Option<Timestamp>, most: SignedDuration) {
        let age = since.map(|since| self.world.now.duration_since(since).min(most).as_secs());
        self.add(age);
    }

    fn version(&mut self, traffic: Traffic) {
        match traffic {
            Traffic::Nowhere => self.add(0),
            Traffic::One(version) => self.add((1, version)),
            Traffic::Shared => self.add(2),
        }
    }

    fn deadline(&self) -> SignedDuration {
        self.world.intent.serving.as_ref().map_or(SignedDuration::ZERO, |serving| serving.progress_deadline)
    }

    fn warm_for(&self) -> SignedDuration {
        self.world.intent.serving.as_ref().map_or(SignedDuration::ZERO, |serving| serving.warm_for)
    }

    /// As far as the time of a step of a canary makes a difference.
    fn longest_step(&self) -> SignedDuration {
        let steps = self.world.intent.serving.iter().flat_map(|serving| &serving.steps);
        steps.filter_map(|step| step.at_most).max().unwrap_or_default().max(GRACE)
    }

    fn intent(&mut self) {
        let intent = &self.world.intent;
        match &intent.desired {
            Desired::Version(version) => self.add(Some(version)),
            Desired::Registry => self.add(None::<u32>),
            Desired::Chosen(follower) => self.add(format!("{follower:?}")),
        }
        if let Some(serving) = &intent.serving {
            let is_rolling = matches!(serving.strategy, StrategyIntent::Rolling { .. });
            let SmokeTestIntent { is_enabled, on_unavailable, .. } = serving.smoke_test;
            self.add((serving.replicas, &serving.settings, is_rolling, serving.routed, &serving.steps));
            self.add(&serving.route_ref);
            self.add(&serving.challengers);
            self.add((is_enabled, on_unavailable as u8));
        }
        match intent.lifecycle {
            Lifecycle::Active => self.add(0),
            Lifecycle::Suspended => self.add(1),
            Lifecycle::Deleting { since } => self.age(Some(since), REGISTRY_DEADLINE),
        }
        let reports = matches!(intent.drift, crate::api::model_alias::Drift::Report);
        self.add((intent.previous_alias.is_some(), intent.deletes_alias, intent.has_finalizer, reports));
        let blocker = intent.blocker.as_ref().map(|blocker| blocker.cause.reason);
        self.add((&intent.retry, blocker, intent.rules.is_empty()));
        self.add(intent.approval.as_ref().map(|approval| &approval.value));
    }

    fn status(&mut self) {
        let status = &self.world.status;
        self.add((status.version, status.target_version, status.previous_version, status.registry_version));
        self.add(&status.retried);
        self.add((&status.route_ref, self.world.has_lost_reference));
        for entry in status.history.iter().filter(|entry| entry.recorded == Recorded::Pending) {
            let is_settled = self.world.operator.settled.contains_key(&entry.at);
            let is_logged = self.world.registry.log.contains_key(&entry.at);
            self.add((entry.version, entry.outcome, is_settled, is_logged));
        }
        self.add(self.world.recorded_at_rest().is_ok());
        for at in &status.put_back_at {
            self.add(self.world.now.duration_since(*at) < CONTENTION);
        }
        let (deadline, warm_for) = (self.deadline(), self.warm_for());
        for held in &status.versions {
            self.add((held.version, &held.model_uri, &held.settings, held.served_at.is_some()));
            self.add(held.smoke_test.map(|outcome| outcome as u8));
            self.age(held.started_at, deadline);
            self.age(held.idle_since, warm_for);
            // The order in which entries are dropped.
            let last_used = |held: &KnownVersion| held.idle_since.or(held.started_at);
            let older = status.versions.iter().filter(|other| last_used(other) < last_used(held)).count();
            self.add(older);
        }
        let traffic = status.traffic.iter();
        self.add(traffic.map(|it| (&it.alias_ref, it.version, it.weight)).collect::<Vec<_>>());
        let accepted = status.route.as_ref();
        let accepted = accepted.filter(|known| self.world.cluster.gateway.is_current(&known.revision));
        self.age(accepted.map(|known| known.at), GRACE);
        self.age(status.route_pending_since, SignedDuration::from_secs(1));
        if let Some(canary) = &status.canary {
            let approved: Vec<u32> = canary.approvals.iter().map(|approval| approval.step).collect();
            self.add((canary.version, canary.step, canary.weight, canary.mirror, approved));
            let now = self.world.now;
            let stopped = canary.stopped_since.map_or(0, |since| now.duration_since(since).as_secs());
            let counted = now.duration_since(canary.since).as_secs() - canary.stopped_seconds - stopped;
            self.add((canary.stopped_since.is_some(), counted.min(self.longest_step().as_secs())));
        }
        let seen = status.approval.as_ref();
        self.add(seen.map(|seen| (&seen.value, seen.ignored.is_some())));
        for rejection in &status.rejected {
            self.add((rejection.version, &rejection.settings, rejection.active, rejection.reason));
        }
    }

    fn cluster(&mut self) {
        let (now, pace) = (self.world.now, self.world.pace);
        let cluster = &self.world.cluster;
        let deadline = self.deadline();
        self.version(cluster.traffic);
        self.add(cluster.budget.map(|budget| budget == cluster.traffic));
        self.add((
            cluster.port_is_edited,
            &cluster.fates,
            &cluster.endpoints,
            cluster.quota,
            &cluster.orphans,
        ));
        self.add(cluster.gateway.digest(now));
        for (version, deployment) in &cluster.deployments {
            self.add((
                version,
                deployment.desired,
                &deployment.settings,
                &deployment.model_uri,
                deployment.edit,
            ));
            self.age(Some(deployment.started_at), deadline);
        }
        for (version, pods) in &cluster.pods {
            for pod in pods {
                self.add((version, &pod.settings, &pod.model_uri, pod.is_down, pod.was_ready));
                self.age(pod.placed, pace.start.max(deadline));
                self.age(pod.unready_since, deadline);
                self.add(pod.ends.map(|ends| ends.duration_since(now).as_secs()));
            }
        }
    }

    fn registry(&mut self) {
        let registry = &self.world.registry;
        for facts in [&registry.truth, &registry.seen] {
            self.add((facts.alias, facts.previous_alias, &facts.versions, &facts.merits));
        }
        self.add((
            registry.error,
            registry.is_unread,
            registry.hides_runs,
            registry.hides_examples,
            registry.lists_partly,
            registry.lags,
            registry.is_slow,
        ));
        self.add(&registry.written);
        for write in &registry.writes {
            let lands = write.lands.duration_since(self.world.now).as_secs();
            self.add((write.role, write.version, write.replaces, lands, write.is_heard));
        }
    }

    fn operator(&mut self) {
        let operator = &self.world.operator;
        if let Some((version, test)) = operator.smoke.get() {
            let (report, since) = match &test.report {
                SmokeReport::Running(None) => (0, None),
                SmokeReport::Running(Some(_)) => (1, None),
                SmokeReport::Unavailable { since, .. } => (2, Some(*since)),
                SmokeReport::Passed => (3, None),
                SmokeReport::NoInputExample => (4, None),
                SmokeReport::Skipped(_) => (5, None),
                SmokeReport::Failed(_) => (6, None),
            };
            let is_current = self.world.observe().attempt(*version) == test.attempt;
            self.add((version, is_current, report));
            self.age(since, SKIPPED_AFTER);
        }
        self.add((operator.is_up, operator.saw.as_ref().is_some_and(|saw| self.world.looks_like(saw))));
        // A later wake-up is the end of a contention; nothing else depends on the time until then.
        let far = self.deadline() + self.warm_for();
        let wakes =
            operator.wake.map(|at| at.duration_since(self.world.now).clamp(SignedDuration::ZERO, far));
        self.add(wakes.map(|span| span.as_secs()));
        self.age(operator.held_since, HOLD);
    }

    /// What the promises depend on.
    fn judgement(&mut self) {
        let world = self.world;
        self.add((world.is_gone, &world.answered, world.answered_last, &world.proven, &world.failed));
        self.add((world.moves_by_others.min(3), world.kills.min(3) * u32::from(world.moves_by_others > 0)));
        self.add((world.begun, &world.left_with, &world.failed_smoke_test));
        self.add((
            world.silence_is_excused,
            world.is_pointed_by_others,
            world.is_routed_by_others,
            !world.broken.is_empty(),
        ));
        let warm_for = self.warm_for();
        for (version, (index, since)) in &world.steps_since {
            self.add((version, index));
            self.age(Some(*since), self.longest_step());
        }
        self.add((&world.approved_steps, &world.not_approved));
        self.add(world.left.map(|(version, _)| version));
        self.age(world.left.map(|(_, at)| at), warm_for);
    }
}
