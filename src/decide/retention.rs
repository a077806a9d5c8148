//! Retention: versions that do not serve are kept warm, scaled to zero or deleted.

use jiff::Timestamp;

use super::{
    Action, Observed, ServingIntent, StrategyIntent, Traffic, Workload, step::RolloutStep, target::Target,
};
use crate::api::names::Version;

/// Plans retention for every version that neither serves nor is about to.
///
/// A version is scaled down only when the Service's endpoints show that traffic has left it, which is never
/// in the decision that switches traffic away, and when the data plane of the HTTPRoute has left it, too.
pub(super) fn plan(
    observed: &Observed,
    serving: &ServingIntent,
    target: &Target,
    serves_next: Option<Version>,
    step: &mut RolloutStep,
) {
    let shared = observed.cluster.traffic == Traffic::Shared;
    let mut resting = Vec::new();
    for (&version, workload) in &observed.cluster.workloads {
        let in_use = Some(version) == serves_next
            || Some(version) == observed.serves()
            || Traffic::One(version) == observed.cluster.traffic
            || Some(version) == target.number()
            || Some(version) == target.spared;
        if in_use || shared {
            step.kept.push(version);
            continue;
        }
        match warm_until(observed, serving, target, serves_next, version) {
            // One that was already scaled to zero is not started.
            Some(until) => {
                step.wake_at(until);
                step.kept.push(version);
                if is_edited(serving, workload) {
                    let (model_uri, replicas) = (workload.model_uri.clone(), workload.desired);
                    step.act(Action::Apply { version, model_uri, replicas });
                }
            }
            None if workload.desired > 0 => {
                if observed.has_left(version) {
                    step.act(Action::Scale { version, replicas: 0 });
                } else {
                    step.wake_at_some(observed.route_settles_later());
                }
            }
            None if observed.route_has_left(version) => resting.push(version),
            None => step.wake_at_some(observed.route_settles_later()),
        }
    }
    forget(observed, serving, resting, step);
}

/// Whether somebody else changed what the pods of a warm version run, and it can be put back: what it had
/// before other settings were asked for is not known any more.
fn is_edited(serving: &ServingIntent, workload: &Workload) -> bool {
    workload.edited && workload.desired > 0 && serving.settings.as_ref() == Some(&workload.settings)
}

/// Returns until when the version keeps the size that it had when traffic left it; `None` if it is not warm.
fn warm_until(
    observed: &Observed,
    serving: &ServingIntent,
    target: &Target,
    serves_next: Option<Version>,
    version: Version,
) -> Option<Timestamp> {
    let failed =
        observed.status.rejected.iter().any(|rejection| rejection.version == version && rejection.active);
    let left = observed.status.version.filter(|remembered| Some(*remembered) != serves_next);
    let previous = left.or(observed.status.previous_version) == Some(version);
    if serving.strategy != StrategyIntent::BlueGreen
        || !previous
        || failed
        || target.number() == Some(version)
    {
        return None;
    }
    // If the status does not show yet that traffic left it, that happened just now. A version that was
    // restarted since, and did not serve, was not left.
    let has_just_left = left == Some(version);
    let known = observed.remembered(version).and_then(|held| held.idle_since);
    let idle_since = known.or_else(|| has_just_left.then_some(observed.now))?;
    idle_since.checked_add(serving.warm_for).ok().filter(|until| observed.now < *until)
}

/// Deletes the Deployments of the versions that stopped serving first, beyond `history`.
fn forget(observed: &Observed, serving: &ServingIntent, mut resting: Vec<Version>, step: &mut RolloutStep) {
    let last_used = |version: &Version| {
        let held = observed.remembered(*version);
        (held.and_then(|held| held.idle_since.or(held.started_at)), *version)
    };
    resting.sort_by_key(|version| std::cmp::Reverse(last_used(version)));
    for version in resting.into_iter().skip(serving.history) {
        step.act(Action::Delete { version });
    }
}
