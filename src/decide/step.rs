//! A strategy's contribution to a decision, and code that the strategies share.

use jiff::Timestamp;

use super::{Action, Observed, ServingIntent, Traffic, Workload, pods_cause::pods_cause, target::Target};
use crate::api::{
    condition::{Reason, ReasonMessage, shortened},
    model_alias::Rejection,
    names::Version,
};

/// The next steps from the serving version to the goal.
#[derive(Debug, Default)]
pub(super) struct RolloutStep {
    pub(super) actions: Vec<Action>,
    pub(super) rejection: Option<Rejection>,
    /// Work in progress.
    pub(super) progress: Option<ReasonMessage>,
    /// What does not continue by itself.
    pub(super) stalled: Option<ReasonMessage>,
    pub(super) wake: Option<Timestamp>,
    /// The versions that are in use or warm.
    pub(super) kept: Vec<Version>,
    /// The version that enters the route before traffic moves to it.
    pub(super) entering: Option<Version>,
    /// The version that keeps its share in a canary for now.
    pub(super) pausing: Option<Version>,
    /// The version that waits for nothing but the end of its step of a canary.
    pub(super) stepping: Option<Version>,
}

impl RolloutStep {
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    pub(super) fn wake_at_some(&mut self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.wake_at(at);
        }
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

    /// Waits for the pods of the goal until its deadline, then rejects it. A version that is held because the
    /// desired one is blocked has no replacement, so it is waited for without limit; so is a version whose
    /// pods have not reached a node yet.
    pub(super) fn await_pods(
        &mut self,
        observed: &Observed,
        serving: &ServingIntent,
        target: &Target,
        version: Version,
        workload: &Workload,
    ) {
        let cause = pods_cause(version, workload);
        let deadline = deadline(observed, serving, version);
        if observed.now < deadline {
            self.wake_at(deadline);
            self.progress = Some(cause);
        } else if !target.is_desired() || is_only_small(observed, version, workload) {
            self.progress = Some(cause);
        } else if workload.tried_since.is_none() {
            self.await_room(workload, cause);
        } else {
            self.reject(observed, serving, version, late(serving, version, &cause));
        }
    }

    /// No pod is on a node without being ready, so there is no evidence against the version.
    fn await_room(&mut self, workload: &Workload, cause: ReasonMessage) {
        let waits_for = if workload.error.is_some() { &mut self.stalled } else { &mut self.progress };
        *waits_for = Some(cause);
    }

    /// Rejects the version, with its pods' settings.
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
            settings: serving.settings_of(workload).unwrap_or_default().to_owned(),
            active: true,
        });
        self.progress = Some(cause);
    }
}

/// Whether a version that has served is ready, but not at the size that it needs.
fn is_only_small(observed: &Observed, version: Version, workload: &Workload) -> bool {
    observed.has_served(version) && workload.ready > 0
}

/// Returns when the version's start counts as failed: the deadline counts from when its pods are on a node.
pub(super) fn deadline(observed: &Observed, serving: &ServingIntent, version: Version) -> Timestamp {
    let tried_since = observed.cluster.workloads.get(&version).and_then(|workload| workload.tried_since);
    let begun = Some(observed.started_at(version)).max(tried_since).unwrap_or(observed.now);
    begun.checked_add(serving.progress_deadline).unwrap_or(Timestamp::MAX)
}

/// Reports that the version was not ready in time, with the last observation.
pub(super) fn late(serving: &ServingIntent, version: Version, seen: &ReasonMessage) -> ReasonMessage {
    ReasonMessage::new(
        Reason::ProgressDeadlineExceeded,
        format!(
            "version {version} was not ready within spec.rollout.progressDeadline ({:#}); last seen: {}: {}",
            serving.progress_deadline, seen.reason, seen.message
        ),
    )
}

/// Returns why a version is overdue: why its pods are not on a node, or that they were not ready in time.
pub(super) fn overdue(
    serving: &ServingIntent,
    version: Version,
    workload: &Workload,
    seen: ReasonMessage,
) -> ReasonMessage {
    if workload.error.is_some() && workload.tried_since.is_none() {
        seen
    } else {
        late(serving, version, &seen)
    }
}
