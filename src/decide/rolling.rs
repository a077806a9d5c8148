//! `Rolling`: pods are replaced a few at a time, for clusters without room for two versions.
//!
//! ```text
//! One(old) ── first pods of the goal ready and proven ──► Shared ── goal ready in full ──► One(goal)
//!                                                          │ pods are replaced, maxSurge at a time
//!                                                          └ the goal changes: back the same way
//! ```
//!
//! There are never more than `replicas + maxSurge` pods, including terminating ones, and never fewer than
//! `replicas` ready ones.

use super::{
    Action, Observed, ServingIntent, Traffic, Workload,
    blue_green::{self, await_recovery, bring_up, keep, restore_traffic},
    pods_cause::pods_cause,
    smoke_test::{self, Proof},
    step::{self, RolloutStep},
    target::Target,
};
use crate::api::{
    condition::{Reason, counted},
    names::{ModelUri, Version},
};

/// Returns the next steps towards the goal.
pub(super) fn step(
    observed: &Observed,
    serving: &ServingIntent,
    target: &Target,
    max_surge: u32,
) -> RolloutStep {
    let mut step = RolloutStep::default();
    restore_traffic(observed, serving, target, &mut step);
    let Some((version, model_uri)) = target.version.as_ref().filter(|_| step.rejection.is_none()) else {
        return step;
    };
    let traffic = step.routed_to().map_or(observed.cluster.traffic, Traffic::One);
    let serves = step.routed_to().or_else(|| observed.answers_alone());
    let exchange = Exchange { observed, serving, target, max_surge };
    match traffic {
        Traffic::Nowhere => bring_up(observed, serving, target, (*version, model_uri), &mut step),
        Traffic::One(_) if serves == Some(*version) => {
            keep(observed, serving, target, exchange.room(), &mut step);
        }
        Traffic::One(serves) => {
            let growth = if serves == *version { 0 } else { exchange.growth(serves) };
            exchange.open(*version, model_uri, growth, &mut step);
            if serves != *version {
                exchange.fit_what_serves(serves, growth, &mut step);
            }
        }
        Traffic::Shared => exchange.go_on(*version, model_uri, &mut step),
    }
    step
}

struct Exchange<'a> {
    observed: &'a Observed,
    serving: &'a ServingIntent,
    target: &'a Target,
    max_surge: u32,
}

