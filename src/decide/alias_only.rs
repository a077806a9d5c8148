//! A ModelAlias without `serving`: only the alias in the registry is kept.

use super::{
    Action, Decision, GatesReport, Observed, Readiness, Report, Traffic, VersionView, finalizer,
    gates::{self, Verdict},
    goal, look_again,
    registry_sync::{self, Lead},
    serving_condition,
};
use crate::api::{
    condition::{ConditionStatus, Note, Reason},
    names::Version,
};

pub(super) fn decide(observed: &Observed) -> Decision {
    let wished = goal::wished(observed);
    let (verdict, gates) = match &wished {
        Ok(version) => gates::judge(observed, *version, false),
        Err(_) => (Verdict::LetIn, GatesReport::Unchanged),
    };
    let mut rejection = None;
    let named = wished.clone().and_then(|version| named(observed, version));
    let (alias_actions, readiness, registry) = match (named, verdict) {
        (Err(note), _) | (Ok(_), Verdict::Unknown(note)) if note.reason.passes_by_itself() => {
            (Vec::new(), Readiness::Progressing(note.clone()), (ConditionStatus::Unknown, note))
        }
        (Err(note), _) | (Ok(_), Verdict::Unknown(note)) => {
            (Vec::new(), Readiness::Stalled(note.clone()), (ConditionStatus::False, note))
        }
        (Ok(_), Verdict::Failed(note)) => {
            let version = wished.as_ref().ok().copied().filter(|_| observed.record.version.is_some());
            rejection = gates::rejection(observed, version, Some(&note), "");
            refused(observed, note)
        }
        (Ok(version), Verdict::LetIn) => keep_alias(observed, version),
    };
    let mut actions = finalizer(observed);
    actions.extend(clear_cluster(observed));
    actions.extend(alias_actions);
    let wake = matches!(readiness, Readiness::Progressing(_)).then(|| look_again(observed));
    Decision {
        actions,
        rejection,
        target: wished.ok(),
        smoke_test: None,
        report: Report { readiness, serving: serving_condition(observed), registry, gates },
        wake,
    }
}

/// `spec.serving` was removed: what served goes, the Service first.
fn clear_cluster(observed: &Observed) -> Vec<Action> {
    let service = (observed.cluster.traffic != Traffic::Nowhere).then_some(Action::DeleteService);
    let deployments = observed.cluster.workloads.keys().map(|&version| Action::Delete { version });
    service.into_iter().chain(deployments).collect()
}

/// The version, if it can be named.
fn named(observed: &Observed, version: Version) -> Result<Version, Note> {
    let registry = &observed.registry;
    if registry.trouble.is_some() || registry.alias == Some(version) {
        return Ok(version);
    }
    match registry.versions.get(&version) {
        Some(VersionView::Absent) => {
            let message = format!(
                "version {version} does not exist in the registry; correct spec.version, or register it"
            );
            Err(Note::new(Reason::VersionNotFound, message))
        }
        Some(VersionView::Unread(note)) => Err(note.clone()),
        None => {
            let message = format!("version {version} has not been read from the registry yet");
            Err(Note::new(Reason::RegistryNotRead, message))
        }
        Some(_) => Ok(version),
    }
}

type Kept = (Vec<Action>, Readiness, (ConditionStatus, Note));

/// The promotion rules refuse the version: the alias stays on, or goes back to, the one that it named before.
fn refused(observed: &Observed, refusal: Note) -> Kept {
    match observed.record.version {
        Some(version) => {
            let (actions, _, condition) = keep_alias(observed, version);
            (actions, Readiness::Stalled(refusal), condition)
        }
        None => (Vec::new(), Readiness::Stalled(refusal.clone()), (ConditionStatus::False, refusal)),
    }
}

fn keep_alias(observed: &Observed, version: Version) -> Kept {
    let lead = Lead { version: Some(version), goal: Some(version), awaited: None, replaced: None };
    let sync = registry_sync::plan(observed, lead);
    let readiness = match sync.shortfall {
        Some(note) if note.reason.passes_by_itself() => Readiness::Progressing(note),
        Some(note) => Readiness::Stalled(note),
        // Where nothing serves, an alias that was left where somebody moved it is all there is to tell.
        None if sync.condition.1.reason == Reason::AliasDrifted => {
            Readiness::Stalled(sync.condition.1.clone())
        }
        None => Readiness::Settled(Note::new(Reason::AliasSet, format!("the alias names version {version}"))),
    };
    (sync.actions, readiness, sync.condition)
}
