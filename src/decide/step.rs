//! What a strategy contributes to a decision, and what the strategies share.

use jiff::Timestamp;

use super::{Action, Observed, ServingIntent, Traffic, Workload, action::pods_cause, target::Target};
use crate::api::{
    condition::{Reason, ReasonMessage, shortened},
    model_alias::Rejection,
    names::Version,
};

/// The next steps from what serves to the goal.
#[derive(Debug, Default)]
pub(super) struct RolloutStep {
    pub(super) actions: Vec<Action>,
    pub(super) rejection: Option<Rejection>,
    /// What is under way.
    pub(super) progress: Option<ReasonMessage>,
    /// What does not go on by itself.
    pub(super) stalled: Option<ReasonMessage>,
    pub(super) wake: Option<Timestamp>,
}

impl RolloutStep {
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    pub(super) fn progress(&mut self, reason: Reason, message: impl Into<String>) {
        self.progress = Some(ReasonMessage::new(reason, message));
    }

    /// The version that the Service will select alone after these steps, when they move it there.
    pub(super) fn routed_to(&self) -> Option<Version> {
        self.actions.iter().rev().find_map(|action| match action {
            Action::Route(Traffic::One(version)) => Some(*version),
            _ => None,
        })
    }

    /// Waits for the pods of the goal until its deadline, then gives it up. What is held because the wish cannot be met has
    /// nothing to give way to, so it is waited for without end.
    pub(super) fn await_pods(
        &mut self,
        observed: &Observed,
        serving: &ServingIntent,
        target: &Target,
        version: Version,
        workload: &Workload,
    ) {
        let cause = pods_cause(version, workload, serving.replicas);
        let deadline = deadline(observed, serving, version);
        if observed.now < deadline {
            self.wake_at(deadline);
            self.progress = Some(cause);
        } else if !target.is_desired() {
            self.progress = Some(cause);
        } else {
            self.reject(observed, serving, version, late(serving, version, &cause));
        }
    }

    /// Gives the version up, with the settings that its pods have.
    pub(super) fn reject(
        &mut self,
        observed: &Observed,
        serving: &ServingIntent,
        version: Version,
        cause: ReasonMessage,
    ) {
        let workload = observed.cluster.workloads.get(&version);
        self.rejection = Some(Rejection {
            version,
            reason: cause.reason,
            message: shortened(&cause.message, 1000),
            at: observed.now,
            settings: workload.map_or(&serving.settings, |workload| &workload.settings).clone(),
            held: true,
        });
        self.progress = Some(cause);
    }
}

/// When the version's start counts as failed.
pub(super) fn deadline(observed: &Observed, serving: &ServingIntent, version: Version) -> Timestamp {
    observed.started_at(version).checked_add(serving.progress_deadline).unwrap_or(Timestamp::MAX)
}

/// That the version was not ready in time, with what was seen last.
pub(super) fn late(serving: &ServingIntent, version: Version, seen: &ReasonMessage) -> ReasonMessage {
    ReasonMessage::new(
        Reason::ProgressDeadlineExceeded,
        format!(
            "version {version} was not ready within spec.rollout.progressDeadline ({:#}); last seen: {}: {}",
            serving.progress_deadline, seen.reason, seen.message
        ),
    )
}
