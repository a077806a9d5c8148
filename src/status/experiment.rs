//! The outcome of a reconcile of a ModelExperiment: the next status, and the Events for the change.

use super::{NewEvent, condition_events, kstatus};
use crate::{
    api::{
        ModelExperimentStatus,
        condition::{ConditionType, DesiredCondition, ReasonMessage, merge_conditions},
        model_experiment::{ArmStatus, ExperimentPhase, WithdrawnVersion},
    },
    decide::{
        Readiness,
        experiment::{ExperimentAction, ExperimentDecision, ExperimentObserved},
        registered_model::blocked,
    },
};

/// The actions of a decision about a ModelExperiment that were performed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExperimentApplied {
    /// The actions that succeeded.
    pub done: Vec<ExperimentAction>,
    /// Why the first that failed did.
    pub failure: Option<ReasonMessage>,
    /// Why the alias is not set, and will not be.
    pub alias_skipped: Option<String>,
}

/// Returns the next status.
#[must_use]
pub fn next_experiment(
    observed: &ExperimentObserved,
    decision: &ExperimentDecision,
    applied: &ExperimentApplied,
) -> ModelExperimentStatus {
    let mut status = decision.status.clone();
    status.alias_skipped = status.alias_skipped.or_else(|| applied.alias_skipped.clone());
    for action in &applied.done {
        match action {
            ExperimentAction::SetTag { alias, version, value, .. } => {
                let arm =
                    status.arms.iter_mut().find(|it| it.alias == *alias && it.version == Some(*version));
                if let Some(arm) = arm {
                    arm.tagged = Some(value.clone());
                }
            }
            ExperimentAction::SetAlias { .. } => status.alias_set = applied.alias_skipped.is_none(),
        }
    }
    let readiness = match &applied.failure {
        Some(failure) => blocked(failure.clone()),
        None if status.phase == Some(ExperimentPhase::Concluded)
            && !decision.actions.is_empty()
            && applied.done.len() == decision.actions.len() =>
        {
            Readiness::Settled(decision.concluded.1.clone())
        }
        None => decision.readiness.clone(),
    };
    let reported = |type_, (status, cause): &(_, ReasonMessage)| DesiredCondition {
        type_,
        status: *status,
        cause: cause.clone(),
    };
    let mut conditions = kstatus(&readiness);
    conditions.extend(decision.split.iter().map(|split| reported(ConditionType::SplitAsPlanned, split)));
    conditions.push(reported(ConditionType::Concluded, &decision.concluded));
    status.conditions =
        merge_conditions(&observed.status.conditions, conditions, observed.generation, observed.now);
    if decision.split.is_none() {
        let type_: &str = ConditionType::SplitAsPlanned.into();
        status.conditions.retain(|condition| condition.type_ != type_);
    }
    status
}

/// Returns the Events for a change of the status: a problem or its end, a challenger that was withdrawn or that
/// begins anew, and the conclusion.
#[must_use]
pub fn experiment_events(before: &ModelExperimentStatus, after: &ModelExperimentStatus) -> Vec<NewEvent> {
    let changed = [ConditionType::Ready, ConditionType::SplitAsPlanned, ConditionType::Concluded];
    let changed = changed
        .into_iter()
        .filter_map(|type_| condition_events(type_, &before.conditions, &after.conditions, "Compare"));
    // A problem may be in two conditions.
    let mut events: Vec<NewEvent> = Vec::new();
    for event in changed {
        if events.iter().all(|known| known.reason != event.reason) {
            events.push(event);
        }
    }
    events.extend(after.withdrawn.iter().filter(|it| !before.withdrawn.contains(it)).map(withdrawn));
    let arms = after.arms.iter().map(|arm| (before.arms.iter().find(|it| it.alias == arm.alias), arm));
    events.extend(arms.filter_map(|(before, arm)| anew(before, arm)));
    events
}

fn withdrawn(WithdrawnVersion { alias, version, message }: &WithdrawnVersion) -> NewEvent {
    NewEvent {
        warning: true,
        reason: "ChallengerWithdrawn".to_owned(),
        action: "Withdraw".to_owned(),
        message: format!("version {version} of {alias} no longer gets requests: {message}"),
    }
}

fn anew(before: Option<&ArmStatus>, arm: &ArmStatus) -> Option<NewEvent> {
    let (version, against) = (arm.version?, arm.against?);
    let before = before.filter(|before| before.since.is_some() && before.since != arm.since)?;
    let (was, was_against) = (before.version?, before.against?);
    Some(NewEvent {
        warning: false,
        reason: "BegunAnew".to_owned(),
        action: "Compare".to_owned(),
        message: format!(
            "{}: version {version} is compared with version {against} from now on, and what was counted of versions \
             {was} and {was_against} no longer counts",
            arm.alias
        ),
    })
}
