//! A ModelAlias without `serving`: only the alias in the registry is kept.

use super::{
    Action, AliasRole, Decision, Observed, Readiness, Report, Traffic, VersionView, finalizer, goal,
    serving_condition,
};
use crate::api::{
    condition::{ConditionStatus, Note, Reason},
    model_alias::Drift,
    names::Version,
};

pub(super) fn decide(observed: &Observed) -> Decision {
    let wished = goal::wished(observed);
    let (alias_actions, readiness, registry) = match &wished {
        Err(note) => (Vec::new(), Readiness::Stalled(note.clone()), (ConditionStatus::False, note.clone())),
        Ok(version) => keep_alias(observed, *version),
    };
    let mut actions = finalizer(observed);
    actions.extend(clear_cluster(observed));
    actions.extend(alias_actions);
    Decision {
        actions,
        rejection: None,
        target: wished.ok(),
        report: Report { readiness, serving: serving_condition(observed), registry },
        wake: None,
    }
}

/// `spec.serving` was removed: what served goes, the Service first.
fn clear_cluster(observed: &Observed) -> Vec<Action> {
    let service = (observed.cluster.traffic != Traffic::Nowhere).then_some(Action::DeleteService);
    let deployments = observed.cluster.workloads.keys().map(|&version| Action::Delete { version });
    service.into_iter().chain(deployments).collect()
}

fn keep_alias(observed: &Observed, version: Version) -> (Vec<Action>, Readiness, (ConditionStatus, Note)) {
    let registry = &observed.registry;
    if let Some(trouble) = &registry.trouble {
        return (
            Vec::new(),
            Readiness::Progressing(trouble.clone()),
            (ConditionStatus::Unknown, trouble.clone()),
        );
    }
    let refused = |note: Note| (Vec::new(), Readiness::Stalled(note.clone()), (ConditionStatus::False, note));
    match registry.versions.get(&version) {
        Some(VersionView::Absent) => {
            return refused(Note::new(
                Reason::VersionNotFound,
                format!(
                    "version {version} does not exist in the registry; correct spec.version, or register it"
                ),
            ));
        }
        None if registry.alias != Some(version) => {
            let note = Note::new(
                Reason::RegistryNotRead,
                format!("version {version} has not been read from the registry yet"),
            );
            return (Vec::new(), Readiness::Progressing(note.clone()), (ConditionStatus::Unknown, note));
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
    let moved_by_hand = observed.record.registry_version == Some(version);
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
