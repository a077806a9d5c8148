//! Outcomes of experiments.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::support::{seconds, tallies, tally};
use crate::analysis::{
    Tally,
    experiment::{
        Conclusion, ExperimentEvidence, ExperimentRules, Goal, Kind, Metric, Outcome, Why, conclude,
    },
    ledger::{ArmBatch, Batch},
    live::Assignment,
    moments::Moments,
};

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

fn rules() -> ExperimentRules {
    ExperimentRules {
        false_alarm: 0.05,
        challengers: 1,
        min_samples: 1000,
        at_least: days(7),
        at_most: days(28),
        primary: Metric {
            name: "approved".to_owned(),
            kind: Kind::Share,
            goal: Goal::Maximize,
            margin: 0.01,
        },
        guardrails: vec![("failures".to_owned(), 1.0)],
        min_failures: 5,
        assignment: Assignment::default(),
    }
}

fn arm(approved: Tally, failures: Tally) -> ArmBatch {
    ArmBatch {
        requests: approved.total(),
        tallies: BTreeMap::from([("approved".to_owned(), approved), ("failures".to_owned(), failures)]),
        values: BTreeMap::new(),
    }
}

/// Champion and challenger, each with what was approved; none failed.
fn seen(rules: &ExperimentRules, arms: &[Tally]) -> ExperimentEvidence {
    let arms: Vec<ArmBatch> = arms.iter().map(|it| arm(*it, tally(0, it.total()))).collect();
    of(rules, arms)
}

fn of(rules: &ExperimentRules, arms: Vec<ArmBatch>) -> ExperimentEvidence {
    let mut evidence = ExperimentEvidence::new(rules);
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let weights = arms.iter().map(|arm| arm.requests.max(1) as f64).collect();
    evidence.add(&Batch { from: seconds(0), to: seconds(60), weights, arms }, rules);
    evidence
}

fn outcome(conclusion: &Conclusion) -> (Outcome, Why) {
    (conclusion.outcome, conclusion.why)
}

#[test]
fn a_better_challenger_wins_and_a_worse_one_loses() {
    let rules = rules();
    let better = seen(&rules, &[tally(45_000, 90_000), tally(5_400, 10_000)]);
    let won = conclude(&better, &rules, days(8));
    assert_eq!(outcome(&won), (Outcome::ChallengerWins, Why::Significant));
    assert_eq!(
        won.message,
        "approved: 10000 samples against 90000, difference 0.04 (0.0213 to 0.0587), p-value 4.23e-12; the \
         interval excludes 0"
    );
    let worse = seen(&rules, &[tally(45_000, 90_000), tally(4_600, 10_000)]);
    assert_eq!(outcome(&conclude(&worse, &rules, days(8))), (Outcome::ChampionWins, Why::Significant));
    let minimised = ExperimentRules {
        primary: Metric { goal: Goal::Minimize, ..rules.primary.clone() },
        ..rules.clone()
    };
    assert_eq!(outcome(&conclude(&worse, &minimised, days(8))).0, Outcome::ChallengerWins);
}

#[test]
fn nothing_is_concluded_early_or_from_little() {
    let rules = rules();
    let better = seen(&rules, &[tally(45_000, 90_000), tally(5_400, 10_000)]);
    assert_eq!(outcome(&conclude(&better, &rules, days(6))), (Outcome::Collecting, Why::TooEarly));
    let few = seen(&rules, &[tally(45_000, 90_000), tally(900, 999)]);
    for day in [8, 28] {
        assert_eq!(outcome(&conclude(&few, &rules, days(day))), (Outcome::Collecting, Why::TooFewSamples));
    }
    // Nine events: too few for an asymptotic interval.
    let rare = seen(&rules, &[tally(1_000, 90_000), tally(9, 10_000)]);
    assert_eq!(outcome(&conclude(&rare, &rules, days(8))), (Outcome::Collecting, Why::TooFewSamples));
    assert_eq!(conclude(&rare, &rules, days(8)).difference, None);
}

#[test]
fn alike_is_no_difference() {
    let rules = rules();
    let alike = seen(&rules, &[tally(500_000, 1_000_000), tally(500_500, 1_000_000)]);
    assert_eq!(outcome(&conclude(&alike, &rules, days(8))), (Outcome::NoDifference, Why::WithinMargin));
    let wide = seen(&rules, &[tally(5_000, 10_000), tally(5_050, 10_000)]);
    assert_eq!(outcome(&conclude(&wide, &rules, days(8))), (Outcome::Collecting, Why::TooWide));
    assert_eq!(outcome(&conclude(&wide, &rules, days(28))), (Outcome::NoDifference, Why::DurationReached));
}

#[test]
fn a_guardrail_acts_at_once() {
    let rules = rules();
    let arms = vec![arm(tally(450, 900), tally(0, 900)), arm(tally(90, 100), tally(50, 100))];
    let after = conclude(&of(&rules, arms), &rules, days(0));
    assert_eq!(outcome(&after), (Outcome::ChampionWins, Why::GuardrailFailed));
    assert!(after.guardrails[0].is_worse);
    let message = &after.message;
    assert!(message.contains("failures: 50 of 100 against 0 of 900, evidence"), "{message}");
}

