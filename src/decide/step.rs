//! What a strategy contributes to a decision, and what the strategies share.

use jiff::Timestamp;

use super::{Action, Observed, ServingIntent, Traffic, Workload, action::pods_note, goal::Goal};
use crate::api::{
    condition::{Note, Reason, shortened},
    model_alias::Rejection,
    names::Version,
};

/// The next steps from what serves to the goal.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) actions: Vec<Action>,
    pub(super) rejection: Option<Rejection>,
    /// What is under way.
    pub(super) progress: Option<Note>,
    /// What does not go on by itself.
    pub(super) stalled: Option<Note>,
    pub(super) wake: Option<Timestamp>,
}

impl Step {
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    pub(super) fn progress(&mut self, reason: Reason, message: impl Into<String>) {
        self.progress = Some(Note::new(reason, message));
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
        goal: &Goal,
        version: Version,
        workload: &Workload,
    ) {
        let note = pods_note(version, workload, serving.replicas);
        let deadline = deadline(observed, serving, version);
        if observed.now < deadline {
            self.wake_at(deadline);
            self.progress = Some(note);
        } else if !goal.is_wished() {
            self.progress = Some(note);
        } else {
            self.reject(observed, serving, version, late(serving, version, &note));
        }
    }

    /// Gives the version up, with the settings that its pods have.
    pub(super) fn reject(
        &mut self,
        observed: &Observed,
        serving: &ServingIntent,
        version: Version,
        note: Note,
    ) {
        let workload = observed.cluster.workloads.get(&version);
        self.rejection = Some(Rejection {
            version,
            reason: note.reason,
            message: shortened(&note.message, 1000),
            at: observed.now,
            settings: workload.map_or(&serving.settings, |workload| &workload.settings).clone(),
            held: true,
        });
        self.progress = Some(note);
    }
}

/// When the version's start counts as failed.
pub(super) fn deadline(observed: &Observed, serving: &ServingIntent, version: Version) -> Timestamp {
    observed.started_at(version).checked_add(serving.progress_deadline).unwrap_or(Timestamp::MAX)
}

/// That the version was not ready in time, with what was seen last.
pub(super) fn late(serving: &ServingIntent, version: Version, seen: &Note) -> Note {
    Note::new(
        Reason::ProgressDeadlineExceeded,
        format!(
            "version {version} was not ready within spec.rollout.progressDeadline ({:#}); last seen: {}: {}",
            serving.progress_deadline, seen.reason, seen.message
        ),
    )
}
