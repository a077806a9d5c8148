//! Fisher's noncentral hypergeometric distribution: how many of the failures of a batch fall on the
//! candidate.
//!
//! Given the requests of both versions and the failures of both together, the share of failures itself is out
//! of the picture. With `j` the failures of the candidate and ψ the ratio of its odds of failure to the
//! baseline's:
//!
//! ```text
//! P_ψ(j) ∝ w_j ψ^j ,   w_j = C(n_candidate, j) · C(n_baseline, k − j)
//! ```
//!
//! The weights are taken from two binomials whose odds are ψ apart and whose means add up to `k`, so every
//! logarithm is small near the mode. The sum over `j` takes at most about 80 terms: with a standard deviation
//! σ, every h-th term times h is the same sum. The distribution is one of a sum of independent Bernoulli
//! variables, so its characteristic function is at most `exp(−2σ² sin²(t/2))`, and the relative error of the
//! sum at most `Σ_l exp(−2σ² sin²(πl/h))`, l = 1 … h − 1. With h ≤ σ/2 that is 10^-14 at the smallest σ that
//! takes a stride, which is 4, and far less beyond it.

use crate::analysis::{Pair, binomial::Probability, numbers::float};

/// Terms smaller than the largest by this factor (e^-42 < 10^-18) do not change a sum of doubles.
const NEGLIGIBLE: f64 = -42.0;
/// `f64` adds no further term to a sum that has this much more.
const TINY: f64 = 1e-18;

/// The margins of a batch: what is known of it before the failures are attributed to a version.
#[derive(Clone, Copy, Debug)]
pub struct Margins {
    candidate: f64,
    baseline: f64,
    failures: f64,
    least: f64,
    most: f64,
}

impl Margins {
    /// Returns `None` for a batch without evidence: no requests of one version, no failures, or nothing else.
    #[must_use]
    pub fn of(batch: Pair) -> Option<Self> {
        let (candidate, baseline) = (batch.candidate.total(), batch.baseline.total());
        let failures = batch.candidate.bad() + batch.baseline.bad();
        let is_informative = candidate > 0 && baseline > 0 && failures > 0 && failures < candidate + baseline;
        is_informative.then(|| Self {
            candidate: float(candidate),
            baseline: float(baseline),
            failures: float(failures),
            least: float(failures.saturating_sub(baseline)),
            most: float(failures.min(candidate)),
        })
    }

    /// `ln P_ψ(j)`: the chance that `j` of the failures are the candidate's, with odds ratio ψ (`odds`).
    #[must_use]
    pub fn ln_probability(&self, j: f64, odds: f64) -> f64 {
        let law = Law::new(self, odds);
        law.ln_weight(j, law.mode) - law.ln_sum()
    }

    /// The possible numbers of failures of the candidate: from, to.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        (self.least, self.most)
    }
}

/// The distribution for one odds ratio.
struct Law<'a> {
    margins: &'a Margins,
    odds: f64,
    candidate: Probability,
    baseline: Probability,
    /// A whole number next to the mean, in the possible range.
    mode: f64,
    deviation: f64,
}

impl<'a> Law<'a> {
    fn new(margins: &'a Margins, odds: f64) -> Self {
        let baseline_odds = matched_odds(margins, odds);
        let candidate = Probability::from_odds(baseline_odds * odds);
        let baseline = Probability::from_odds(baseline_odds);
        let mode = candidate.mean(margins.candidate).round().clamp(margins.least, margins.most);
        let (one, other) = (candidate.variance(margins.candidate), baseline.variance(margins.baseline));
        let deviation = (one * other / (one + other)).max(0.0).sqrt();
        Self { margins, odds, candidate, baseline, mode, deviation }
    }

    /// `P(j + 1) / P(j)`, which falls as `j` grows.
    fn ratio(&self, j: f64) -> f64 {
        let Margins { candidate, baseline, failures, .. } = self.margins;
        (candidate - j) * (failures - j) / ((j + 1.0) * (baseline - failures + j + 1.0)) * self.odds
    }

    /// `ln(P(j) / P(from))`.
    fn ln_weight(&self, j: f64, from: f64) -> f64 {
        const NEAR: f64 = 16.0;
        if (j - from).abs() > NEAR {
            return self.ln_product(j) - self.ln_product(from);
        }
        let mut product = 1.0;
        let mut at = from;
        while at < j {
            product *= self.ratio(at);
            at += 1.0;
        }
        while at > j {
            at -= 1.0;
            product /= self.ratio(at);
        }
        // Sixteen ratios may leave the range of a double at counts of 10^15.
        if product.is_normal() { product.ln() } else { self.ln_product(j) - self.ln_product(from) }
    }

    /// The product of the two binomials: `ln(w_j ψ^j)` up to a constant.
    fn ln_product(&self, j: f64) -> f64 {
        self.candidate.ln_binomial(j, self.margins.candidate)
            + self.baseline.ln_binomial(self.margins.failures - j, self.margins.baseline)
    }

    /// `ln Σ_j P(j) / P(mode)`.
    fn ln_sum(&self) -> f64 {
        let stride = (self.deviation / 2.0).floor();
        if stride > 1.0 { self.strided_sum(stride).ln() } else { self.full_sum().ln() }
    }

