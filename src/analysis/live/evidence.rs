//! The evidence about one version, as a fold over batches.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::rules::{Check, LiveRules};
use crate::analysis::{
    Pair, Tally,
    ledger::Batch,
    sequential::{BoundTest, Comparison, Direction, SplitTest},
};

/// What evidence is about. Evidence about anything else is not taken over: a change of any part starts at
/// zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchKey {
    /// The version that is judged.
    pub version: String,
    /// The version that it is compared with.
    pub against: Option<String>,
    /// Where the model is, so that a version that was deleted and registered again is another one.
    pub model_uri: String,
    /// The settings that it is served with, and the rules.
    pub fingerprint: String,
    /// What distinguishes this attempt from earlier ones at the same version.
    pub attempt: String,
}

/// The evidence of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckEvidence {
    /// The check.
    pub name: String,
    /// What both did in the same minutes.
    pub counted: Pair,
    /// That it is worse than tolerated.
    pub(super) above: Comparison,
    /// That it is below the margin.
    pub(super) below: Comparison,
    /// That it is over the absolute bound.
    pub(super) over: Option<BoundTest>,
    /// In how many batches in a row it was over the bound.
    pub(super) streak: u32,
}

impl CheckEvidence {
    fn new(check: &Check) -> Self {
        Self {
            name: check.name.clone(),
            counted: Pair::default(),
            above: Comparison::new(Direction::Above, check.tolerate),
            below: Comparison::new(Direction::Below, check.margin),
            over: check.max.map(BoundTest::new),
            streak: 0,
        }
    }

    fn add(&mut self, batch: Pair, design_effect: f64) {
        self.counted = self.counted.plus(batch);
        self.above.add(batch, design_effect);
        self.below.add(batch, design_effect);
        self.add_to_bound(batch, design_effect);
    }

    /// While the other version is over the bound as well, the cause is shared, and the batch proves nothing.
    fn add_to_bound(&mut self, batch: Pair, design_effect: f64) {
        let Some(over) = &mut self.over else { return };
        let is_over = |tally: Tally| tally.share().map(|share| share > over.bound());
        let Some(candidate_is_over) = is_over(batch.candidate) else { return };
        if is_over(batch.baseline) == Some(true) {
            over.skip(batch.candidate);
            return;
        }
        over.add(batch.candidate, design_effect);
        self.streak = if candidate_is_over { self.streak.saturating_add(1) } else { 0 };
    }
}

/// All evidence about one version. Small enough for a status, from which it can be restored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    key: WatchKey,
    /// The version that is judged and, before it, the one that it is compared with.
    requests: Vec<u64>,
    checks: Vec<CheckEvidence>,
    split: SplitTest,
    /// How long the batches lasted that count for the step.
    covered: SignedDuration,
    /// When the last batch ended.
    last_batch_at: Option<Timestamp>,
}

impl Watch {
    /// No evidence yet.
    #[must_use]
    pub fn new(key: WatchKey, rules: &LiveRules) -> Self {
        let arms = if key.against.is_some() { 2 } else { 1 };
        Self {
            key,
            requests: vec![0; arms],
            checks: rules.checks.iter().map(CheckEvidence::new).collect(),
            split: SplitTest::default(),
            covered: SignedDuration::ZERO,
            last_batch_at: None,
        }
    }

    /// Continues with the evidence of before a restart, if it is about the same.
    #[must_use]
    pub fn restored(stored: Option<Self>, key: WatchKey, rules: &LiveRules) -> Self {
        let new = Self::new(key, rules);
        match stored {
            Some(stored) if stored.is_about(&new) => stored,
            _ => new,
        }
    }

    fn is_about(&self, other: &Self) -> bool {
        let names = |watch: &Self| watch.checks.iter().map(|check| check.name.clone()).collect::<Vec<_>>();
        self.key == other.key && names(self) == names(other) && self.requests.len() == other.requests.len()
    }

    /// Adds a batch. One of other versions than the watch is about is ignored.
    pub fn add(&mut self, batch: &Batch, rules: &LiveRules) {
        if batch.arms.len() != self.requests.len() {
            return;
        }
        let requests: Vec<u64> = batch.arms.iter().map(|arm| arm.requests).collect();
        for (sum, more) in self.requests.iter_mut().zip(&requests) {
            *sum = sum.saturating_add(*more);
        }
        self.split.add(&requests, &batch.weights);
        // Without a design effect nothing of it is used.
        let design_effect = rules.assignment.design_effect().unwrap_or(f64::MAX);
        for check in &mut self.checks {
            check.add(pair(batch, &check.name), design_effect);
        }
        self.covered = self.covered.saturating_add(batch.to.duration_since(batch.from));
        self.last_batch_at = Some(batch.to);
    }

    /// Another step begins: what was covered counts for the one before. The evidence stays, except for that
    /// about the shares: a batch at the end of a step may have requests of the next one.
    pub fn begin_step(&mut self) {
        self.covered = SignedDuration::ZERO;
        self.split = SplitTest::default();
    }

    /// For how long there were data in this step. Time without data does not count.
    #[must_use]
    pub fn covered(&self) -> SignedDuration {
        self.covered
    }

    /// When the last batch ended.
    #[must_use]
    pub fn last_batch_at(&self) -> Option<Timestamp> {
        self.last_batch_at
    }

    /// The requests of each version in all batches.
    #[must_use]
    pub fn requests(&self) -> &[u64] {
        &self.requests
    }

    /// The requests of the version that is judged.
    #[must_use]
    pub fn candidate_requests(&self) -> u64 {
        self.requests.last().copied().unwrap_or_default()
    }

    /// The evidence of each check.
    #[must_use]
    pub fn checks(&self) -> &[CheckEvidence] {
        &self.checks
    }

    /// The evidence that requests are not shared as planned.
    #[must_use]
    pub fn split(&self) -> &SplitTest {
        &self.split
    }

    /// Whether there is a version to compare with.
    #[must_use]
    pub fn has_baseline(&self) -> bool {
        self.requests.len() > 1
    }
}

/// What both versions did in a batch; the last arm is the one that is judged.
fn pair(batch: &Batch, check: &str) -> Pair {
    let tally = |index: usize| {
        let arm = batch.arms.len().checked_sub(index).and_then(|index| batch.arms.get(index));
        arm.and_then(|arm| arm.tallies.get(check)).copied().unwrap_or_default()
    };
    Pair { baseline: tally(2), candidate: tally(1) }
}
