//! Welch's test: two means whose variances may differ.

use super::student_tail;
use crate::analysis::moments::{Moments, Spread};

/// Welch's test. Positive: the candidate's mean is higher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WelchTest {
    /// The statistic.
    pub t: f64,
    /// Its degrees of freedom.
    pub df: f64,
    /// The two-sided p-value.
    pub p_two_sided: f64,
    /// The p-value against "the candidate's mean is not higher".
    pub p_greater: f64,
}

/// Returns `None` for fewer than two values of either, for means that differ without any spread, and where
/// the sums have lost the variance.
#[must_use]
pub fn welch(baseline: Moments, candidate: Moments) -> Option<WelchTest> {
    let (one, other) = (squared_error(baseline)?, squared_error(candidate)?);
    let difference = candidate.mean()? - baseline.mean()?;
    if one.value + other.value <= 0.0 {
        return (difference == 0.0).then(|| no_spread(one.df + other.df));
    }
    let t = difference / (one.value + other.value).sqrt();
    let weights = one.value.powi(2) / one.df + other.value.powi(2) / other.df;
    let df = (one.value + other.value).powi(2) / weights;
    let p_two_sided = (2.0 * student_tail(t.abs(), df)?).min(1.0);
    Some(WelchTest { t, df, p_two_sided, p_greater: student_tail(t, df)? })
}

fn no_spread(df: f64) -> WelchTest {
    WelchTest { t: 0.0, df, p_two_sided: 1.0, p_greater: 0.5 }
}

/// The squared standard error of a mean, with its degrees of freedom.
struct SquaredError {
    value: f64,
    df: f64,
}

fn squared_error(moments: Moments) -> Option<SquaredError> {
    let variance = match moments.spread()? {
        Spread::None => 0.0,
        Spread::Variance(variance) => variance,
        Spread::Lost => return None,
    };
    Some(SquaredError { value: variance / moments.n_float(), df: moments.n_float() - 1.0 })
}
