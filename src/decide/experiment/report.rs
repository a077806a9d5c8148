//! The conditions of an experiment.

use super::{ContestKey, ExperimentObserved, arm, winner::AliasPlan};
use crate::{
    analysis::{experiment::Why, ledger::Outage, live::reason_of},
    api::{
        ModelExperimentStatus,
        condition::{ConditionStatus, Reason, ReasonMessage},
        model_experiment::{ExperimentPhase, Verdict},
    },
    decide::{Readiness, live::reason, registered_model::blocked},
};

/// Whether it is over, and what is known so far.
pub(super) fn concluded(
    observed: &ExperimentObserved,
    status: &ModelExperimentStatus,
) -> (ConditionStatus, ReasonMessage) {
    let best = observed.best(&status.arms).and_then(|arm| Some((&arm.alias, arm.result.as_ref()?)));
    let message = best.map_or_else(
        || "nothing has been counted yet".to_owned(),
        |(alias, result)| format!("{alias} against {}: {}", observed.spec.champion_ref.name, result.message),
    );
    if status.phase != Some(ExperimentPhase::Concluded) {
        return (ConditionStatus::False, ReasonMessage::new(Reason::Collecting, message));
    }
    let reason = match best.map(|(_, result)| result.verdict) {
        Some(Verdict::ChallengerWins) => Reason::ChallengerWins,
        Some(Verdict::ChampionWins) => Reason::ChampionWins,
        Some(Verdict::NoDifference) => Reason::NoDifference,
        Some(Verdict::Collecting | Verdict::Undecided | Verdict::Unknown) | None => Reason::Undecided,
    };
    (ConditionStatus::True, ReasonMessage::new(reason, message))
}

/// Whether requests are shared as planned, once that is known.
pub(super) fn split(status: &ModelExperimentStatus) -> Option<(ConditionStatus, ReasonMessage)> {
    let results = || status.arms.iter().filter_map(|arm| Some((arm, arm.result.as_ref()?)));
    if let Some((arm, result)) = results().find(|(arm, _)| arm::is_because_of(arm, Why::SplitMismatch)) {
        let message = format!(
            "{}: {}; do all requests come through the route that shares them, and do its Gateways keep to \
             the weights? Another version, or another ModelExperiment, begins anew",
            arm.alias, result.message
        );
        return Some((ConditionStatus::False, ReasonMessage::new(Reason::SplitMismatch, message)));
    }
    let is_counted = results().any(|(_, result)| result.samples.iter().any(|samples| *samples > 0));
    let message = "the requests that were counted are shared as the weights say";
    let planned = ReasonMessage::new(Reason::SplitAsPlanned, message);
    is_counted.then_some((ConditionStatus::True, planned))
}

/// Whether it goes on as it should; `verdict` is what is known so far.
pub(super) fn readiness(
    observed: &ExperimentObserved,
    status: &ModelExperimentStatus,
    alias: &AliasPlan,
    is_writing: bool,
    verdict: &ReasonMessage,
) -> Readiness {
    if status.phase == Some(ExperimentPhase::Concluded) {
        if is_writing || !observed.is_over() {
            let message = format!("the verdict is being written to the registry; {}", verdict.message);
            return Readiness::Progressing(ReasonMessage::new(Reason::RegistryPending, message));
        }
        if let AliasPlan::Wait(cause) = alias {
            return blocked(cause.clone());
        }
        let skipped = status.alias_skipped.as_ref().map_or_else(String::new, |why| {
            format!("; the alias was not set to the version that won: {why}")
        });
        return Readiness::Settled(ReasonMessage::new(
            verdict.reason,
            format!("{}{skipped}", verdict.message),
        ));
    }
    if let Some((ConditionStatus::False, cause)) = split(status) {
        return Readiness::Stalled(cause);
    }
    // Of a challenger that has a verdict, nothing is wanted any more.
    let open = status.arms.iter().zip(&observed.challengers);
    let mut open = open.filter(|(arm, _)| !arm::is_final(arm));
    if let Some(cause) = open.find_map(|(arm, it)| observed.contestants(&arm.alias, it).err()) {
        return blocked(cause);
    }
    match observed.counted.iter().find_map(|view| Some((&view.key, view.outage?))) {
        Some((key, outage)) => Readiness::Progressing(without_data(key, outage)),
        None => Readiness::Settled(verdict.clone()),
    }
}

/// Says that nothing is counted, and what to do about it.
fn without_data(key: &ContestKey, outage: Outage) -> ReasonMessage {
    let reason = reason(reason_of(outage.gap));
    let what = match reason {
        Reason::MetricsUnreachable => {
            "their pods cannot be read: let Laurel's pod reach the port `metrics` of all pods"
        }
        Reason::MetricsAmbiguous => "a pod counts the same thing twice",
        _ => {
            "a pod does not count what the metrics are about: see spec.serving.metrics of the ModelAliases \
             (predictions: Numbers for a mean, Classes for a class), and whether each version has a ready \
             pod; pods of an earlier release of Laurel count nothing until they are replaced"
        }
    };
    let message = format!(
        "nothing has been counted of {} version {} and of the champion's version {} since {}: {what}",
        key.alias, key.challenger, key.champion, outage.since
    );
    ReasonMessage::new(reason, message)
}
