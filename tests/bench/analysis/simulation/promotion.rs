//! Promotions: a batch and a look every minute, by the code that the operator uses.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    super::analysis::{
        Pair,
        ledger::{ArmBatch, Batch},
        live::{Check, Data, LiveRules, Verdict, Watch, WatchKey, judge},
        sequential::{BoundTest, Comparison, Direction, SplitTest, threshold},
    },
    random::Random,
    traffic::Traffic,
};

/// What a promotion came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdicts {
    /// The first `Worse` or `NoWorse`.
    pub verdict: Verdict,
    /// How long it took, in minutes.
    pub minutes: u64,
    /// The requests that the candidate had until then.
    pub requests: u64,
    /// How many of them were bad.
    pub bad: u64,
}

/// When to stop looking.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The candidate is called worse.
    Worse,
    /// There is any verdict.
    Any,
}

/// Rules with one check, as a user would set them.
pub fn rules(max: Option<f64>) -> LiveRules {
    LiveRules::new(vec![Check { max, ..Check::new("failures") }])
}

fn key(has_baseline: bool) -> WatchKey {
    WatchKey {
        version: "5".to_owned(),
        against: has_baseline.then(|| "4".to_owned()),
        model_uri: "models:/m-5".to_owned(),
        fingerprint: String::new(),
        attempt: "1".to_owned(),
    }
}

fn batch(minute: u64, traffic: &Traffic, pair: Pair, has_baseline: bool) -> Batch {
    let at = |minute: u64| {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(i64::try_from(minute).unwrap_or(i64::MAX))
    };
    let arm = |tally: super::super::analysis::Tally| ArmBatch {
        requests: tally.total(),
        tallies: BTreeMap::from([("failures".to_owned(), tally)]),
        values: BTreeMap::new(),
    };
    let (weights, arms) = if has_baseline {
        (vec![1.0 - traffic.share, traffic.share], vec![arm(pair.baseline), arm(pair.candidate)])
    } else {
        (vec![1.0], vec![arm(pair.candidate)])
    };
    Batch { from: at(minute), to: at(minute + 1), weights, arms }
}

/// Promotes a version once. Without a verdict in time it is `Undecided`.
pub fn promote(
    traffic: &Traffic,
    rules: &LiveRules,
    has_baseline: bool,
    minutes: u64,
    until: Until,
    random: &mut Random,
) -> Verdicts {
    let mut watch = Watch::new(key(has_baseline), rules);
    let mut all = Pair::default();
    for minute in 0..minutes {
        let pair = traffic.minute(minute, random);
        all = all.plus(pair);
        watch.add(&batch(minute, traffic, pair, has_baseline), rules);
        let verdict = judge(&watch, rules, Data::Arriving).first().map(|finding| finding.verdict);
        let is_over = match verdict {
            Some(Verdict::Worse) => true,
            Some(Verdict::NoWorse) => until == Until::Any,
            _ => false,
        };
        if let Some(verdict) = verdict.filter(|_| is_over) {
            return after(verdict, minute + 1, all);
        }
    }
    after(Verdict::Undecided, minutes, all)
}

fn after(verdict: Verdict, minutes: u64, all: Pair) -> Verdicts {
    Verdicts { verdict, minutes, requests: all.candidate.total(), bad: all.candidate.bad() }
}

/// The comparison alone, at level `alpha`: returns the minute at which the candidate is first called worse.
pub fn compare(traffic: &Traffic, minutes: u64, alpha: f64, random: &mut Random) -> Option<u64> {
    let mut comparison = Comparison::new(Direction::Above, 1.0);
    (0..minutes).find(|minute| {
        comparison.add(traffic.minute(*minute, random), 1.0);
        comparison.peak() >= threshold(alpha)
    })
}

/// The test of a bound alone, at level `alpha`: returns the minute at which the candidate is first over it.
pub fn bounded(traffic: &Traffic, bound: f64, minutes: u64, alpha: f64, random: &mut Random) -> Option<u64> {
    let mut test = BoundTest::new(bound);
    (0..minutes).find(|minute| {
        test.add(traffic.minute(*minute, random).candidate, 1.0);
        test.peak_over() >= threshold(alpha)
    })
}

/// Whether the test of the split ever raises an alarm, with the candidate's true share.
pub fn is_split_alarmed(
    traffic: &Traffic,
    true_share: f64,
    minutes: u64,
    alpha: f64,
    random: &mut Random,
) -> Option<u64> {
    let mut split = SplitTest::default();
    (0..minutes).find(|_| {
        let n = random.poisson(traffic.per_minute);
        let candidate = random.binomial(n, true_share);
        split.add(&[n - candidate, candidate], &[1.0 - traffic.share, traffic.share]);
        split.peak() >= threshold(alpha)
    })
}
