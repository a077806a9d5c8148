//! A ModelAlias without `serving`: only the alias in the registry is kept.

use super::{
    Action, Decision, GatesReport, Observed, OwnObject, Readiness, Report, Traffic, VersionView,
    alias_plan::{self, AliasTarget},
    finalizer,
    gates::{self, RuleVerdict},
    look_again, route, serving_condition, target,
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
            rejected(observed, cause)
        }
        (Ok(version), RuleVerdict::LetIn) => keep_alias(observed, version),
    };
    let mut actions = finalizer(observed);
    let cleared = clear_cluster(observed);
    let champion = observed.champion().filter(|_| !cleared.is_empty());
    if champion.is_none() {
        actions.extend(cleared);
    }
    actions.extend(alias_actions);
    let readiness = match (champion, readiness) {
        (Some(champion), Readiness::Settled(_)) => Readiness::Progressing(awaits(champion)),
        (_, readiness) => readiness,
    };
    let wake = matches!(readiness, Readiness::Progressing(_)).then(|| look_again(observed));
    let wake = wake.into_iter().chain(champion.map(|_| observed.champion_leaves()));
    let wake = wake.chain(observed.handed_back_later()).min();
    Decision {
        actions,
        rejection,
        target: desired.ok(),
        smoke_test: None,
        live: None,
        canary: None,
        approval: None,
        report: Report {
            readiness,
            serving: serving_condition(observed),
            registry,
            gates,
            live: super::LiveReport::Unchanged,
            drift: super::DriftReport::Unchanged,
            traffic: route::condition(observed),
        },
        wake,
    }
}

fn awaits(champion: &str) -> ReasonMessage {
    let message = format!(
        "spec.serving was removed: waiting for the HTTPRoute of {champion:?}, which gives it a share of the \
         requests, to leave it out"
    );
    ReasonMessage::new(Reason::TrafficPending, message)
}

/// `spec.serving` was removed: deletes the workloads, what routes requests to them first. What another
/// ModelAlias of this name left behind is not this one's to delete.
fn clear_cluster(observed: &Observed) -> Vec<Action> {
    let cluster = &observed.cluster;
    let is_own = |object: OwnObject| !cluster.orphans.contains(&object);
    let has_service = cluster.traffic != Traffic::Nowhere && is_own(OwnObject::Service);
    let own = cluster.workloads.keys().filter(|version| is_own(OwnObject::Deployment(**version)));
    let deployments = own.map(|&version| Action::Delete { version });
    let services = cluster.version_services.keys();
    let services = services.filter(|version| is_own(OwnObject::VersionService(**version)));
    let services = services.map(|&version| Action::DeleteVersionService { version });
    let route = route::is_own_route(observed).then_some(Action::DeleteRoute);
    let route = route.or_else(|| observed.hand_back_at_once());
    let service = has_service.then_some(Action::DeleteService);
    route.into_iter().chain(service).chain(services).chain(deployments).collect()
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
fn rejected(observed: &Observed, blocker: ReasonMessage) -> Kept {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn what_another_modelalias_left_behind_is_not_deleted() {
        let version = Version::new(1).unwrap();
        let mut observed: Observed = serde_yaml::from_str(
            "{now: '2026-01-01T00:00:00Z', intent: {desired: !Version '1', drift: Correct}, registry: {}, cluster: {
              traffic: !One '1', workloads: {'1': {desired: 1, pods: 1, ready: 1, rolled_out: true, settings: s,
              model_uri: 'models:/m/1'}}}}",
        )
        .unwrap();
        assert_eq!(clear_cluster(&observed), [Action::DeleteService, Action::Delete { version }]);
        observed.cluster.orphans = BTreeSet::from([OwnObject::Service, OwnObject::Deployment(version)]);
        assert_eq!(clear_cluster(&observed), []);
    }
}
