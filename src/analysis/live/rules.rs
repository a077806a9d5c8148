//! The rules that a version is judged by.

use jiff::SignedDuration;

pub use crate::api::live::{OnRegression, WhenUndecided};

/// How the version that answers a request is chosen, and how many failures have one cause.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Assignment {
    /// Whether a cookie or header chooses, so that the requests of a user stay together. Otherwise each
    /// request is assigned at random.
    pub is_sticky: bool,
    /// How many failures of one version come together on average (at least 1): 2 where a gateway retries.
    pub design_effect: Option<f64>,
}

impl Assignment {
    /// By what the logarithm of evidence is divided: 1 unless declared otherwise. `None` for sticky users
    /// without a declaration: evidence would mean nothing.
    #[must_use]
    pub fn design_effect(self) -> Option<f64> {
        let declared = self.design_effect.filter(|it| it.is_finite()).map(|it| it.max(1.0));
        declared.or_else(|| (!self.is_sticky).then_some(1.0))
    }
}

/// What of requests is judged: failures, slow answers, missing predictions, or a counter of the business.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The name, under which pods count it.
    pub name: String,
    /// The ratio of the odds to those of the other version that is still fine, ψ₀.
    pub tolerate: f64,
    /// Proven to be below this ratio, ψ₁, the version is no worse. Greater than `tolerate`.
    pub margin: f64,
    /// The largest share that is allowed, whatever the other version does; from 0 to 1, exclusive.
    pub max: Option<f64>,
    /// A share so small that it does not matter: proven to be below it, and without any sign that it is
    /// worse, the version is no worse. Ratios of rare failures take forever to prove.
    pub negligible: f64,
    /// Instead of [`LiveRules::on_regression`].
    pub on_regression: Option<OnRegression>,
}

impl Check {
    /// A check with the defaults: odds ratio 1 tolerated, margin 2, no absolute bound, a share of 0.001
    /// negligible.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tolerate: 1.0,
            margin: 2.0,
            max: None,
            negligible: 0.001,
            on_regression: None,
        }
    }

    /// Whether the numbers make sense. Everything else relies on it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let is_share = |share: f64| 0.0 < share && share < 1.0;
        let are_odds = 1.0 <= self.tolerate && self.tolerate < self.margin && self.margin <= 1000.0;
        are_odds && is_share(self.negligible) && self.max.is_none_or(is_share)
    }
}

/// The live rules of an alias.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveRules {
    /// The chance of calling a version worse that is not, α: in the whole watch, with all checks together.
    pub false_alarm: f64,
    /// The version is not called no worse before it had so many requests.
    pub min_requests: u64,
    /// It is not called worse before so many of its requests were bad: the retries of one client decide
    /// nothing.
    pub min_failures: u64,
    /// In how many batches in a row its share has to be over an absolute bound.
    pub consecutive: u32,
    /// The checks.
    pub checks: Vec<Check>,
    /// What to do about a version that is worse.
    pub on_regression: OnRegression,
    /// What to do at the end of a step in which nothing was proven.
    pub when_undecided: WhenUndecided,
    /// How requests are shared.
    pub assignment: Assignment,
    /// Samples older than this are no knowledge of the version now.
    pub unknown_after: SignedDuration,
}

impl LiveRules {
    /// Rules with the defaults: α = 0.01, 200 requests, 5 failures, 3 batches in a row.
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        Self {
            false_alarm: 0.01,
            min_requests: 200,
            min_failures: 5,
            consecutive: 3,
            checks,
            on_regression: OnRegression::default(),
            when_undecided: WhenUndecided::default(),
            assignment: Assignment::default(),
            unknown_after: SignedDuration::from_secs(60),
        }
    }

    /// Whether the numbers make sense.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let is_alpha = 0.0 < self.false_alarm && self.false_alarm < 1.0;
        is_alpha && !self.checks.is_empty() && self.checks.iter().all(Check::is_valid)
    }

    /// What to do if a check finds the version worse.
    #[must_use]
    pub fn on_regression(&self, check: &Check) -> OnRegression {
        check.on_regression.unwrap_or(self.on_regression)
    }

    /// How many tests may each raise a false alarm; α is shared among them (Bonferroni).
    #[must_use]
    pub fn alarms(&self) -> usize {
        self.checks.iter().map(|check| 1 + usize::from(check.max.is_some())).sum()
    }
}
