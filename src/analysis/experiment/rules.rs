//! What an experiment compares.

use jiff::SignedDuration;

use crate::analysis::{live::Assignment, numbers::float};

/// Which direction of a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Higher is better.
    Maximize,
    /// Lower is better.
    Minimize,
}

/// What a metric is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The share of requests with an outcome.
    Share,
    /// The mean of a value of each request.
    Mean,
}

/// The metric that decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The name, under which it is counted.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
    /// Which direction is better.
    pub goal: Goal,
    /// The smallest difference that matters, in units of the metric (a share: 0.005 is half a point).
    pub margin: f64,
}

/// The rules of an experiment. They are fixed while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentRules {
    /// The chance that anything is concluded wrongly, in the whole experiment.
    pub false_alarm: f64,
    /// How many challengers share this chance, also those whose evidence is kept apart.
    pub challengers: usize,
    /// The least number of samples of each arm.
    pub min_samples: u64,
    /// For how long nothing is concluded: a Monday is not a Sunday.
    pub at_least: SignedDuration,
    /// When it ends.
    pub at_most: SignedDuration,
    /// The metric that decides.
    pub primary: Metric,
    /// Checks in which no challenger may be worse. Their names, and the odds ratio that is still fine.
    pub guardrails: Vec<(String, f64)>,
    /// A challenger needs so many bad requests before a guardrail calls it worse.
    pub min_failures: u64,
    /// How requests are shared.
    pub assignment: Assignment,
}

impl ExperimentRules {
    /// α of one test: shared among the primary metric and the guardrails of all challengers (Bonferroni).
    #[must_use]
    pub fn alpha(&self) -> f64 {
        self.false_alarm / float((self.challengers.max(1) * (1 + self.guardrails.len())) as u64)
    }

    /// Whether the numbers make sense.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let is_alpha = 0.0 < self.false_alarm && self.false_alarm < 1.0;
        let is_margin = self.primary.margin.is_finite() && self.primary.margin >= 0.0;
        let are_odds = self.guardrails.iter().all(|(_, odds)| (1.0..=1000.0).contains(odds));
        is_alpha && is_margin && are_odds && self.at_least <= self.at_most
    }
}
