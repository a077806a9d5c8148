//! Deletion of a ModelAlias: the registry is updated, but never waited for indefinitely.

use jiff::{SignedDuration, Timestamp};

use super::{Action, AliasRole, Decision, Observed, Readiness, Report, audit, look_again, serving_condition};
use crate::api::{
    condition::{ConditionStatus, Reason, ReasonMessage},
    names::Version,
};

/// How long a deletion waits for the registry. After that the object is deleted and the alias stays in the
/// registry.
pub const REGISTRY_DEADLINE: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn decide(observed: &Observed, since: Timestamp) -> Decision {
    let give_up = since.checked_add(REGISTRY_DEADLINE).unwrap_or(Timestamp::MAX);
    // Aliases of a model that is gone from the registry are gone too. Those that another ModelAlias owns, or
    // that belong to a different model by now, are not ours to delete.
    let nothing_to_remove = matches!(
        blocker_reason(observed),
        Some(Reason::Conflict | Reason::ModelNotFound | Reason::VersionReplaced)
    );
    let error = observed.registry.error.as_ref().filter(|_| !nothing_to_remove);
    let waits = observed.intent.has_finalizer && observed.intent.deletes_alias && observed.now < give_up;
    let leaves = observed.leaves_champion(since).filter(|_| observed.intent.has_finalizer);
    let hands_back = observed.hand_back_at_once().filter(|_| observed.intent.has_finalizer);
    let (actions, cause, wake) = match error {
        _ if let Some((action, until)) = hands_back.zip(observed.routes_awaited_until(since)) => {
            let message = format!(
                "handing the HTTPRoute in spec.traffic.routeRef back to the Service with the name of this \
                 ModelAlias, which is tried until {until}"
            );
            (vec![action], ReasonMessage::new(Reason::Deleting, message), Some(until))
        }
        _ if let Some((champion, until)) = leaves => {
            let message = format!(
                "waiting until {until} for the HTTPRoute of {champion:?}, which gives it a share of the \
                 requests, to leave it out"
            );
            let cause = ReasonMessage::new(Reason::Deleting, message);
            (Vec::new(), cause, Some(observed.champion_leaves()))
        }
        Some(error) if waits => {
            let message =
                format!("retrying until {give_up} to delete the alias from the registry: {}", error.message);
            (Vec::new(), ReasonMessage::new(Reason::Deleting, message), Some(give_up))
        }
        Some(_) => (
            release(observed),
            ReasonMessage::new(Reason::Deleting, "deleting; the alias stays in the registry"),
            None,
        ),
        None if waits => {
            // Both are begun and not waited for. The object stays until the registry says that they are done.
            let mut actions = if nothing_to_remove { Vec::new() } else { aliases(observed) };
            let status = audit::next(observed).filter(|_| !nothing_to_remove);
            let cause = if let Some(status) = status {
                actions.push(status);
                let message =
                    format!("waiting until {give_up} for the audit log to be written to the registry's tags");
                ReasonMessage::new(Reason::Deleting, message)
            } else {
                if actions.is_empty() {
                    actions = release(observed);
                }
                ReasonMessage::new(Reason::Deleting, "deleting the alias from the registry")
            };
            (actions, cause, Some(give_up.min(look_again(observed))))
        }
        None => (release(observed), ReasonMessage::new(Reason::Deleting, "goes"), None),
    };
    Decision {
        actions,
        rejection: None,
        target: observed.status.target_version,
        smoke_test: None,
        live: None,
        canary: None,
        approval: None,
        report: Report {
            readiness: Readiness::Progressing(cause.clone()),
            serving: serving_condition(observed),
            registry: (ConditionStatus::Unknown, cause),
            gates: super::GatesReport::Unchanged,
            live: super::LiveReport::Unchanged,
            drift: super::DriftReport::Unchanged,
            traffic: super::route::condition(observed),
        },
        wake,
    }
}

fn blocker_reason(observed: &Observed) -> Option<Reason> {
    let blocker = observed.intent.blocker.as_ref().map(|blocker| &blocker.cause);
    blocker.or(observed.registry.error.as_ref()).map(|cause| cause.reason)
}

fn release(observed: &Observed) -> Vec<Action> {
    observed.intent.has_finalizer.then_some(Action::SetFinalizer { present: false }).into_iter().collect()
}

/// Deletes the aliases that still name the version we set. One that somebody else moved is left.
fn aliases(observed: &Observed) -> Vec<Action> {
    let registry = &observed.registry;
    let ours = |role, named: Option<Version>, kept: [Option<Version>; 3]| {
        named
            .filter(|named| kept.contains(&Some(*named)))
            .map(|replaces| Action::DeleteAlias { role, replaces })
    };
    let status = &observed.status;
    let previous = status.previous_version.filter(|_| observed.intent.previous_alias.is_some());
    // After traffic was switched and before the alias was set, it names the previous version.
    let behind = status.previous_version.filter(|_| status.registry_version.is_none());
    ours(AliasRole::Main, registry.alias, [status.registry_version, status.version, behind])
        .into_iter()
        .chain(ours(AliasRole::Previous, registry.previous_alias, [previous, None, None]))
        .chain(
            observed
                .former_alias_names()
                .map(|replaces| Action::DeleteAlias { role: AliasRole::Former, replaces }),
        )
        .collect()
}
