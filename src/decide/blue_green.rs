//! `BlueGreen`: the goal starts at full size beside the serving version, then traffic switches at once.

use super::{
    Action, Observed, ServingIntent, Traffic, Workload, live,
    pods_cause::pods_cause,
    route as http_route, smoke_test,
    step::{self, RolloutStep},
    target::Target,
};
use crate::api::{
    condition::{Reason, ReasonMessage},
    names::{ModelUri, Version},
};

/// Returns the next steps towards the goal.
pub(super) fn step(observed: &Observed, serving: &ServingIntent, target: &Target) -> RolloutStep {
    let mut step = RolloutStep::default();
    restore_traffic(observed, serving, target, &mut step);
    if step.rejection.is_none()
        && let Some((version, cause)) = live::given_up(observed, serving)
    {
        step.reject(observed, serving, version, cause);
    }
    let Some((version, model_uri)) = target.version.as_ref().filter(|_| step.rejection.is_none()) else {
        return step;
    };
    if step.routed_to().or_else(|| observed.answers_alone()) == Some(*version) {
        keep(observed, serving, target, u32::MAX, &mut step);
    } else {
        bring_up(observed, serving, target, (*version, model_uri), &mut step);
        http_route::hold_back(observed, serving, &mut step);
        grow_what_serves(observed, serving, *version, &mut step);
    }
    step
}

/// The serving version grows to the desired size even while another version starts: load does not wait. It
/// shrinks only after traffic has left it.
fn grow_what_serves(observed: &Observed, serving: &ServingIntent, target: Version, step: &mut RolloutStep) {
    let Traffic::One(serves) = observed.cluster.traffic else { return };
    let is_small =
        observed.cluster.workloads.get(&serves).is_some_and(|workload| workload.desired < serving.replicas);
    if is_small && serves != target && step.routed_to().is_none() {
        step.act(Action::Scale { version: serves, replicas: serving.replicas });
    }
}

/// Takes precedence over everything else: while no version answers, traffic goes to a ready version that has
/// served before. So a Service that was deleted or re-pointed is restored, and a version that lost all its
/// pods is replaced. If those pods failed by themselves, the version is rejected; otherwise traffic returns
/// once it is ready again.
pub(super) fn restore_traffic(
    observed: &Observed,
    serving: &ServingIntent,
    target: &Target,
    step: &mut RolloutStep,
) {
    let traffic = observed.cluster.traffic;
    if observed.somebody_answers() {
        if observed.cluster.service_outdated {
            step.act(Action::Route(traffic));
        }
        return;
    }
    let Some(version) = observed.stand_in(target.number()) else { return };
    route(version, step);
    let has_failed = |failed: &Version| {
        let is_selected =
            *failed != version && Some(*failed) == target.number() && traffic == Traffic::One(*failed);
        is_selected && observed.cluster.workloads.get(failed).is_some_and(|workload| workload.has_failed)
    };
    if let Some(failed) = observed.serves().filter(has_failed) {
        let message = format!(
            "version {failed} has no ready pod left; version {version}, which is still warm, takes over"
        );
        step.reject(observed, serving, failed, ReasonMessage::new(Reason::BecameUnready, message));
    }
}

/// Brings a version from any state to full size, and switches traffic to it.
///
/// A version that has served and is ready gets traffic first, and its size and current settings afterwards: a
/// rollback waits for nothing.
pub(super) fn bring_up(
    observed: &Observed,
    serving: &ServingIntent,
    target: &Target,
    (version, model_uri): (Version, &ModelUri),
    step: &mut RolloutStep,
) {
    let replicas = serving.replicas;
    let start = Action::Apply { version, model_uri: model_uri.clone(), replicas };
    let Some(workload) = observed.cluster.workloads.get(&version) else {
        return begin(observed, serving, version, start, step);
    };
    let asked_for_another = observed.retry_is_asked() && workload.model_uri != *model_uri;
    if observed.can_take_over(version, serving) && !asked_for_another {
        return route(version, step);
    }
    if serving.replaces(workload, model_uri) {
        begin(observed, serving, version, start, step);
    } else if workload.desired != replicas {
        begin(observed, serving, version, Action::Scale { version, replicas }, step);
    } else if !workload.rolled_out {
        step.await_pods(observed, serving, target, version, workload);
    } else if smoke_test::prove(step, observed, serving, version) {
        route(version, step);
        smoke_test::report_skipped(step, observed, serving, version);
    }
}

fn begin(
    observed: &Observed,
    serving: &ServingIntent,
    version: Version,
    action: Action,
    step: &mut RolloutStep,
) {
    step.act(action);
    step.progress(Reason::StartingVersion, format!("starting version {version}"));
    step.wake_at(observed.now.checked_add(serving.progress_deadline).unwrap_or(jiff::Timestamp::MAX));
}

pub(super) fn route(version: Version, step: &mut RolloutStep) {
    step.act(Action::Route(Traffic::One(version)));
    step.progress(Reason::MovingTraffic, format!("switching traffic to version {version}"));
}

/// Keeps the serving version as desired: existing, with the current settings and size, as far as there is
/// room for more pods.
pub(super) fn keep(
    observed: &Observed,
    serving: &ServingIntent,
    target: &Target,
    room: u32,
    step: &mut RolloutStep,
) {
    let Some((version, model_uri)) = &target.version else { return };
    let version = *version;
    let apply = |replicas| Action::Apply { version, model_uri: model_uri.clone(), replicas };
    let Some(workload) = observed.cluster.workloads.get(&version) else {
        return begin(observed, serving, version, apply(serving.replicas), step);
    };
    let replicas = serving.replicas.min(workload.desired.saturating_add(room));
    if target.is_desired() && serving.replaces(workload, model_uri) {
        step.act(apply(replicas));
        step.progress(
            Reason::UpdatingSettings,
            format!("rolling out new settings to version {version}, pod by pod"),
        );
    } else if workload.desired != replicas {
        step.act(Action::Scale { version, replicas });
        step.progress(
            Reason::Scaling,
            format!("scaling version {version} from {} to {replicas} pods", workload.desired),
        );
    } else if !workload.rolled_out {
        await_recovery(observed, serving, version, workload, step);
    } else if replicas < serving.replicas {
        let cause = format!(
            "scaling version {version} from {replicas} to {} pods once terminating pods are gone \
             (spec.rollout.maxSurge)",
            serving.replicas
        );
        step.progress(Reason::Scaling, cause);
    }
}

/// The serving version is not as desired: its pods fail, or new settings do not become ready. It keeps
/// serving with the pods that it has.
pub(super) fn await_recovery(
    observed: &Observed,
    serving: &ServingIntent,
    version: Version,
    workload: &Workload,
    step: &mut RolloutStep,
) {
    let cause = pods_cause(version, workload);
    let deadline = step::deadline(observed, serving, version);
    if observed.now < deadline {
        step.wake_at(deadline);
        step.progress = Some(cause);
    } else if workload.error.is_some() {
        step.stalled = Some(step::overdue(serving, version, workload, cause));
    } else {
        step.progress = Some(cause);
    }
}
