//! Evidence that something began to be true at a time that is not known.
//!
//! An e-process over the whole watch answers "bad on average since the beginning", so hours of good answers
//! outweigh the first bad minutes. Mixed over the batch s in which it begins, with weights that add up
//! to 1, it stays an e-process, and needs one number for each alternative, M, and how many batches there
//! were, T:
//!
//! ```text
//! E_T = Σ_s π_s Π_{t=s..T} e_t + (1 − Σ_{s≤T} π_s) ,   π_s = 1/(s(s + 1)) ,   M_T = (M_{T−1} + π_T) · e_T
//! ```
//!
//! A beginning at batch s costs `ln s(s + 1)`: 11 after an hour of batches of 15 seconds. Every batch has a
//! number, also one without evidence (e = 1, which moves weight from what is left to M and changes no sum);
//! otherwise a failure more could make later ones weigh less.

use serde::{Deserialize, Serialize};

use crate::analysis::numbers::{float, ln_add_exp, ln_mean_exp};

/// The weight of a later beginning. It costs `ln 1000` once more, and what is bad from the first request next
/// to nothing. A larger weight would find a late beginning hardly sooner, but take failures that come in
/// pairs (a retry) for evidence more often.
const WEIGHT: f64 = 0.001;

/// `ln E` of both: of all since the beginning, and of what began later.
pub(super) fn ln_mixed(since_the_beginning: f64, onset: &Onset) -> f64 {
    if onset.added == 0 {
        return since_the_beginning;
    }
    ln_add_exp(since_the_beginning + (1.0 - WEIGHT).ln(), onset.ln_evidence() + WEIGHT.ln())
}

/// The evidence, for each alternative of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Onset {
    /// How many batches there were.
    batches: u64,
    /// How many there were up to the last one with evidence.
    added: u64,
    /// `ln M` after that one, for each alternative; empty before the first.
    begun: Vec<f64>,
}

impl Onset {
    /// No evidence yet.
    #[must_use]
    pub fn new() -> Self {
        Self { batches: 0, added: 0, begun: Vec::new() }
    }

    /// Counts a batch without evidence.
    pub fn skip(&mut self) {
        self.batches = self.batches.saturating_add(1);
    }

    /// Adds a batch: `ln e_t` of each alternative.
    pub fn add(&mut self, ratios: &[f64]) {
        self.skip();
        // Σ π_s of this batch and those that were skipped before it: 1/(added + 1) − 1/(batches + 1).
        let (from, to) = (float(self.added), float(self.batches));
        let ln_weight = (to - from).ln() - from.ln_1p() - to.ln_1p();
        self.added = self.batches;
        self.begun.resize(ratios.len(), f64::NEG_INFINITY);
        for (begun, ratio) in self.begun.iter_mut().zip(ratios) {
            // Far below 0 nothing is lost: M only matters beside what begins later. JSON has no infinity.
            *begun = (ln_add_exp(*begun, ln_weight) + ratio).max(f64::MIN);
        }
    }

    /// `ln E_T`: the evidence now.
    #[must_use]
    pub fn ln_evidence(&self) -> f64 {
        if self.added == 0 {
            return 0.0;
        }
        let left = -float(self.added).ln_1p();
        let terms: Vec<f64> = self.begun.iter().map(|begun| ln_add_exp(*begun, left)).collect();
        ln_mean_exp(&terms)
    }
}

impl Default for Onset {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_without_evidence_leave_it_at_one() {
        let mut onset = Onset::new();
        for _ in 0..1000 {
            onset.add(&[0.0, 0.0]);
            assert!(onset.ln_evidence().abs() < 1e-12, "{}", onset.ln_evidence());
        }
    }

    #[test]
    fn a_skipped_batch_has_a_number_and_no_evidence() {
        let (mut skipped, mut added) = (Onset::new(), Onset::new());
        for ratio in [0.5, 0.0, 0.0, 2.0, 0.0, -1.0] {
            added.add(&[ratio]);
            if ratio == 0.0 {
                skipped.skip();
            } else {
                skipped.add(&[ratio]);
            }
            assert!((skipped.ln_evidence() - added.ln_evidence()).abs() < 1e-12);
        }
    }

    #[test]
    fn it_is_the_sum_over_all_beginnings() {
        let ratios = [-0.5_f64, 1.25, -2.0, 0.75, 3.0];
        let mut onset = Onset::new();
        let mut sum = 0.0;
        for (index, ratio) in ratios.iter().enumerate() {
            onset.add(&[*ratio]);
            let s = float(index as u64 + 1);
            sum += ratios[index..].iter().sum::<f64>().exp() / (s * (s + 1.0));
        }
        sum += 1.0 / 6.0;
        assert!((onset.ln_evidence() - sum.ln()).abs() < 1e-12);
    }

    #[test]
    fn what_was_good_for_long_does_not_hide_what_begins() {
        let mut onset = Onset::new();
        (0..10_000).for_each(|_| onset.add(&[-1.0]));
        (0..12).for_each(|_| onset.add(&[2.0]));
        // 12 · 2 less the price of beginning at batch 10,001, and a little from its neighbours.
        let least = 24.0 - 2.0 * 10_001.0_f64.ln();
        assert!((least..least + 1.0).contains(&onset.ln_evidence()), "{}", onset.ln_evidence());
    }
}
