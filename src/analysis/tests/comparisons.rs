//! How the evidence of a comparison answers to what it is given.

use proptest::prelude::*;

use super::support::{pair, pairs, rules, tallies, tally, watched};
use crate::analysis::{
    Pair, Tally,
    live::{Data, Verdict, judge},
    sequential::{BoundTest, Comparison, Direction, Margins, SplitTest},
};

fn above(batches: &[Pair]) -> Comparison {
    evidence(Direction::Above, 1.0, batches)
}

fn evidence(direction: Direction, null: f64, batches: &[Pair]) -> Comparison {
    let mut comparison = Comparison::new(direction, null);
    for batch in batches {
        comparison.add(*batch, 1.0);
    }
    comparison
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(1.0)
}

/// The same requests with one failure more of the candidate.
fn one_more(of: Tally) -> Option<Tally> {
    Tally::new(of.bad() + 1, of.total())
}

fn one_less(of: Tally) -> Option<Tally> {
    of.bad().checked_sub(1).and_then(|bad| Tally::new(bad, of.total()))
}

proptest! {
    /// A failure moved to the candidate, added to it, or taken from the baseline never lowers the evidence
    /// that it is worse, nor raises the evidence that it is not.
    #[test]
    fn more_failures_of_the_candidate_are_never_less_evidence(
        batches in prop::collection::vec(pairs(400), 1..6), which in any::<prop::sample::Index>(),
    ) {
        let index = which.index(batches.len());
        let Pair { baseline, candidate } = batches[index];
        let changed = [
            one_more(candidate).map(|candidate| Pair { baseline, candidate }),
            one_less(baseline).map(|baseline| Pair { baseline, candidate }),
            one_less(baseline)
                .zip(one_more(candidate))
                .map(|(baseline, candidate)| Pair { baseline, candidate }),
        ];
        for change in changed.into_iter().flatten() {
            let mut worse = batches.clone();
            worse[index] = change;
            prop_assert!(above(&worse).ln_evidence() >= above(&batches).ln_evidence() - 1e-9);
            prop_assert!(above(&worse).peak() >= above(&batches).peak() - 1e-9);
            let below = |batches: &[Pair]| evidence(Direction::Below, 2.0, batches).ln_evidence();
            prop_assert!(below(&worse) <= below(&batches) + 1e-9);
        }
    }

    /// Nor does it turn a verdict from worse to no worse.
    #[test]
    fn more_failures_never_turn_worse_into_no_worse(
        batches in prop::collection::vec(pairs(2000), 1..4), which in any::<prop::sample::Index>(),
    ) {
        let verdict = |batches: &[Pair]| {
            let watch = watched(&rules(), batches);
            judge(&watch, &rules(), Data::Arriving)[0].verdict
        };
        let index = which.index(batches.len());
        let mut more = batches.clone();
        if let Some(candidate) = one_more(batches[index].candidate) {
            more[index].candidate = candidate;
        }
        prop_assert!(verdict(&batches) != Verdict::Worse || verdict(&more) != Verdict::NoWorse);
    }

    /// Batches of one version, without failures, or with nothing else, leave every bit as it was.
    #[test]
    fn a_batch_without_information_changes_no_bit(
        before in prop::collection::vec(pairs(400), 0..4),
        n in 0_u64..1000,
        m in 0_u64..1000,
        bad in 0_u64..1000,
    ) {
        let known = above(&before);
        let bad = bad.min(n);
        let alone = [pair((bad, n), (0, 0)), pair((0, 0), (bad, n))];
        for batch in alone.into_iter().chain([pair((0, n), (0, m)), pair((n, n), (m, m))]) {
            let mut after = known.clone();
            after.add(batch, 1.0);
            prop_assert_eq!(after.sums(), known.sums());
            prop_assert_eq!(after.ln_evidence().to_bits(), known.ln_evidence().to_bits());
            prop_assert_eq!(after.peak().to_bits(), known.peak().to_bits());
        }
        let mut bound = BoundTest::new(0.05);
        for batch in &before {
            bound.add(batch.candidate, 1.0);
        }
        let mut after = bound.clone();
        after.add(Tally::default(), 1.0);
        prop_assert_eq!(after, bound);
    }

    #[test]
    fn batches_commute(batches in prop::collection::vec(pairs(400), 0..8), seed in any::<u64>()) {
        let mut shuffled = batches.clone();
        for index in 1..shuffled.len() {
            shuffled.swap(index, usize::try_from(seed >> index).unwrap_or_default() % (index + 1));
        }
        let all = |batches: &[Pair]| above(batches).ln_since_the_beginning();
        prop_assert!(close(all(&shuffled), all(&batches)));
        let split = |batches: &[Pair]| {
            let mut split = SplitTest::default();
            for batch in batches {
                split.add(&[batch.baseline.total(), batch.candidate.total()], &[0.9, 0.1]);
            }
            split.ln_evidence()
        };
        prop_assert!(close(split(&shuffled), split(&batches)));
        let under = |batches: &[Pair]| {
            let mut bound = BoundTest::new(0.05);
            for batch in batches {
                bound.add(batch.candidate, 1.0);
            }
            bound.ln_under(1.0)
        };
        prop_assert!(close(under(&shuffled), under(&batches)));
    }

    /// An odds ratio of ψ is one of 1/ψ with the arms exchanged, so "better" is "worse" seen from the other
    /// side.
    #[test]
    fn exchanged_arms_mirror_the_evidence(batch in pairs(400), odds in 0.01_f64..100.0) {
        if let (Some(one), Some(other)) = (Margins::of(batch), Margins::of(batch.swapped())) {
            let float = |count: u64| f64::from(u32::try_from(count).unwrap());
            let this = one.ln_probability(float(batch.candidate.bad()), odds);
            let mirrored = other.ln_probability(float(batch.baseline.bad()), 1.0 / odds);
            prop_assert!(close(this, mirrored), "{this} and {mirrored}");
        }
    }

    /// A cause that both share changes how many fail, and not what is known.
    #[test]
    fn a_batch_in_which_both_fail_alike_is_no_evidence(baseline in tallies(1000), n in 1_u64..1000) {
        prop_assume!(baseline.total() > 0);
        // Rounded down: not more than the share of the baseline.
        let candidate = tally(baseline.bad() * n / baseline.total(), n);
        let evidence = above(&[Pair { baseline, candidate }]).ln_evidence();
        prop_assert!(evidence <= 0.01, "{evidence}");
    }

    #[test]
    fn a_design_effect_divides_the_evidence(batch in pairs(400), effect in 1.0_f64..20.0) {
        let mut weak = Comparison::new(Direction::Above, 1.0);
        weak.add(batch, effect);
        for (weak, full) in weak.sums().iter().zip(above(&[batch]).sums()) {
            prop_assert!(close(*weak * effect, *full));
        }
    }
}

