//! Any counts and any legal rules: nothing panics, and no NaN gets out.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::support::{batch, pair, tally, watched};
use crate::analysis::{
    MAX_COUNT, Pair, Tally,
    live::{Check, Data, LiveRules, judge},
    moments::Moments,
    sequential::{
        BoundTest, Comparison, Direction, Interval, chi_square, fisher_one_sided, fisher_two_sided,
        ln_dirichlet, one_sided_lower,
    },
    single_look::{
        chi_square_tail, mann_whitney, newcombe, normal_quantile, normal_tail, student_tail, two_proportions,
        welch,
    },
};

/// Counts of every magnitude, with the edges.
fn counts() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(1_000_000_000_000),
        Just(MAX_COUNT),
        (0_u32..50).prop_flat_map(|bits| 0..=(1_u64 << bits).min(MAX_COUNT)),
    ]
}

fn any_tally() -> impl Strategy<Value = Tally> {
    (counts(), counts()).prop_map(|(one, other)| tally(one.min(other), one.max(other)))
}

fn any_pair() -> impl Strategy<Value = Pair> {
    (any_tally(), any_tally()).prop_map(|(baseline, candidate)| Pair { baseline, candidate })
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(0.0), -1e3..1e3]
}

fn any_check() -> impl Strategy<Value = Check> {
    let max = prop::option::of(1e-9..0.999_999);
    (1.0_f64..100.0, 1.001_f64..9.0, max, 1e-9_f64..0.9).prop_map(|(tolerate, factor, max, negligible)| {
        Check { tolerate, margin: tolerate * factor, max, negligible, ..Check::new("failures") }
    })
}

proptest! {
    #[test]
    fn evidence_is_always_a_number(batches in prop::collection::vec(any_pair(), 1..4), check in any_check()) {
        for (direction, null) in [(Direction::Above, check.tolerate), (Direction::Below, check.margin)] {
            let mut comparison = Comparison::new(direction, null);
            for batch in &batches {
                comparison.add(*batch, 1.0);
            }
            prop_assert!(comparison.ln_evidence().is_finite(), "{comparison:?}");
            prop_assert!(comparison.sums().iter().all(|sum| sum.is_finite()));
        }
        for bound in [check.negligible, check.max.unwrap_or(0.5)] {
            let mut test = BoundTest::new(bound);
            for batch in &batches {
                test.add(batch.candidate, 1.0);
            }
            prop_assert!(!test.ln_under(1.0).is_nan() && test.ln_over(1.0).is_finite(), "{test:?}");
        }
        let Pair { baseline, candidate } = batches[0];
        let split = ln_dirichlet(&[baseline.total(), candidate.total()], &[0.9, 0.1], 100.0);
        prop_assert!(split.is_none_or(f64::is_finite), "{split:?}");
    }

    #[test]
    fn a_judgement_is_always_possible(
        batches in prop::collection::vec(any_pair(), 0..4), check in any_check(), alpha in 1e-12_f64..0.999,
    ) {
        let rules = LiveRules { false_alarm: alpha, ..LiveRules::new(vec![check]) };
        prop_assert!(rules.is_valid());
        let findings = judge(&watched(&rules, &batches), &rules, Data::Arriving);
        prop_assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        prop_assert!(finding.evidence.is_finite() && finding.needed > 0.0);
        prop_assert!(!finding.evidence_no_worse.is_nan());
        prop_assert!(!finding.message.contains("NaN"), "{}", finding.message);
    }

    #[test]
    fn tests_for_a_single_look_are_numbers_or_nothing(table in any_pair(), level in 0.001_f64..0.999) {
        if let Some(test) = two_proportions(table) {
            prop_assert!(test.z.is_finite() && (0.0..=1.0).contains(&test.p_two_sided), "{test:?}");
        }
        if let Some((lower, upper)) = newcombe(table, level) {
            prop_assert!(-1.0 <= lower && lower <= upper && upper <= 1.0, "{lower} {upper}");
        }
        let small = Pair {
            baseline: tally(table.baseline.bad().min(50), table.baseline.total().min(50)),
            candidate: table.candidate,
        };
        for p in [fisher_one_sided(small), fisher_two_sided(small)].into_iter().flatten() {
            prop_assert!((0.0..=1.0).contains(&p), "{p}");
        }
        let shares = chi_square(&[table.baseline.total(), table.candidate.total()], &[level, 1.0 - level]);
        prop_assert!(shares.is_none_or(|(statistic, p)| statistic >= 0.0 && (0.0..=1.0).contains(&p)));
        let buckets = [table.baseline.bad(), table.baseline.good()];
        let ranks = mann_whitney(&buckets, &[table.candidate.bad(), table.candidate.good()]);
        prop_assert!(ranks.is_none_or(|it| it.z.is_finite() && (0.0..=1.0).contains(&it.chance_larger)));
    }

    #[test]
    fn no_number_is_needed_for_an_answer(numbers in prop::array::uniform4(any_number())) {
        let [a, b, c, d] = numbers;
        let is_fine = |value: Option<f64>| value.is_none_or(f64::is_finite);
        prop_assert!(is_fine(normal_tail(a)) && is_fine(student_tail(a, b)));
        prop_assert!(is_fine(chi_square_tail(a, b)));
        prop_assert!(is_fine(normal_quantile(a)) && is_fine(one_sided_lower(a, b, c, d)));
        if let Some(interval) = Interval::new(a, b, c, d) {
            prop_assert!(!interval.lower.is_nan() && !interval.upper.is_nan(), "{interval:?}");
            prop_assert!((0.0..=1.0).contains(&interval.p_value), "{interval:?}");
        }
        let moments = Moments::new(3, a, b);
        prop_assert!(moments.is_none_or(|it| it.mean().is_some_and(f64::is_finite)));
        if let Some((one, other)) = moments.zip(Moments::new(4, c, d)) {
            prop_assert!(welch(one, other).is_none_or(|it| it.t.is_finite() && it.p_greater.is_finite()));
        }
    }
}

#[test]
fn the_largest_counts() {
    let most = MAX_COUNT;
    let rules = LiveRules::new(vec![Check { max: Some(0.05), ..Check::new("failures") }]);
    for pairs in [
        [pair((0, most), (most, most)), pair((most, most), (0, most))],
        [pair((1, most), (1, 1)), pair((most / 2, most), (most / 2, most))],
        [pair((0, 1), (1, 1)), pair((most - 1, most), (0, 1))],
    ] {
        let watch = watched(&rules, &pairs);
        assert!(judge(&watch, &rules, Data::Arriving)[0].evidence.is_finite());
    }
}

#[test]
fn sums_stop_before_they_overflow() {
    let rules = LiveRules::new(vec![Check::new("failures")]);
    let mut watch = watched(&rules, &[]);
    for index in 0..20 {
        watch.add(&batch(index, pair((MAX_COUNT / 2, MAX_COUNT), (1, MAX_COUNT)), [0.5, 0.5]), &rules);
    }
    assert!(watch.covered() == SignedDuration::from_secs(300));
    assert!(watch.checks()[0].counted.baseline.total() <= MAX_COUNT);
}
