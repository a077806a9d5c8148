//! Two shares: the pooled z-test, and Newcombe's interval for their difference.

use super::{normal_quantile, normal_tail, two_sided_normal};
use crate::analysis::{Pair, Tally, numbers::float};

/// The z-test of two shares. Positive: the candidate's is higher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProportionTest {
    /// The statistic.
    pub z: f64,
    /// The two-sided p-value.
    pub p_two_sided: f64,
    /// The p-value against "the candidate's share is not higher".
    pub p_greater: f64,
}

/// The pooled z-test; `None` without requests of both. Without spread there is no evidence, so z is 0.
#[must_use]
pub fn two_proportions(pair: Pair) -> Option<ProportionTest> {
    let (baseline, candidate) = (pair.baseline.share()?, pair.candidate.share()?);
    let all = pair.baseline.plus(pair.candidate);
    let pooled = all.share()?;
    let inverse = 1.0 / float(pair.baseline.total()) + 1.0 / float(pair.candidate.total());
    let variance = pooled * (float(all.good()) / float(all.total())) * inverse;
    let z = if variance > 0.0 { (candidate - baseline) / variance.sqrt() } else { 0.0 };
    Some(ProportionTest { z, p_two_sided: two_sided_normal(z)?, p_greater: normal_tail(z)? })
}

/// Newcombe's hybrid score interval for the candidate's share minus the baseline's (R. Newcombe, "Interval
/// estimation for the difference between independent proportions", 1998, method 10).
///
/// `None` without requests of both, or for a level that is not between 0 and 1.
#[must_use]
pub fn newcombe(pair: Pair, level: f64) -> Option<(f64, f64)> {
    let z = normal_quantile(f64::midpoint(level, 1.0))?;
    let difference = pair.candidate.share()? - pair.baseline.share()?;
    let [below_candidate, above_candidate] = wilson_distances(pair.candidate, z)?;
    let [below_baseline, above_baseline] = wilson_distances(pair.baseline, z)?;
    let lower = difference - below_candidate.hypot(above_baseline);
    let upper = difference + above_candidate.hypot(below_baseline);
    Some((lower.max(-1.0), upper.min(1.0)))
}

/// How far the ends of Wilson's score interval are below and above the share.
fn wilson_distances(tally: Tally, z: f64) -> Option<[f64; 2]> {
    let share = tally.share()?;
    let n = float(tally.total());
    let square = z * z;
    let centre = (share + square / (2.0 * n)) / (1.0 + square / n);
    let spread = (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    let half = z * spread / (1.0 + square / n);
    Some([(share - centre + half).max(0.0), (centre + half - share).max(0.0)])
}
