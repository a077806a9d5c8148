//! The audit log: writes history entries of the status to the version's tags, oldest first, once traffic and
//! the alias need nothing. The status is the outbox: an entry is pending there until its write is confirmed,
//! so a crash or an unreachable registry delays entries but loses none.

use super::{Action, Decision, Lifecycle, Observed, look_again};
use crate::api::{
    condition::{ConditionStatus, ReasonMessage},
    model_alias::{HistoryEntry, Recorded},
};

/// Returns the oldest pending entry.
pub(super) fn pending(observed: &Observed) -> Option<&HistoryEntry> {
    let is_pending = |entry: &&HistoryEntry| {
        entry.recorded == Recorded::Pending && !observed.outbox.settled.contains_key(&entry.at)
    };
    observed.status.history.iter().rev().find(is_pending)
}

/// Returns the write of the oldest pending entry, if there is one and the registry answers.
pub(super) fn next(observed: &Observed) -> Option<Action> {
    let entry = pending(observed).filter(|_| observed.registry.error.is_none())?;
    Some(Action::WriteAudit { version: entry.version, at: entry.at })
}

/// Adds the write to a decision that has nothing else to do, and reports why it fails.
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
                "{}; but the audit log cannot be written to the versions' tags: {}",
                cause.message, error.message
            );
            decision.report.registry = (ConditionStatus::False, ReasonMessage::new(error.reason, message));
        }
    }
    decision
}
