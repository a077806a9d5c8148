//! `Rolling`: pods are exchanged a few at a time, for clusters without room for two versions.
//!
//! ```text
//! One(old) ── first pods of the goal ready and proven ──► Shared ── goal ready in full ──► One(goal)
//!                                                          │ pods exchanged, maxSurge at a time
//!                                                          └ the goal changes: back to what served, the same way
//! ```
//!
//! There are never more pods than `replicas + maxSurge`, those that are ending included, and never fewer ready ones than
//! `replicas`.

use super::{
    Action, Observed, ServingIntent, Traffic, Workload,
    blue_green::{bring_up, keep, restore_traffic},
    goal::Goal,
    step::{self, Proof, Step},
};
use crate::api::{
    condition::Reason,
    names::{ModelUri, Version},
};

/// The next steps to the goal.
pub(super) fn step(observed: &Observed, serving: &ServingIntent, goal: &Goal, max_surge: u32) -> Step {
    let mut step = Step::default();
    let Some((version, model_uri)) = &goal.version else { return step };
    restore_traffic(observed, &mut step);
    let traffic = step.routed_to().map_or(observed.cluster.traffic, Traffic::One);
    let exchange = Exchange { observed, serving, goal, max_surge };
    match traffic {
        Traffic::Nowhere => bring_up(observed, serving, goal, (*version, model_uri), &mut step),
        Traffic::One(serves) if serves == *version => keep(observed, serving, goal, &mut step),
        Traffic::One(_) => exchange.open(*version, model_uri, &mut step),
        Traffic::Shared => exchange.go_on(*version, model_uri, &mut step),
    }
    step
}

struct Exchange<'a> {
    observed: &'a Observed,
    serving: &'a ServingIntent,
    goal: &'a Goal,
    max_surge: u32,
}

impl Exchange<'_> {
    fn workload(&self, version: Version) -> Option<&Workload> {
        self.observed.cluster.workloads.get(&version)
    }

    /// How many pods may be added now.
    fn room(&self) -> u32 {
        let pods: u32 = self
            .observed
            .cluster
            .workloads
            .values()
            .map(|workload| workload.pods.max(workload.desired))
            .fold(0, u32::saturating_add);
        (self.serving.replicas + self.max_surge).saturating_sub(pods)
    }

    /// The first pods of the goal, without traffic until they are ready and proven.
    fn open(&self, version: Version, model_uri: &ModelUri, step: &mut Step) {
        let (observed, serving) = (self.observed, self.serving);
        let first = self.room().min(serving.replicas);
        let Some(workload) = self.workload(version) else {
            return self.start(
                version,
                Action::Apply { version, model_uri: model_uri.clone(), replicas: first },
                first,
                step,
            );
        };
        if workload.desired == 0 {
            let action = if workload.settings == serving.settings && workload.model_uri == *model_uri {
                Action::Scale { version, replicas: first }
            } else {
                Action::Apply { version, model_uri: model_uri.clone(), replicas: first }
            };
            self.start(version, action, first, step);
        } else if workload.settings != serving.settings || workload.model_uri != *model_uri {
            let action = Action::Apply { version, model_uri: model_uri.clone(), replicas: workload.desired };
            self.start(version, action, workload.desired, step);
        } else if !workload.rolled_out {
            step.await_pods(observed, serving, self.goal, version, workload);
        } else if step::prove(step, observed, serving, version, workload) {
            if workload.is_full(serving.replicas) {
                step.act(Action::Route(Traffic::One(version)));
                step.progress(Reason::MovingTraffic, format!("traffic moves to version {version}"));
            } else {
                step.act(Action::Route(Traffic::Shared));
                self.report(version, step);
            }
        }
    }

    fn start(&self, version: Version, action: Action, first: u32, step: &mut Step) {
        if first == 0 {
            return step.progress(
                Reason::ExchangingPods,
                format!("version {version} starts when pods that are ending have made room (spec.rollout.maxSurge)"),
            );
        }
        step.act(action);
        step.progress(
            Reason::StartingVersion,
            format!("version {version} is being started with {first} pods"),
        );
        step.wake_at(
            self.observed.now.checked_add(self.serving.progress_deadline).unwrap_or(jiff::Timestamp::MAX),
        );
    }

    /// Exchanges pods until the goal is ready in full. A goal that is not proven yet must not get traffic, so what
    /// served comes back first.
    fn go_on(&self, version: Version, model_uri: &ModelUri, step: &mut Step) {
        match self.workload(version) {
            Some(workload) if self.is_proven(version, workload) => {
                self.exchange(version, model_uri, workload, step);
            }
            _ => match self.observed.serves().and_then(|serves| Some((serves, self.workload(serves)?))) {
                Some((serves, workload)) => self.exchange(serves, &workload.model_uri, workload, step),
                None => bring_up(self.observed, self.serving, self.goal, (version, model_uri), step),
            },
        }
    }

    fn is_proven(&self, version: Version, workload: &Workload) -> bool {
        matches!(step::proof(self.observed, self.serving, version, workload), Proof::Given)
    }

    fn exchange(&self, version: Version, model_uri: &ModelUri, workload: &Workload, step: &mut Step) {
        let replicas = self.serving.replicas;
        if workload.is_full(replicas) {
            step.act(Action::Route(Traffic::One(version)));
            return step.progress(Reason::MovingTraffic, format!("traffic moves to version {version} alone"));
        }
        self.report(version, step);
        self.shrink_others(version, step);
        let settled = workload.counted() == workload.desired;
        let grown = replicas.min(workload.desired + self.room());
        let outdated = workload.settings != self.serving.settings || workload.model_uri != *model_uri;
        if outdated && self.goal.is_wished() && self.goal.number() == Some(version) {
            step.act(Action::Apply { version, model_uri: model_uri.clone(), replicas: workload.desired });
        } else if settled && grown > workload.desired {
            step.act(Action::Scale { version, replicas: grown });
        } else if !settled && self.observed.record.version != Some(version) {
            step.await_pods(self.observed, self.serving, self.goal, version, workload);
        }
    }

    /// Takes away what is ready beyond `replicas`, and what is not ready at all, from every version but the goal.
    fn shrink_others(&self, goal: Version, step: &mut Step) {
        let workloads = &self.observed.cluster.workloads;
        let ready: u32 = workloads.values().map(Workload::counted).sum();
        let mut excess = ready.saturating_sub(self.serving.replicas);
        for (&version, workload) in workloads.iter().filter(|(version, _)| **version != goal) {
            let taken = excess.min(workload.counted());
            excess -= taken;
            let replicas = workload.counted() - taken;
            if replicas < workload.desired {
                step.act(Action::Scale { version, replicas });
            }
        }
    }

    fn report(&self, version: Version, step: &mut Step) {
        let ready = self.workload(version).map_or(0, Workload::counted);
        step.progress(
            Reason::ExchangingPods,
            format!(
                "{ready} of {} pods are of version {version}; both versions answer meanwhile",
                self.serving.replicas
            ),
        );
    }
}
