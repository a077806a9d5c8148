//! The Mann-Whitney test on the buckets of two histograms: whether values of the candidate tend to be larger.

use super::two_sided_normal;
use crate::analysis::numbers::float;

/// The result of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankTest {
    /// The number of pairs in which the candidate's value is larger; half for values in the same bucket.
    pub u: f64,
    /// The statistic, with continuity correction.
    pub z: f64,
    /// The two-sided p-value.
    pub p_two_sided: f64,
    /// The chance that a value of the candidate is larger than one of the baseline.
    pub chance_larger: f64,
}

/// `U = Σ_i c_i (Σ_{h<i} b_h + b_i/2)` with `σ² = n_b n_c/12 · ((N + 1) − Σ(t³ − t)/(N(N − 1)))`, where t are
/// the sizes of the buckets of both together.
///
/// `None` without values of both, or if the numbers of buckets differ.
#[must_use]
pub fn mann_whitney(baseline: &[u64], candidate: &[u64]) -> Option<RankTest> {
    let sum = |buckets: &[u64]| buckets.iter().map(|bucket| float(*bucket)).sum::<f64>();
    let (n_baseline, n_candidate) = (sum(baseline), sum(candidate));
    if baseline.len() != candidate.len() || n_baseline <= 0.0 || n_candidate <= 0.0 {
        return None;
    }
    let (mut u, mut below, mut ties) = (0.0, 0.0, 0.0);
    let n = n_baseline + n_candidate;
    for (b, c) in baseline.iter().zip(candidate).map(|(b, c)| (float(*b), float(*c))) {
        u += c * (below + b / 2.0);
        below += b;
        let size = b + c;
        // Divided first: the cube of a large bucket would lose the rest.
        ties += size * ((size * size - 1.0) / (n * (n - 1.0)));
    }
    let variance = n_baseline * n_candidate / 12.0 * (n + 1.0 - ties);
    let distance = u - n_baseline * n_candidate / 2.0;
    let corrected = (distance.abs() - 0.5).max(0.0).copysign(distance);
    // All in one bucket: the variance is 0, but for rounding.
    let has_spread = variance > n_baseline * n_candidate * n * f64::EPSILON;
    let z = if has_spread && distance != 0.0 { corrected / variance.sqrt() } else { 0.0 };
    let chance_larger = u / (n_baseline * n_candidate);
    Some(RankTest { u, z, p_two_sided: two_sided_normal(z)?, chance_larger })
}
