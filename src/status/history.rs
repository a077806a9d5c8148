//! The history in a status: what changed, why, and who requested it.

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{
        FIELD_MANAGER, ModelAliasStatus,
        model_alias::{Approval, Cause, HistoryEntry, Outcome, Recorded, UNKNOWN},
        names::Version,
    },
    decide::{Desired, Observed},
};

/// Number of entries to keep; more while some are not in the registry yet.
const HISTORY_MAX: usize = 10;
const PENDING_MAX: usize = 100;

/// Why the version that serves changes.
pub(super) fn cause(observed: &Observed) -> Cause {
    let failed = observed.serves().is_some_and(|serves| {
        observed.status.rejected.iter().any(|rejection| rejection.version == serves && rejection.active)
    });
    match &observed.intent.desired {
        _ if failed => Cause::Failure,
        Desired::Version(_) => Cause::Spec,
        Desired::Registry => Cause::Registry,
        Desired::Chosen(_) => Cause::Follower,
    }
}

/// Returns an entry about a version that is not in the registry's tags yet.
pub(super) fn entry_of(
    observed: &Observed,
    status: &ModelAliasStatus,
    version: Version,
    cause: Cause,
    outcome: Outcome,
) -> HistoryEntry {
    let (requested_by, commit) = asked_by(observed, status, version, cause);
    HistoryEntry {
        version,
        from: status.version,
        at: observed.now,
        cause,
        outcome,
        duration: None,
        requested_by,
        commit,
        approvals: approvals_of(observed, version),
        reason: None,
        message: None,
        recorded: Recorded::Pending,
    }
}

/// Returns who approved a version in its canary, if it was in one until now.
fn approvals_of(observed: &Observed, version: Version) -> Vec<Approval> {
    let canary = observed.status.canary.as_ref().filter(|canary| canary.version == version);
    canary.map(|canary| canary.approvals.clone()).unwrap_or_default()
}

/// Returns who requested a version, if known. The annotations apply only to the version in the spec.
fn asked_by(
    observed: &Observed,
    status: &ModelAliasStatus,
    version: Version,
    cause: Cause,
) -> (String, Option<String>) {
    let unknown = || (UNKNOWN.to_owned(), None);
    match cause {
        Cause::Follower | Cause::Failure => (FIELD_MANAGER.to_owned(), None),
        Cause::Spec if observed.intent.desired == Desired::Version(version) => {
            // A commit requests one version: if it requested another one before, the annotation is left over
            // from an earlier edit.
            let is_left_behind = |commit: &String| {
                let mut others = status.history.iter();
                others.any(|entry| entry.commit.as_ref() == Some(commit) && entry.version != version)
            };
            let commit = observed.intent.commit.clone().filter(|commit| !is_left_behind(commit));
            (observed.intent.changed_by.clone().unwrap_or_else(|| unknown().0), commit)
        }
        Cause::Spec | Cause::Registry | Cause::Unknown => unknown(),
    }
}

/// Adds an entry. Its time identifies it, so times are unique.
pub(super) fn add_history(status: &mut ModelAliasStatus, mut entry: HistoryEntry) {
    while status.history.iter().any(|other| other.at == entry.at) {
        entry.at = entry.at.checked_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MIN);
    }
    status.history.insert(0, entry);
    forget_history(status);
}

/// Drops old entries that are in the registry, or too many to wait for that.
fn forget_history(status: &mut ModelAliasStatus) {
    let mut kept = 0;
    status.history.retain(|entry| {
        kept += 1;
        kept <= HISTORY_MAX || (entry.recorded == Recorded::Pending && kept <= PENDING_MAX)
    });
}

/// Updates the entries whose audit write has finished.
pub(super) fn remember_audit(observed: &Observed, status: &mut ModelAliasStatus) {
    for entry in &mut status.history {
        if let Some(settled) = observed.outbox.settled.get(&entry.at)
            && entry.recorded == Recorded::Pending
        {
            entry.recorded = *settled;
        }
    }
    forget_history(status);
}
