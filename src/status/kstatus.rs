//! The three kstatus conditions that all of our objects have.

use crate::{
    api::condition::{ConditionType, DesiredCondition, Reason, ReasonMessage},
    decide::Readiness,
};

/// Returns `Ready`, `Reconciling` and `Stalled`: exactly one of them is true, except while suspended.
#[must_use]
pub fn kstatus(readiness: &Readiness) -> Vec<DesiredCondition> {
    let cause = readiness.cause();
    let at_rest = ReasonMessage::new(Reason::AsDesired, "");
    let holds = [
        (ConditionType::Ready, matches!(readiness, Readiness::Settled(_))),
        (ConditionType::Reconciling, matches!(readiness, Readiness::Progressing(_))),
        (ConditionType::Stalled, matches!(readiness, Readiness::Stalled(_))),
    ];
    let speaks = |type_: ConditionType, holds: bool| holds || type_ == ConditionType::Ready;
    holds
        .into_iter()
        .map(|(type_, holds)| DesiredCondition {
            type_,
            status: holds.into(),
            cause: if speaks(type_, holds) { cause.clone() } else { at_rest.clone() },
        })
        .collect()
}
