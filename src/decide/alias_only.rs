//! A ModelAlias without `serving`: only the alias in the registry is kept.

use super::{
    Action, AliasRole, Decision, Observed, Readiness, Report, Traffic, VersionView, finalizer, goal,
    look_again, serving_condition,
};
use crate::api::{
    condition::{ConditionStatus, Note, Reason},
    model_alias::Drift,
    names::Version,
};

pub(super) fn decide(observed: &Observed) -> Decision {
    let wished = goal::wished(observed);
    let (alias_actions, readiness, registry) = match &wished {
        Err(note) if note.reason.passes_by_itself() => waits(note.clone()),
        Err(note) => refused(note.clone()),
        Ok(version) => keep_alias(observed, *version),
    };
    let mut actions = finalizer(observed);
    actions.extend(clear_cluster(observed));
    actions.extend(alias_actions);
    let wake = matches!(readiness, Readiness::Progressing(_)).then(|| look_again(observed));
    Decision {
        actions,
        rejection: None,
        target: wished.ok(),
        report: Report { readiness, serving: serving_condition(observed), registry },
        wake,
    }
}

/// `spec.serving` was removed: what served goes, the Service first.
fn clear_cluster(observed: &Observed) -> Vec<Action> {
    let service = (observed.cluster.traffic != Traffic::Nowhere).then_some(Action::DeleteService);
    let deployments = observed.cluster.workloads.keys().map(|&version| Action::Delete { version });
    service.into_iter().chain(deployments).collect()
}

type Kept = (Vec<Action>, Readiness, (ConditionStatus, Note));

fn waits(note: Note) -> Kept {
    (Vec::new(), Readiness::Progressing(note.clone()), (ConditionStatus::Unknown, note))
}

fn refused(note: Note) -> Kept {
    (Vec::new(), Readiness::Stalled(note.clone()), (ConditionStatus::False, note))
}

fn keep_alias(observed: &Observed, version: Version) -> Kept {
    let registry = &observed.registry;
    if let Some(trouble) = &registry.trouble {
        return waits(trouble.clone());
    }
    match registry.versions.get(&version) {
        Some(VersionView::Absent) => {
            let message = format!(
                "version {version} does not exist in the registry; correct spec.version, or register it"
            );
            return refused(Note::new(Reason::VersionNotFound, message));
        }
        Some(VersionView::Unread(note)) if registry.alias != Some(version) => return waits(note.clone()),
        None if registry.alias != Some(version) => {
            let message = format!("version {version} has not been read from the registry yet");
            return waits(Note::new(Reason::RegistryNotRead, message));
        }
        _ => {}
    }
    if registry.alias == Some(version) {
        let note = Note::new(Reason::AliasSet, format!("the alias names version {version}"));
        let mut actions = Vec::new();
        if observed.intent.keeps_previous_alias
            && let Some(previous) = observed.record.previous_version
            && registry.previous_alias != Some(previous)
            && registry.versions.get(&previous) != Some(&VersionView::Absent)
        {
            actions.push(Action::SetAlias {
                role: AliasRole::Previous,
                version: previous,
                replaces: registry.previous_alias,
            });
        }
        return (actions, Readiness::Settled(note.clone()), (ConditionStatus::True, note));
    }
    let moved_by_hand =
        observed.record.registry_version == Some(version) && registry.written != registry.alias;
    if moved_by_hand && observed.intent.drift == Drift::Report {
        return refused(Note::new(
            Reason::AliasDrifted,
            format!(
                "somebody moved the alias away from version {version}; spec.drift is Report, so it stays"
            ),
        ));
    }
    let note = Note::new(Reason::RegistryPending, format!("the alias is set to version {version}"));
    let set = Action::SetAlias { role: AliasRole::Main, version, replaces: registry.alias };
    (vec![set], Readiness::Progressing(note.clone()), (ConditionStatus::False, note))
}