#[test]
fn the_least_failures_of_a_candidate_that_prove_it_worse() {
    // None of the baseline's fail. Each batch is a minute of 60 requests.
    let least = |share: u64, alpha: f64| {
        (1..100).find(|failures| {
            let n = 100_000 * share / 100;
            let batch = pair((0, 100_000 - n), (*failures, n));
            above(&[batch]).peak() >= -f64::ln(alpha)
        })
    };
    assert_eq!([0.05, 0.01, 0.001].map(|alpha| least(10, alpha)), [Some(2), Some(3), Some(4)]);
    assert_eq!([0.05, 0.01, 0.001].map(|alpha| least(1, alpha)), [Some(2), Some(2), Some(3)]);
    assert_eq!([0.05, 0.01, 0.001].map(|alpha| least(50, alpha)), [Some(6), Some(9), Some(12)]);
}

#[test]
fn how_many_flawless_requests_prove_a_bound() {
    let least = |bound: f64, alpha: f64| {
        (1..10_000).find(|n| BoundTest::of(tally(0, *n), bound).ln_under(1.0) >= -f64::ln(alpha)).unwrap()
    };
    assert_eq!([0.05, 0.01].map(|alpha| least(0.01, alpha)), [357, 536]);
    assert_eq!([0.05, 0.01].map(|alpha| least(0.001, alpha)), [3586, 5380]);
    assert_eq!([0.05, 0.01].map(|alpha| least(0.05, alpha)), [70, 105]);
}
