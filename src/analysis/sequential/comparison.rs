//! T1: whether the candidate fails more often than the baseline, or provably not by more than a margin.
//!
//! Of each batch only the attribution of its failures counts, given how many there were: the evidence is the
//! ratio of its probability under an odds ratio ψ to that under the null ψ₀. A cause that both versions
//! share, like an outage of a database, changes how many there were, and so nothing. Several ψ are mixed,
//! because the true one is not known:
//!
//! ```text
//! ln e_t(ψ) = ln P_ψ(j_t) − ln P_ψ₀(j_t)          ln E_T = ln( 1/G · Σ_g exp Σ_t ln e_t(ψ_g) )
//! ```
//!
//! For "above", a little weight is on an [`Onset`], so that a version that becomes worse after hours is found
//! as well.
//!
//! The family has a monotone likelihood ratio, so the bound on false alarms holds for every ψ on the other
//! side of the null as well. A batch that is lost takes its evidence with it, never the validity.

use serde::{Deserialize, Serialize};

use super::{
    hypergeometric::Margins,
    onset::{Onset, ln_mixed},
};
use crate::analysis::{
    Pair,
    numbers::{float, ln_mean_exp},
};

/// The factors by which the odds of failure may be higher than the null.
const HIGHER: [f64; 8] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0];
/// The divisors by which they may be lower.
const LOWER: [f64; 6] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0];

/// What a comparison gathers evidence for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// That the odds ratio is above the null.
    Above,
    /// That the odds ratio is below the null.
    Below,
}

/// The evidence of all batches so far about one null hypothesis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    direction: Direction,
    /// The odds ratio of the null hypothesis, ψ₀.
    null: f64,
    /// `Σ_t ln e_t(ψ_g)`, one for each ψ of the mixture.
    sums: Vec<f64>,
    /// That it began later; only "above".
    onset: Onset,
    /// The largest evidence so far.
    peak: f64,
}

impl Comparison {
    /// No evidence yet, against an odds ratio of `null`, which is a positive number.
    #[must_use]
    pub fn new(direction: Direction, null: f64) -> Self {
        let alternatives = match direction {
            Direction::Above => HIGHER.len(),
            Direction::Below => LOWER.len(),
        };
        Self { direction, null, sums: vec![0.0; alternatives], onset: Onset::new(), peak: 0.0 }
    }

    /// The odds ratios that are mixed.
    fn odds(&self) -> Vec<f64> {
        match self.direction {
            Direction::Above => HIGHER.map(|factor| self.null * factor).to_vec(),
            Direction::Below => LOWER.map(|factor| self.null / factor).to_vec(),
        }
    }

    /// Adds the evidence of a batch. `design_effect` (at least 1) is how many failures come together on
    /// average, because one user or one retry caused them; the logarithm is divided by it, which stays valid.
    pub fn add(&mut self, batch: Pair, design_effect: f64) {
        let Some(margins) = Margins::of(batch) else {
            if batch.baseline.total() > 0 && batch.candidate.total() > 0 {
                self.onset.skip();
            }
            return;
        };
        let j = float(batch.candidate.bad());
        let at_null = margins.ln_probability(j, self.null);
        let ratio = |odds: f64| (margins.ln_probability(j, odds) - at_null) / design_effect;
        let ratios: Vec<f64> = self.odds().into_iter().map(ratio).collect();
        for (sum, ratio) in self.sums.iter_mut().zip(&ratios) {
            *sum += ratio;
        }
        if self.direction == Direction::Above {
            self.onset.add(&ratios);
        }
        self.peak = self.peak.max(self.ln_evidence());
    }

    /// The evidence now.
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        ln_mixed(self.ln_since_the_beginning(), &self.onset)
    }

    /// `ln E_T`: the evidence of all batches alike, whenever they were.
    #[must_use]
    pub fn ln_since_the_beginning(&self) -> f64 {
        ln_mean_exp(&self.sums)
    }

    /// The largest evidence so far: the null is rejected once it reached `ln(1/α)`.
    #[must_use]
    pub fn peak(&self) -> f64 {
        self.peak
    }

    /// `Σ_t ln e_t(ψ_g)` of each ψ of the mixture.
    #[must_use]
    pub fn sums(&self) -> &[f64] {
        &self.sums
    }
}