#[test]
fn a_wrong_split_and_sticky_users_have_no_outcome() {
    let rules = rules();
    let mut wrong = ExperimentEvidence::new(&rules);
    let arms = [tally(45_000, 50_000), tally(10_000, 50_000)].map(|it| arm(it, tally(0, it.total())));
    wrong.add(
        &Batch { from: seconds(0), to: seconds(60), weights: vec![0.9, 0.1], arms: arms.into() },
        &rules,
    );
    assert_eq!(outcome(&conclude(&wrong, &rules, days(8))), (Outcome::Collecting, Why::SplitMismatch));
    let sticky = |design_effect| {
        let assignment = Assignment { is_sticky: true, design_effect };
        ExperimentRules { assignment, ..rules.clone() }
    };
    let arms = [tally(45_000, 90_000), tally(5_400, 10_000)];
    let after = |rules: &ExperimentRules| conclude(&seen(rules, &arms), rules, days(8));
    assert_eq!(outcome(&after(&sticky(None))), (Outcome::Collecting, Why::StickyAssignment));
    // The same samples are worth less: wider by √20, and nothing is proven.
    let [loose, tight] = [sticky(Some(20.0)), rules.clone()].map(|rules| after(&rules));
    let width = |it: &Conclusion| it.difference.map(|it| it.upper - it.lower).unwrap();
    assert!((width(&loose) / width(&tight) - 20.0_f64.sqrt()).abs() < 1e-9);
    assert_eq!(outcome(&loose).0, Outcome::Collecting);
}

#[test]
fn means_are_compared_and_lost_variances_are_reported() {
    let rules = ExperimentRules {
        primary: Metric { kind: Kind::Mean, margin: 0.1, ..rules().primary },
        guardrails: Vec::new(),
        ..rules()
    };
    let arm = |moments: Moments| ArmBatch {
        requests: moments.n(),
        values: BTreeMap::from([("approved".to_owned(), moments)]),
        ..ArmBatch::default()
    };
    let values = |mean: f64, n: u32| {
        let values: Vec<f64> = (0..n).map(|i| mean + f64::from(i % 5) - 2.0).collect();
        arm(Moments::of(&values).unwrap())
    };
    let after =
        |champion, challenger| outcome(&conclude(&of(&rules, vec![champion, challenger]), &rules, days(8)));
    assert_eq!(after(values(10.0, 9000), values(11.0, 1000)), (Outcome::ChallengerWins, Why::Significant));
    assert_eq!(after(values(10.0, 90_000), values(10.0, 90_000)), (Outcome::NoDifference, Why::WithinMargin));
    assert_eq!(after(values(1e9, 9000), values(1e9, 1000)), (Outcome::Collecting, Why::NoVariance));
    let constant = || arm(Moments::of(&[3.0; 1000]).unwrap());
    assert_eq!(after(constant(), constant()), (Outcome::Collecting, Why::NoVariance));
}

#[test]
fn with_several_challengers_each_needs_more() {
    let width = |challengers| {
        let rules = ExperimentRules { challengers, ..rules() };
        let arms = [tally(50_000, 100_000), tally(53_000, 100_000)];
        conclude(&seen(&rules, &arms), &rules, days(8)).difference.map(|it| it.upper - it.lower).unwrap()
    };
    assert!(width(2) > width(1));
    assert!((ExperimentRules { challengers: 2, ..rules() }.alpha() - 0.0125).abs() < 1e-12);
}

proptest! {
    /// With the arms exchanged, the other one wins.
    #[test]
    fn exchanged_arms_mirror_the_outcome(one in tallies(100_000), other in tallies(100_000)) {
        let rules = rules();
        let after = |arms: [Tally; 2]| conclude(&seen(&rules, &arms), &rules, days(8));
        let (this, mirrored) = (after([one, other]), after([other, one]));
        let expected = match this.outcome {
            Outcome::ChallengerWins => Outcome::ChampionWins,
            Outcome::ChampionWins => Outcome::ChallengerWins,
            same => same,
        };
        prop_assert_eq!(mirrored.outcome, expected);
        if let (Some(this), Some(mirrored)) = (this.difference, mirrored.difference) {
            prop_assert!((this.lower + mirrored.upper).abs() < 1e-9);
        }
    }

    #[test]
    fn a_stored_experiment_is_the_same(one in tallies(10_000), other in tallies(10_000)) {
        let rules = rules();
        let evidence = seen(&rules, &[one, other]);
        let text = serde_json::to_string(&evidence).unwrap();
        let read: ExperimentEvidence = serde_json::from_str(&text).unwrap();
        let (before, after) = (conclude(&evidence, &rules, days(8)), conclude(&read, &rules, days(8)));
        prop_assert_eq!(outcome(&before), outcome(&after));
    }
}
