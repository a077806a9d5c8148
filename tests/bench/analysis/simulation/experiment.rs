//! Experiments: a look every hour at what champion and challenger did.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    super::analysis::{
        Tally,
        experiment::{
            Conclusion, ExperimentEvidence, ExperimentRules, Goal, Kind, Metric, Outcome, conclude,
        },
        ledger::{ArmBatch, Batch},
        live::Assignment,
        moments::Moments,
    },
    random::Random,
};

/// An experiment with one challenger.
#[derive(Clone, Copy)]
pub struct Experiment {
    /// The requests of both in an hour; Poisson.
    pub per_hour: f64,
    /// The share of the challenger.
    pub share: f64,
    /// The true values of champion and challenger: a share, or the mean of values whose logarithm is normal.
    pub truth: (f64, f64),
    /// What the metric is made of.
    pub kind: Kind,
    /// How long it may take.
    pub days: i64,
}

impl Experiment {
    /// The rules: α = 0.05, after a week, a margin of a tenth of the champion's value.
    pub fn rules(&self) -> ExperimentRules {
        ExperimentRules {
            challengers: 1,
            false_alarm: 0.05,
            min_samples: 1000,
            at_least: SignedDuration::from_hours(24 * 7).min(SignedDuration::from_hours(24 * self.days)),
            at_most: SignedDuration::from_hours(24 * self.days),
            primary: Metric {
                name: "approved".to_owned(),
                kind: self.kind,
                goal: Goal::Maximize,
                margin: self.truth.0 / 10.0,
            },
            guardrails: Vec::new(),
            min_failures: 5,
            assignment: Assignment::default(),
        }
    }

    /// Runs it until it concludes. Returns the hours that it took.
    pub fn run(&self, random: &mut Random) -> (i64, Conclusion) {
        self.run_with(random, |_, _| {})
    }

    /// As [`Self::run`], and reports what each look saw.
    pub fn run_with(&self, random: &mut Random, mut look: impl FnMut(i64, &Conclusion)) -> (i64, Conclusion) {
        let rules = self.rules();
        let mut evidence = ExperimentEvidence::new(&rules);
        let mut hour = 0;
        loop {
            evidence.add(&self.hour(hour, random), &rules);
            hour += 1;
            let conclusion = conclude(&evidence, &rules, SignedDuration::from_hours(hour));
            look(hour, &conclusion);
            let is_over = hour >= 24 * self.days || conclusion.outcome != Outcome::Collecting;
            if is_over {
                return (hour, conclusion);
            }
        }
    }

    fn hour(&self, hour: i64, random: &mut Random) -> Batch {
        let at = |hour: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour);
        let arms = [(1.0 - self.share, self.truth.0), (self.share, self.truth.1)];
        let arms = arms.map(|(share, truth)| self.arm(random.poisson(self.per_hour * share), truth, random));
        Batch {
            from: at(hour),
            to: at(hour + 1),
            weights: vec![1.0 - self.share, self.share],
            arms: arms.into(),
        }
    }

    fn arm(&self, requests: u64, truth: f64, random: &mut Random) -> ArmBatch {
        let mut arm = ArmBatch { requests, ..ArmBatch::default() };
        match self.kind {
            Kind::Share => {
                let tally = Tally::new(random.binomial(requests, truth), requests).unwrap_or_default();
                arm.tallies = BTreeMap::from([("approved".to_owned(), tally)]);
            }
            Kind::Mean => {
                // The mean of exp(σZ) is exp(σ²/2); with σ = 1 the values are as skewed as amounts of money.
                let values: Vec<f64> = (0..requests).map(|_| truth * (random.normal() - 0.5).exp()).collect();
                arm.values =
                    BTreeMap::from([("approved".to_owned(), Moments::of(&values).unwrap_or_default())]);
            }
        }
        arm
    }
}