impl Exchange<'_> {
    fn workload(&self, version: Version) -> Option<&Workload> {
        self.observed.cluster.workloads.get(&version)
    }

    /// Returns how many pods may be added now. Terminating pods still take room.
    fn room(&self) -> u32 {
        let workloads = self.observed.cluster.workloads.values();
        let pods = workloads.map(|workload| workload.pods.max(workload.desired)).fold(0, u32::saturating_add);
        (self.serving.replicas + self.max_surge).saturating_sub(pods)
    }

    /// Returns by how many pods the serving version grows now towards the desired size.
    fn growth(&self, serves: Version) -> u32 {
        let desired = self.workload(serves).map_or(u32::MAX, |workload| workload.desired);
        self.serving.replicas.saturating_sub(desired).min(self.room())
    }

    /// Starts the first pods of the goal, as far as the growth of the serving version leaves room. They get
    /// no traffic until they are ready and proven.
    fn open(&self, version: Version, model_uri: &ModelUri, growth: u32, step: &mut RolloutStep) {
        let (observed, serving) = (self.observed, self.serving);
        let first = (self.room() - growth).min(serving.replicas);
        let Some(workload) = self.workload(version) else {
            return self.start(
                version,
                Action::Apply { version, model_uri: model_uri.clone(), replicas: first },
                first,
                step,
            );
        };
        if observed.can_take_over(version, serving) {
            return blue_green::route(version, step);
        }
        if workload.desired == 0 {
            let action = if serving.replaces(workload, model_uri) {
                Action::Apply { version, model_uri: model_uri.clone(), replicas: first }
            } else {
                Action::Scale { version, replicas: first }
            };
            self.start(version, action, first, step);
        } else if serving.replaces(workload, model_uri) {
            // Its pods are not replaced one by one: there may be no room for one more.
            if observed.has_left(version) {
                step.act(Action::Scale { version, replicas: 0 });
            }
            step.progress(
                Reason::StartingVersion,
                format!("restarting version {version} with the current settings"),
            );
        } else if !workload.rolled_out {
            step.await_pods(observed, serving, self.target, version, workload);
        } else if smoke_test::prove(step, observed, serving, version) {
            if workload.is_full(serving.replicas) {
                blue_green::route(version, step);
            } else {
                step.act(Action::Route(Traffic::Shared));
                self.report(version, step);
            }
            smoke_test::report_skipped(step, observed, serving, version);
        }
    }

    /// While another version starts, the serving version follows the desired size: it grows as far as there
    /// is room, and shrinks if it is too large.
    fn fit_what_serves(&self, serves: Version, growth: u32, step: &mut RolloutStep) {
        let Some(workload) = self.workload(serves).filter(|_| step.routed_to().is_none()) else { return };
        let replicas = self.serving.replicas.min(workload.desired + growth);
        if workload.desired != replicas {
            step.act(Action::Scale { version: serves, replicas });
        }
    }

    fn start(&self, version: Version, action: Action, first: u32, step: &mut RolloutStep) {
        if first == 0 {
            return self.make_room(version, step);
        }
        step.act(action);
        step.progress(
            Reason::StartingVersion,
            format!("starting version {version} with {}", counted(first, "pod")),
        );
        step.wake_at(
            self.observed.now.checked_add(self.serving.progress_deadline).unwrap_or(jiff::Timestamp::MAX),
        );
    }

    /// Waits for room. Terminating pods free it by themselves, and so does an update of the serving version
    /// once its pods are ready. An update that does not finish in time continues with the current settings,
    /// or somebody has to act.
    fn make_room(&self, version: Version, step: &mut RolloutStep) {
        let (observed, serving) = (self.observed, self.serving);
        let serves = observed.serves().and_then(|serves| Some((serves, self.workload(serves)?)));
        let stuck = serves.filter(|(_, workload)| !workload.rolled_out && workload.pods > workload.desired);
        step.progress(
            Reason::ExchangingPods,
            format!("version {version} starts once terminating pods are gone (spec.rollout.maxSurge)"),
        );
        let Some((serves, workload)) = stuck else { return };
        let deadline = step::deadline(observed, serving, serves);
        if observed.now < deadline {
            step.wake_at(deadline);
        } else if !serving.replaces(workload, &workload.model_uri) {
            let seen = pods_cause(serves, workload);
            step.stalled = Some(step::overdue(serving, serves, workload, seen));
        } else {
            let (model_uri, replicas) = (workload.model_uri.clone(), workload.desired);
            step.act(Action::Apply { version: serves, model_uri, replicas });
            step.progress(
                Reason::UpdatingSettings,
                format!(
                    "version {serves} gets today's settings: its last ones keep the room that version \
                     {version} needs"
                ),
            );
        }
    }

    /// Replaces pods until the goal is ready in full. A goal that is not proven, or that failed with its
    /// pods' settings, gets no more pods: the previous version is restored first. Changed settings wait until
    /// then as well: an update in the middle of an exchange could take the room that is needed to go back.
    fn go_on(&self, version: Version, model_uri: &ModelUri, step: &mut RolloutStep) {
        match self.workload(version) {
            Some(workload) if self.may_go_on(version, workload) => self.exchange(version, workload, step),
            _ => match self.observed.serves().and_then(|serves| Some((serves, self.workload(serves)?))) {
                Some((serves, workload)) => self.exchange(serves, workload, step),
                None => match self.fullest(version) {
                    Some((answers, workload)) => self.exchange(answers, workload, step),
                    None => self.open(version, model_uri, 0, step),
                },
            },
        }
    }

    /// If it is not known what served: of the versions that answer, the goal, or else the one with the most
    /// ready pods. The exchange ends with it, and starts again from there.
    fn fullest(&self, target: Version) -> Option<(Version, &Workload)> {
        let workloads =
            self.observed.cluster.workloads.iter().map(|(version, workload)| (*version, workload));
        let answering = workloads.filter(|(_, workload)| workload.counted() > 0);
        answering.max_by_key(|(version, workload)| (*version == target, workload.counted()))
    }

    fn may_go_on(&self, version: Version, workload: &Workload) -> bool {
        matches!(smoke_test::proof(self.observed, self.serving, version), Proof::Given)
            && self.observed.rejection(version, Some(&workload.settings)).is_none()
    }

    fn exchange(&self, version: Version, workload: &Workload, step: &mut RolloutStep) {
        let replicas = self.serving.replicas;
        if workload.is_full(replicas) {
            step.act(Action::Route(Traffic::One(version)));
            return step
                .progress(Reason::MovingTraffic, format!("switching all traffic to version {version}"));
        }
        self.report(version, step);
        self.shrink_others(version, step);
        let settled = workload.counted() == workload.desired;
        let grown = replicas.min(workload.desired + self.room());
        if settled && grown > workload.desired {
            // Without pods, what somebody else changed is not an update in the middle of an exchange.
            let restores = workload.edited && workload.desired == 0 && self.serving.settings.is_some();
            let model_uri = workload.model_uri.clone();
            step.act(if restores {
                Action::Apply { version, model_uri, replicas: grown }
            } else {
                Action::Scale { version, replicas: grown }
            });
        } else if !settled && self.observed.status.version == Some(version) {
            await_recovery(self.observed, self.serving, version, workload, step);
        } else if !settled {
            step.await_pods(self.observed, self.serving, self.target, version, workload);
        }
    }

    /// Removes ready pods beyond `replicas`, and pods that are not ready, from every version but the goal.
    fn shrink_others(&self, target: Version, step: &mut RolloutStep) {
        let workloads = &self.observed.cluster.workloads;
        let ready: u32 = workloads.values().map(Workload::counted).sum();
        let mut excess = ready.saturating_sub(self.serving.replicas);
        for (&version, workload) in workloads.iter().filter(|(version, _)| **version != target) {
            let taken = excess.min(workload.counted());
            excess -= taken;
            let replicas = workload.counted() - taken;
            if replicas < workload.desired {
                step.act(Action::Scale { version, replicas });
            }
        }
    }

    fn report(&self, version: Version, step: &mut RolloutStep) {
        let ready = self.workload(version).map_or(0, Workload::counted);
        step.progress(
            Reason::ExchangingPods,
            format!(
                "replacing pods: {ready} of {} are of version {version}; both versions answer meanwhile",
                self.serving.replicas
            ),
        );
    }
}