    /// All terms, from the mode outwards.
    fn full_sum(&self) -> f64 {
        let mut sum = 1.0;
        let (mut term, mut at) = (1.0, self.mode);
        while at < self.margins.most && term > TINY * sum {
            term *= self.ratio(at);
            at += 1.0;
            sum += term;
        }
        (term, at) = (1.0, self.mode);
        while at > self.margins.least && term > TINY * sum {
            at -= 1.0;
            term /= self.ratio(at);
            sum += term;
        }
        sum
    }

    /// Every h-th term times h.
    fn strided_sum(&self, stride: f64) -> f64 {
        let top = self.ln_product(self.mode);
        let mut sum = 1.0;
        for step in [stride, -stride] {
            let mut at = self.mode + step;
            while (self.margins.least..=self.margins.most).contains(&at) {
                let term = self.ln_product(at) - top;
                if term < NEGLIGIBLE {
                    break;
                }
                sum += term.exp();
                at += step;
            }
        }
        sum * stride
    }
}

/// The odds of failure of the baseline for which both binomials together expect the failures of the batch:
/// the positive root of `ψ(N−k)x² + (ψ(n_candidate−k) + n_baseline−k)x − k = 0`.
///
/// Any positive value gives the same distribution; this one keeps the logarithms small.
fn matched_odds(margins: &Margins, odds: f64) -> f64 {
    let Margins { candidate, baseline, failures, .. } = *margins;
    let a = odds * (candidate + baseline - failures);
    let b = odds * (candidate - failures) + (baseline - failures);
    let root = (b * b + 4.0 * a * failures).sqrt();
    // Of the two forms of the root, the one that does not cancel.
    if b > 0.0 { 2.0 * failures / (b + root) } else { (root - b) / (2.0 * a) }
}

/// Fisher's exact test that the candidate fails no more often: the chance of as many failures, or more.
///
/// For tables that people read: it takes a term for every possible number of failures, at most
/// 10^6. `None` beyond that, and without requests of both.
#[must_use]
pub fn fisher_one_sided(table: Pair) -> Option<f64> {
    let seen = float(table.candidate.bad());
    fisher(table, |j, _, _| j >= seen)
}

/// Fisher's exact test of equal shares: the chance of all tables that are no more probable than this one.
#[must_use]
pub fn fisher_two_sided(table: Pair) -> Option<f64> {
    // Tables that are equally probable differ by rounding.
    fisher(table, |_, p, p_seen| p <= p_seen * (1.0 + 1e-7))
}

/// Larger tables have another test: the normal approximation is as good.
const FISHER_MAX: f64 = 1e6;

fn fisher(table: Pair, is_extreme: impl Fn(f64, f64, f64) -> bool) -> Option<f64> {
    if table.candidate.total() == 0 || table.baseline.total() == 0 {
        return None;
    }
    let Some(margins) = Margins::of(table) else { return Some(1.0) };
    if margins.most - margins.least > FISHER_MAX {
        return None;
    }
    let law = Law::new(&margins, 1.0);
    let top = law.ln_product(law.mode);
    let weight = |j: f64| (law.ln_product(j) - top).exp();
    let seen = weight(float(table.candidate.bad()));
    let (mut all, mut extreme) = (0.0, 0.0);
    let mut j = margins.least;
    while j <= margins.most {
        let p = weight(j);
        all += p;
        if is_extreme(j, p, seen) {
            extreme += p;
        }
        j += 1.0;
    }
    Some((extreme / all).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Tally;

    fn pair(baseline: (u64, u64), candidate: (u64, u64)) -> Pair {
        let tally = |(bad, total)| Tally::new(bad, total).unwrap();
        Pair { baseline: tally(baseline), candidate: tally(candidate) }
    }

    #[test]
    fn without_margins_nothing_is_known() {
        for batch in [
            pair((0, 0), (1, 2)),
            pair((1, 2), (0, 0)),
            pair((0, 5), (0, 5)),
            pair((5, 5), (2, 2)),
            pair((0, 0), (0, 0)),
        ] {
            assert!(Margins::of(batch).is_none(), "{batch:?}");
        }
    }

    #[test]
    fn probabilities_add_up_to_one() {
        for batch in [pair((3, 9), (2, 4)), pair((50, 900), (10, 100)), pair((900, 1000), (80, 100))] {
            let margins = Margins::of(batch).unwrap();
            for odds in [0.01, 0.5, 1.0, 1.25, 5.0, 100.0] {
                let (least, most) = margins.range();
                let mut sum = 0.0;
                let mut j = least;
                while j <= most {
                    sum += margins.ln_probability(j, odds).exp();
                    j += 1.0;
                }
                assert!((sum - 1.0).abs() < 1e-13, "{batch:?} with {odds}: {sum}");
            }
        }
    }

    #[test]
    fn a_sum_with_strides_is_the_sum_of_all_terms() {
        for batch in [pair((900, 9_000), (160, 1_000)), pair((90_000, 900_000), (160_000, 1_000_000))] {
            let margins = Margins::of(batch).unwrap();
            for odds in [0.2, 1.0, 1.25, 3.0, 10.0] {
                let law = Law::new(&margins, odds);
                let stride = (law.deviation / 2.0).floor();
                assert!(stride > 1.0, "{}", law.deviation);
                let ratio = law.strided_sum(stride) / law.full_sum();
                assert!((ratio - 1.0).abs() < 1e-9, "{batch:?} with {odds}: {ratio}");
            }
        }
    }
}
