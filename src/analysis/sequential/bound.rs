//! T3: whether the share of bad requests of one version is above or below a fixed bound. Needs no other
//! version, so it is what is left without one, and where no request of either fails.
//!
//! ```text
//! ln E = ln mean_p [ k ln(p/b) + (n − k) ln((1 − p)/(1 − b)) ]
//! ```
//!
//! The alternatives p are below the bound b for "under" and above for "over". Exact for independent requests.

use serde::{Deserialize, Serialize};

use super::onset::{Onset, ln_mixed};
use crate::analysis::{
    Tally,
    numbers::{float, ln_mean_exp},
};

/// No alternative is nearer to 1, where a single good request would be impossible.
const MOST: f64 = 0.999;

/// The alternatives that show that a share is under a bound.
#[must_use]
pub fn under_grid(bound: f64) -> Vec<f64> {
    vec![0.0, bound / 8.0, bound / 4.0, bound / 2.0]
}

/// The alternatives that show that a share is over a bound. At most 0.999, but always above the bound.
#[must_use]
pub fn over_grid(bound: f64) -> Vec<f64> {
    let most = MOST.max(f64::midpoint(bound, 1.0));
    [1.5, 2.0, 4.0, 10.0, 50.0].map(|factor| (bound * factor).min(most)).to_vec()
}

/// `ln E` of some requests, for a bound in (0, 1) and alternatives in [0, 1).
#[must_use]
pub fn ln_evidence(tally: Tally, bound: f64, alternatives: &[f64]) -> f64 {
    let ratios: Vec<f64> = alternatives.iter().map(|p| ln_ratio(tally, bound, *p)).collect();
    ln_mean_exp(&ratios)
}

fn ln_ratio(tally: Tally, bound: f64, p: f64) -> f64 {
    let good = float(tally.good()) * ((-p).ln_1p() - (-bound).ln_1p());
    // No bad request is possible with p = 0: 0 · ln 0 is 0 here.
    if tally.bad() == 0 { good } else { good + float(tally.bad()) * (p / bound).ln() }
}

/// The evidence of all batches so far about one bound.
///
/// For "over", a little weight is on an [`Onset`], for a version that becomes bad later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundTest {
    bound: f64,
    tally: Tally,
    onset: Onset,
    peak_over: f64,
}

impl BoundTest {
    /// No evidence yet. The bound is a share between 0 and 1.
    #[must_use]
    pub fn new(bound: f64) -> Self {
        Self { bound, tally: Tally::default(), onset: Onset::new(), peak_over: 0.0 }
    }

    /// What some requests alone show, whenever they were.
    #[must_use]
    pub fn of(tally: Tally, bound: f64) -> Self {
        Self { tally, ..Self::new(bound) }
    }

    /// Adds the requests of a batch. `design_effect` is the one of [`super::Comparison::add`].
    pub fn add(&mut self, batch: Tally, design_effect: f64) {
        if batch.total() == 0 {
            return;
        }
        self.tally = self.tally.plus(batch);
        let over = over_grid(self.bound);
        let ratios: Vec<f64> = over.iter().map(|p| ln_ratio(batch, self.bound, *p) / design_effect).collect();
        self.onset.add(&ratios);
        self.peak_over = self.peak_over.max(self.ln_over(design_effect));
    }

    /// Leaves out the requests of a batch.
    pub fn skip(&mut self, batch: Tally) {
        if batch.total() > 0 {
            self.onset.skip();
        }
    }

    /// The evidence now that the share is under the bound.
    #[must_use]
    pub fn ln_under(&self, design_effect: f64) -> f64 {
        self.since_the_beginning(&under_grid(self.bound), design_effect)
    }

    /// The evidence now that the share is over the bound.
    #[must_use]
    pub fn ln_over(&self, design_effect: f64) -> f64 {
        let all = self.since_the_beginning(&over_grid(self.bound), design_effect);
        ln_mixed(all, &self.onset)
    }

    /// The largest evidence so far that the share is over the bound.
    #[must_use]
    pub fn peak_over(&self) -> f64 {
        self.peak_over
    }

    /// The bound.
    #[must_use]
    pub fn bound(&self) -> f64 {
        self.bound
    }

    fn since_the_beginning(&self, alternatives: &[f64], design_effect: f64) -> f64 {
        let ratios: Vec<f64> =
            alternatives.iter().map(|p| ln_ratio(self.tally, self.bound, *p) / design_effect).collect();
        ln_mean_exp(&ratios)
    }
}
