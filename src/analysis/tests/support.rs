//! Tallies, batches and watches for the tests.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::analysis::{
    Pair, Tally,
    ledger::{ArmBatch, Batch},
    live::{Assignment, Check, LiveRules, Watch, WatchKey},
};

pub(super) const START: Timestamp = Timestamp::UNIX_EPOCH;

pub(super) fn seconds(seconds: i64) -> Timestamp {
    START + SignedDuration::from_secs(seconds)
}

pub(super) fn tally(bad: u64, total: u64) -> Tally {
    Tally::new(bad, total).unwrap()
}

/// A batch: bad of total requests of the baseline, and of the candidate.
pub(super) fn pair(baseline: (u64, u64), candidate: (u64, u64)) -> Pair {
    Pair { baseline: tally(baseline.0, baseline.1), candidate: tally(candidate.0, candidate.1) }
}

pub(super) fn tallies(most: u64) -> impl Strategy<Value = Tally> {
    (0..=most).prop_flat_map(|total| (0..=total).prop_map(move |bad| tally(bad, total)))
}

pub(super) fn pairs(most: u64) -> impl Strategy<Value = Pair> {
    (tallies(most), tallies(most)).prop_map(|(baseline, candidate)| Pair { baseline, candidate })
}

fn arm(tally: Tally) -> ArmBatch {
    ArmBatch {
        requests: tally.total(),
        tallies: BTreeMap::from([("failures".to_owned(), tally)]),
        values: BTreeMap::new(),
    }
}

/// The batch number `index`, each of 15 seconds.
pub(super) fn batch(index: usize, pair: Pair, weights: [f64; 2]) -> Batch {
    let from = seconds(15 * i64::try_from(index).unwrap());
    Batch {
        from,
        to: from + SignedDuration::from_secs(15),
        weights: weights.to_vec(),
        arms: vec![arm(pair.baseline), arm(pair.candidate)],
    }
}

pub(super) fn batch_alone(index: usize, candidate: Tally) -> Batch {
    let mut batch = batch(index, Pair { candidate, ..Pair::default() }, [0.0, 1.0]);
    batch.arms.remove(0);
    batch.weights.remove(0);
    batch
}

pub(super) fn key(against: Option<&str>) -> WatchKey {
    WatchKey {
        version: "5".to_owned(),
        against: against.map(str::to_owned),
        model_uri: "models:/m-1".to_owned(),
        fingerprint: "f".to_owned(),
        attempt: "1".to_owned(),
    }
}

pub(super) fn rules() -> LiveRules {
    LiveRules::new(vec![Check::new("failures")])
}

pub(super) fn sticky(design_effect: Option<f64>) -> LiveRules {
    LiveRules { assignment: Assignment { is_sticky: true, design_effect }, ..rules() }
}

/// A watch that has seen these batches, shared as was planned.
pub(super) fn watched(rules: &LiveRules, pairs: &[Pair]) -> Watch {
    let all = pairs.iter().fold(Pair::default(), |sum, pair| sum.plus(*pair));
    #[expect(clippy::cast_precision_loss, reason = "any weights will do")]
    let weights = [all.baseline, all.candidate].map(|tally| tally.total().max(1) as f64);
    let mut watch = Watch::new(key(Some("4")), rules);
    for (index, pair) in pairs.iter().enumerate() {
        watch.add(&batch(index, *pair, weights), rules);
    }
    watch
}
