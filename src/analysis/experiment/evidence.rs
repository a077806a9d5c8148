//! What was counted of all arms, as a fold over batches.

use jiff::Timestamp;
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

/// A guardrail of one challenger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GuardrailEvidence {
    pub(super) name: String,
    pub(super) counted: Pair,
    pub(super) above: Comparison,
}

/// All evidence of an experiment. Arm 0 is the champion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentEvidence {
    pub(super) arms: Vec<Sums>,
    /// For each challenger, its guardrails.
    pub(super) guardrails: Vec<Vec<GuardrailEvidence>>,
    pub(super) split: SplitTest,
    pub(super) last_batch_at: Option<Timestamp>,
}

impl ExperimentEvidence {
    /// No evidence yet, for a champion and some challengers.
    #[must_use]
    pub fn new(challengers: usize, rules: &ExperimentRules) -> Self {
        let guardrail = |(name, tolerate): &(String, f64)| GuardrailEvidence {
            name: name.clone(),
            counted: Pair::default(),
            above: Comparison::new(Direction::Above, *tolerate),
        };
        let guardrails: Vec<_> = rules.guardrails.iter().map(guardrail).collect();
        Self {
            arms: vec![Sums::default(); challengers + 1],
            guardrails: vec![guardrails; challengers],
            split: SplitTest::default(),
            last_batch_at: None,
        }
    }

    /// Adds a batch. One with another number of arms is ignored.
    pub fn add(&mut self, batch: &Batch, rules: &ExperimentRules) {
        let Some((champion, challengers)) = batch.arms.split_first() else { return };
        if batch.arms.len() != self.arms.len() {
            return;
        }
        for (sums, arm) in self.arms.iter_mut().zip(&batch.arms) {
            *sums = sums.plus(Sums::of(arm, rules));
        }
        let requests: Vec<u64> = batch.arms.iter().map(|arm| arm.requests).collect();
        self.split.add(&requests, &batch.weights);
        let design_effect = rules.assignment.design_effect().unwrap_or(f64::MAX);
        for (guardrails, challenger) in self.guardrails.iter_mut().zip(challengers) {
            for guardrail in guardrails {
                let tally = |arm: &ArmBatch| arm.tallies.get(&guardrail.name).copied().unwrap_or_default();
                let pair = Pair { baseline: tally(champion), candidate: tally(challenger) };
                guardrail.counted = guardrail.counted.plus(pair);
                guardrail.above.add(pair, design_effect);
            }
        }
        self.last_batch_at = Some(batch.to);
    }

    /// The primary metric of each arm; the champion first.
    #[must_use]
    pub fn arms(&self) -> &[Sums] {
        &self.arms
    }
}
