//! A ModelAlias without `serving`: only the alias in the registry is kept.

use super::{
    Action, Decision, GatesReport, Observed, Readiness, Report, Traffic, VersionView,
    alias_plan::{self, AliasTarget},
    finalizer,
    gates::{self, RuleVerdict},
    look_again, serving_condition, target,
};
use crate::api::{
    condition::{ConditionStatus, Reason, ReasonMessage},
    names::Version,
};

pub(super) fn decide(observed: &Observed) -> Decision {
    let desired = target::desired(observed);
    let (verdict, gates) = match &desired {
        Ok(version) => gates::judge(observed, *version, false),
        Err(_) => (RuleVerdict::LetIn, GatesReport::Unchanged),
    };
    let mut rejection = None;
    let named = desired.clone().and_then(|version| named(observed, version));
    let (alias_actions, readiness, registry) = match (named, verdict) {
        (Err(cause), _) | (Ok(_), RuleVerdict::Unknown(cause)) if cause.reason.is_transient() => {
            (Vec::new(), Readiness::Progressing(cause.clone()), (ConditionStatus::Unknown, cause))
        }
        (Err(cause), _) | (Ok(_), RuleVerdict::Unknown(cause)) => {
            (Vec::new(), Readiness::Stalled(cause.clone()), (ConditionStatus::False, cause))
        }
        (Ok(_), RuleVerdict::Failed(cause)) => {
            let version = desired.as_ref().ok().copied().filter(|_| observed.status.version.is_some());
            rejection = gates::rejection(observed, version, Some(&cause), None);
            refused(observed, cause)
        }
        (Ok(version), RuleVerdict::LetIn) => keep_alias(observed, version),
    };
    let mut actions = finalizer(observed);
    actions.extend(clear_cluster(observed));
    actions.extend(alias_actions);
    let wake = matches!(readiness, Readiness::Progressing(_)).then(|| look_again(observed));
    Decision {
        actions,
        rejection,
        target: desired.ok(),
        smoke_test: None,
        report: Report { readiness, serving: serving_condition(observed), registry, gates },
        wake,
    }
}

/// `spec.serving` was removed: deletes the workloads, the Service first.
fn clear_cluster(observed: &Observed) -> Vec<Action> {
    let service = (observed.cluster.traffic != Traffic::Nowhere).then_some(Action::DeleteService);
    let deployments = observed.cluster.workloads.keys().map(|&version| Action::Delete { version });
    service.into_iter().chain(deployments).collect()
}

/// Returns the version, if the alias may name it.
fn named(observed: &Observed, version: Version) -> Result<Version, ReasonMessage> {
    let registry = &observed.registry;
    if registry.error.is_some() || registry.alias == Some(version) {
        return Ok(version);
    }
    match registry.versions.get(&version) {
        Some(VersionView::Absent) => {
            let message = format!(
                "version {version} does not exist in the registry; correct spec.version, or register it"
            );
            Err(ReasonMessage::new(Reason::VersionNotFound, message))
        }
        Some(VersionView::Unread(cause)) => Err(cause.clone()),
        None => {
            let message = format!("version {version} has not been read from the registry yet");
            Err(ReasonMessage::new(Reason::RegistryNotRead, message))
        }
        Some(_) => Ok(version),
    }
}

type Kept = (Vec<Action>, Readiness, (ConditionStatus, ReasonMessage));

/// The promotion rules reject the version: the alias stays on, or returns to, the previous one.
fn refused(observed: &Observed, blocker: ReasonMessage) -> Kept {
    match observed.status.version {
        Some(version) => {
            let (actions, _, condition) = keep_alias(observed, version);
            (actions, Readiness::Stalled(blocker), condition)
        }
        None => (Vec::new(), Readiness::Stalled(blocker.clone()), (ConditionStatus::False, blocker)),
    }
}

fn keep_alias(observed: &Observed, version: Version) -> Kept {
    let alias_target =
        AliasTarget { version: Some(version), target: Some(version), awaited: None, replaced: None };
    let plan = alias_plan::plan(observed, alias_target);
    let readiness = match plan.blocker {
        Some(cause) if cause.reason.is_transient() => Readiness::Progressing(cause),
        Some(cause) => Readiness::Stalled(cause),
        // Without serving, a reported drift is the only thing to report.
        None if plan.condition.1.reason == Reason::AliasDrifted => {
            Readiness::Stalled(plan.condition.1.clone())
        }
        None => Readiness::Settled(ReasonMessage::new(
            Reason::AliasSet,
            format!("the alias names version {version}"),
        )),
    };
    (plan.actions, readiness, plan.condition)
}
