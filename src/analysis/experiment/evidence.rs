//! What was counted of all arms, as a fold over batches.

use serde::{Deserialize, Serialize};

use super::rules::{ExperimentRules, Kind};
use crate::analysis::{
    Pair, Tally,
    ledger::{ArmBatch, Batch},
    moments::Moments,
    sequential::{Comparison, Direction, SplitTest},
};

/// The primary metric of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sums {
    /// Of a share.
    pub tally: Tally,
    /// Of a mean.
    pub moments: Moments,
}

impl Sums {
    fn of(arm: &ArmBatch, rules: &ExperimentRules) -> Self {
        let name = &rules.primary.name;
        match rules.primary.kind {
            Kind::Share => {
                Self { tally: arm.tallies.get(name).copied().unwrap_or_default(), ..Self::default() }
            }
            Kind::Mean => {
                Self { moments: arm.values.get(name).copied().unwrap_or_default(), ..Self::default() }
            }
        }
    }

    fn plus(self, other: Self) -> Self {
        Self { tally: self.tally.plus(other.tally), moments: self.moments.plus(other.moments) }
    }

    /// How many values the metric has.
    #[must_use]
    pub fn samples(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Share => self.tally.total(),
            Kind::Mean => self.moments.n(),
        }
    }
}

/// What a guardrail counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GuardrailEvidence {
    pub(super) name: String,
    pub(super) counted: Pair,
    pub(super) above: Comparison,
}

/// All evidence about a challenger and the champion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentEvidence {
    /// The champion, then the challenger.
    pub(super) arms: [Sums; 2],
    pub(super) guardrails: Vec<GuardrailEvidence>,
    pub(super) split: SplitTest,
}

impl ExperimentEvidence {
    /// No evidence yet.
    #[must_use]
    pub fn new(rules: &ExperimentRules) -> Self {
        let guardrail = |(name, tolerate): &(String, f64)| GuardrailEvidence {
            name: name.clone(),
            counted: Pair::default(),
            above: Comparison::new(Direction::Above, *tolerate),
        };
        Self {
            arms: Default::default(),
            guardrails: rules.guardrails.iter().map(guardrail).collect(),
            split: SplitTest::default(),
        }
    }

    /// Adds a batch of both arms, the champion first. One with another number of arms is ignored.
    pub fn add(&mut self, batch: &Batch, rules: &ExperimentRules) {
        let [champion, challenger] = batch.arms.as_slice() else { return };
        for (sums, arm) in self.arms.iter_mut().zip(&batch.arms) {
            *sums = sums.plus(Sums::of(arm, rules));
        }
        self.split.add(&[champion.requests, challenger.requests], &batch.weights);
        let design_effect = rules.assignment.design_effect().unwrap_or(f64::MAX);
        for guardrail in &mut self.guardrails {
            let tally = |arm: &ArmBatch| arm.tallies.get(&guardrail.name).copied().unwrap_or_default();
            let pair = Pair { baseline: tally(champion), candidate: tally(challenger) };
            guardrail.counted = guardrail.counted.plus(pair);
            guardrail.above.add(pair, design_effect);
        }
    }

    /// The primary metric of each arm; the champion first.
    #[must_use]
    pub fn arms(&self) -> &[Sums] {
        &self.arms
    }
}
