//! The history in the registry: what the status remembers and the version's tags do not say yet is written
//! there, the oldest first, once traffic and the alias need nothing. The status is the outbox: an entry
//! stands in it as pending until the write is known to be done, so a crash or a registry that is away delays
//! it and loses nothing.

use super::{Action, Decision, Lifecycle, Observed, look_again};
use crate::api::{
    condition::{ConditionStatus, ReasonMessage},
    model_alias::{HistoryEntry, Recorded},
};

/// The oldest entry that is still to be written.
pub(super) fn pending(observed: &Observed) -> Option<&HistoryEntry> {
    let is_pending = |entry: &&HistoryEntry| {
        entry.recorded == Recorded::Pending && !observed.outbox.settled.contains_key(&entry.at)
    };
    observed.status.history.iter().rev().find(is_pending)
}

/// The write of the oldest entry, where one is to be written and the registry answers.
pub(super) fn next(observed: &Observed) -> Option<Action> {
    let entry = pending(observed).filter(|_| observed.registry.error.is_none())?;
    Some(Action::Record { version: entry.version, at: entry.at })
}

/// Adds the write to a decision that has nothing else to do, and tells what keeps it from being done.
pub(super) fn add(observed: &Observed, mut decision: Decision) -> Decision {
    let intent = &observed.intent;
    let is_free = intent.lifecycle == Lifecycle::Active && intent.blocker.is_none();
    let is_idle = decision.actions.is_empty() && !observed.desired_is_new();
    if !is_free || !is_idle {
        return decision;
    }
    let Some(action) = next(observed) else { return decision };
    decision.actions.push(action);
    if let Some(error) = &observed.outbox.error {
        decision.wake = decision.wake.into_iter().chain([look_again(observed)]).min();
        if let (ConditionStatus::True, cause) = &decision.report.registry {
            let message = format!(
                "{}; but what was done cannot be written into the tags of the versions: {}",
                cause.message, error.message
            );
            decision.report.registry = (ConditionStatus::False, ReasonMessage::new(error.reason, message));
        }
    }
    decision
}
