//! The end of a ModelAlias: the registry is told, but never waited for without end.

use jiff::{SignedDuration, Timestamp};

use super::{Action, AliasRole, Decision, Observed, Readiness, Report, audit, look_again, serving_condition};
use crate::api::{
    condition::{ConditionStatus, Reason, ReasonMessage},
    names::Version,
};

/// How long a deletion waits for the registry. After that the object goes and the alias stays behind.
pub const REGISTRY_DEADLINE: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn decide(observed: &Observed, since: Timestamp) -> Decision {
    let give_up = since.checked_add(REGISTRY_DEADLINE).unwrap_or(Timestamp::MAX);
    // A model that is gone from the registry took its aliases with it; what another ModelAlias owns, or what is another model by
    // now, is not ours.
    let nothing_to_remove = matches!(
        blocker_reason(observed),
        Some(Reason::Conflict | Reason::ModelNotFound | Reason::VersionReplaced)
    );
    let error = observed.registry.error.as_ref().filter(|_| !nothing_to_remove);
    let waits = observed.intent.has_finalizer && observed.intent.deletes_alias && observed.now < give_up;
    let (actions, cause, wake) = match error {
        Some(error) if waits => {
            let message =
                format!("waits until {give_up} to remove the alias from the registry: {}", error.message);
            (Vec::new(), ReasonMessage::new(Reason::Deleting, message), Some(give_up))
        }
        Some(_) => (
            release(observed),
            ReasonMessage::new(Reason::Deleting, "goes; the alias stays behind in the registry"),
            None,
        ),
        None if waits => {
            let mut actions = if nothing_to_remove { Vec::new() } else { aliases(observed) };
            let status = audit::next(observed).filter(|_| !nothing_to_remove);
            let cause = if let Some(status) = status {
                actions.push(status);
                let message = format!("waits until {give_up} for what was done to be in the registry's tags");
                ReasonMessage::new(Reason::Deleting, message)
            } else {
                actions.extend(release(observed));
                ReasonMessage::new(Reason::Deleting, "the alias is removed from the registry")
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
        report: Report {
            readiness: Readiness::Progressing(cause.clone()),
            serving: serving_condition(observed),
            registry: (ConditionStatus::Unknown, cause),
            gates: super::GatesReport::Unchanged,
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

/// Removes the aliases that still name what we let them name; what somebody else moved is theirs.
fn aliases(observed: &Observed) -> Vec<Action> {
    let registry = &observed.registry;
    let ours = |role, named: Option<Version>, kept: [Option<Version>; 3]| {
        named
            .filter(|named| kept.contains(&Some(*named)))
            .map(|replaces| Action::DeleteAlias { role, replaces })
    };
    let status = &observed.status;
    let previous = status.previous_version.filter(|_| observed.intent.previous_alias.is_some());
    // While traffic has moved and the alias has not, it names the version before.
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
