//! The PodDisruptionBudget: it follows traffic, and nothing waits for it. Without the permission to read it,
//! it is left as it is.

use super::{Action, Decision, Lifecycle, Observed, OwnObject, Traffic};

/// Adds what the PodDisruptionBudget needs, after everything else: it protects what the Service selects, and
/// is there as long as something serves. Traffic that moves now is protected by the next decision.
pub(super) fn add(observed: &Observed, mut decision: Decision) -> Decision {
    if observed.cluster.budget_is_unknown {
        return decision;
    }
    let traffic = observed.cluster.traffic;
    let blocked = observed.intent.blocker.as_ref();
    let moves = |action: &Action| matches!(action, Action::Route(_) | Action::DeleteService);
    let is_orphan = observed.cluster.orphans.contains(&OwnObject::Budget);
    let due = match (&observed.intent.serving, observed.cluster.budget) {
        (Some(_), _) if is_orphan => Action::Adopt(OwnObject::Budget),
        // What another ModelAlias of this name left behind is not this one's to delete.
        (None, _) if is_orphan => return decision,
        (Some(_), budget) if traffic != Traffic::Nowhere && budget != Some(traffic) => {
            Action::Protect(traffic)
        }
        (None, Some(_)) => Action::DeleteBudget,
        _ => return decision,
    };
    let is_free = observed.intent.lifecycle == Lifecycle::Active
        && blocked.is_none_or(|blocker| blocker.scope.allows(&due))
        && !observed.desired_is_new();
    if is_free && !decision.actions.iter().any(moves) {
        decision.actions.push(due);
    }
    decision
}
