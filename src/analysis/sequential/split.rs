//! T2: whether requests are shared as planned. If not, something else decides which version answers, and no
//! comparison of the two means anything.
//!
//! Requests are multinomial with the planned shares; the alternative mixes all other shares, with most weight
//! near the plan (M. Lindon, A. Malek, "Anytime-valid inference for multinomial count data", 2022): a
//! Dirichlet distribution with `a_i = c·p_i`, c = 100.
//!
//! ```text
//! ln E = ln Γ(Σa) − ln Γ(Σa + n) + Σ_i [ ln Γ(a_i + c_i) − ln Γ(a_i) − c_i ln p_i ]
//! ```
//!
//! With Stirling's formula, all that is large cancels on paper and not in a computer: what is left are
//! deviances, logarithms and errors of Stirling's formula.

use serde::{Deserialize, Serialize};

use crate::analysis::{
    binomial::{deviance, stirling_error},
    numbers::{float, len},
    single_look::chi_square_tail,
};

/// How closely the alternatives of the test lie around the planned shares.
const CONCENTRATION: f64 = 100.0;

/// Normalised shares. `None` unless all are positive numbers.
fn normalised(weights: &[f64]) -> Option<Vec<f64>> {
    let sum: f64 = weights.iter().sum();
    let is_plan = weights.len() > 1 && sum.is_finite() && weights.iter().all(|weight| *weight > 0.0);
    is_plan.then(|| weights.iter().map(|weight| weight / sum).collect())
}

/// Evidence that `counts` do not follow the shares given by `weights`, with concentration c.
///
/// `None` where there is nothing to judge: no requests, fewer than two arms, or a weight that is not
/// positive.
#[must_use]
pub fn ln_dirichlet(counts: &[u64], weights: &[f64], concentration: f64) -> Option<f64> {
    let shares = normalised(weights).filter(|shares| shares.len() == counts.len())?;
    let n: f64 = counts.iter().map(|count| float(*count)).sum();
    if n <= 0.0 || concentration <= 0.0 || !concentration.is_finite() {
        return None;
    }
    let all = concentration + n;
    let mut sum = gamma_error(concentration) - gamma_error(all) + 0.5 * (all / concentration).ln();
    for (count, share) in counts.iter().zip(shares) {
        let prior = concentration * share;
        let posterior = prior + float(*count);
        sum += deviance(posterior, all * share) - 0.5 * (posterior / prior).ln();
        sum += gamma_error(posterior) - gamma_error(prior);
    }
    Some(sum)
}

/// `ln Γ(x) − [(x − ½) ln x − x + ½ ln 2π]`: the same error as that of `ln Γ(x + 1)`.
fn gamma_error(x: f64) -> f64 {
    stirling_error(x)
}

/// Pearson's χ² and its p-value for a single look, for people.
#[must_use]
pub fn chi_square(counts: &[u64], weights: &[f64]) -> Option<(f64, f64)> {
    let shares = normalised(weights).filter(|shares| shares.len() == counts.len())?;
    let n: f64 = counts.iter().map(|count| float(*count)).sum();
    if n <= 0.0 {
        return None;
    }
    let terms =
        counts.iter().zip(&shares).map(|(count, share)| (float(*count) - n * share).powi(2) / (n * share));
    let statistic: f64 = terms.sum();
    Some((statistic, chi_square_tail(statistic, len(&shares) - 1.0)?))
}

/// The evidence of all steps so far. Within a step the weights are constant; the evidence of steps adds up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitTest {
    weights: Vec<f64>,
    counts: Vec<u64>,
    /// The evidence of the steps before this one.
    earlier: f64,
    peak: f64,
}

impl SplitTest {
    /// Adds the requests of a batch, one count for each arm, that were to be shared by `weights`.
    pub fn add(&mut self, requests: &[u64], weights: &[f64]) {
        if normalised(weights).is_none_or(|shares| shares.len() != requests.len()) {
            return;
        }
        if self.weights != weights {
            self.earlier = self.ln_evidence();
            self.weights = weights.to_vec();
            self.counts = vec![0; requests.len()];
        }
        for (count, request) in self.counts.iter_mut().zip(requests) {
            *count = count.saturating_add(*request);
        }
        self.peak = self.peak.max(self.ln_evidence());
    }

    /// The evidence now that requests are not shared as planned.
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        self.earlier + ln_dirichlet(&self.counts, &self.weights, CONCENTRATION).unwrap_or(0.0)
    }

    /// The largest evidence so far.
    #[must_use]
    pub fn peak(&self) -> f64 {
        self.peak
    }

    /// The planned and the seen share of each arm, from 0 to 1, in the step now. Empty without requests.
    #[must_use]
    pub fn shares(&self) -> Vec<(f64, f64)> {
        let n: f64 = self.counts.iter().map(|count| float(*count)).sum();
        let planned = normalised(&self.weights).filter(|_| n > 0.0).unwrap_or_default();
        planned.into_iter().zip(&self.counts).map(|(share, count)| (share, float(*count) / n)).collect()
    }
}
