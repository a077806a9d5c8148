//! T4: an interval for a difference that holds at all times at once, for means and shares.
//!
//! An asymptotic confidence sequence (I. Waudby-Smith et al., arXiv 2103.06476v7, equations 155 and 161)
//! around an estimate d with standard error s from n units of both versions together. ρ makes it narrowest at
//! [`TUNED_FOR`] units.
//!
//! ```text
//! ρ = √((−2 ln α + ln(1 − 2 ln α)) / n*)
//! half = s√n · √( 2(nρ² + 1)/(n²ρ²) · ln(√(nρ² + 1)/α) )
//! p = min(1, √(nρ² + 1) · exp(−ρ²(d/s)²n / (2(nρ² + 1))))
//! ```

use serde::{Deserialize, Serialize};

/// The least number of units of each version: the interval is asymptotic.
pub const MIN_UNITS: u64 = 100;
/// The least number of requests of each version with the outcome, and without it.
pub const MIN_EVENTS: u64 = 10;
/// The number of units at which the interval is narrowest.
const TUNED_FOR: f64 = 5000.0;

/// An estimate with an interval and a p-value that may be looked at at any time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// The lower end.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
    /// The p-value against 0.
    pub p_value: f64,
}

impl Interval {
    /// The two-sided interval at level `1 − alpha`. `None` unless all numbers are finite and the standard
    /// error is positive.
    #[must_use]
    pub fn new(estimate: f64, standard_error: f64, n: f64, alpha: f64) -> Option<Self> {
        let scale = Scale::new(standard_error, n, alpha).filter(|_| estimate.is_finite())?;
        let half = scale.half(scale.growth.sqrt() / alpha);
        let p_value = scale.p_value(estimate / standard_error);
        half.is_finite().then_some(Self { estimate, lower: estimate - half, upper: estimate + half, p_value })
    }

    /// Whether the interval excludes 0.
    #[must_use]
    pub fn excludes_zero(&self) -> bool {
        self.lower > 0.0 || self.upper < 0.0
    }

    /// Whether every value of the interval is nearer to 0 than `margin`.
    #[must_use]
    pub fn is_within(&self, margin: f64) -> bool {
        -margin < self.lower && self.upper < margin
    }
}

/// The lower end of the one-sided interval at level `1 − alpha`.
#[must_use]
pub fn one_sided_lower(estimate: f64, standard_error: f64, n: f64, alpha: f64) -> Option<f64> {
    let scale = Scale::new(standard_error, n, 2.0 * alpha).filter(|_| estimate.is_finite())?;
    let lower = estimate - scale.half(1.0 + scale.growth.sqrt() / (2.0 * alpha));
    lower.is_finite().then_some(lower)
}

/// What the formulas have in common.
struct Scale {
    standard_error: f64,
    n: f64,
    rho_squared: f64,
    /// nρ² + 1.
    growth: f64,
}

impl Scale {
    fn new(standard_error: f64, n: f64, alpha: f64) -> Option<Self> {
        let is_usable = standard_error.is_finite()
            && standard_error > 0.0
            && n.is_finite()
            && n >= 1.0
            && 0.0 < alpha
            && alpha < 1.0;
        is_usable.then(|| {
            let rho_squared = rho_squared(alpha);
            Self { standard_error, n, rho_squared, growth: n * rho_squared + 1.0 }
        })
    }

    fn half(&self, ratio: f64) -> f64 {
        let factor = 2.0 * self.growth / (self.n * self.n * self.rho_squared);
        self.standard_error * self.n.sqrt() * (factor * ratio.ln()).sqrt()
    }

    fn p_value(&self, z: f64) -> f64 {
        let exponent = -self.rho_squared * z * z * self.n / (2.0 * self.growth);
        (self.growth.sqrt() * exponent.exp()).min(1.0)
    }
}

fn rho_squared(alpha: f64) -> f64 {
    let log = -2.0 * alpha.ln();
    (log + (1.0 + log).ln()) / TUNED_FOR
}

/// ρ for a two-sided interval at level `1 − alpha`; one-sided with twice the α.
#[cfg(test)]
pub(in crate::analysis) fn rho(alpha: f64) -> f64 {
    rho_squared(alpha).sqrt()
}
