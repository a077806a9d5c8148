//! The three conditions that every object of ours has, as kstatus defines them.

use crate::{
    api::condition::{ConditionType, Note, Reason, WishedCondition},
    decide::Readiness,
};

/// `Ready`, `Reconciling` and `Stalled`: exactly one of them is true, except while work is suspended.
#[must_use]
pub fn kstatus(readiness: &Readiness) -> Vec<WishedCondition> {
    let note = readiness.note();
    let as_wished = Note::new(Reason::AsWished, "");
    let holds = [
        (ConditionType::Ready, matches!(readiness, Readiness::Settled(_))),
        (ConditionType::Reconciling, matches!(readiness, Readiness::Progressing(_))),
        (ConditionType::Stalled, matches!(readiness, Readiness::Stalled(_))),
    ];
    let speaks = |type_: ConditionType, holds: bool| holds || type_ == ConditionType::Ready;
    holds
        .into_iter()
        .map(|(type_, holds)| WishedCondition {
            type_,
            status: holds.into(),
            note: if speaks(type_, holds) { note.clone() } else { as_wished.clone() },
        })
        .collect()
}
