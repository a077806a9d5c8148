//! Tests that may be looked at after every batch: at no time is the chance of a false alarm above α.
//!
//! | test | compares | evidence |
//! |---|---|---|
//! | [`Comparison`] (T1) | the odds of failure of two versions in the same minutes | exact, for every split |
//! | [`SplitTest`] (T2) | the requests of each version with the planned shares | exact |
//! | [`BoundTest`] (T3) | the share of one version with a fixed bound | exact for independent requests |
//! | [`Interval`] (T4) | a difference with 0 | asymptotic, from [`MIN_UNITS`] units for each version |
//!
//! The first three are e-processes: products of ratios whose mean is 1 where the null hypothesis is true, so
//! by Ville's inequality one of them ever reaches 1/α with a chance of at most α. All are kept as logarithms.

mod bound;
mod comparison;
mod hypergeometric;
pub(in crate::analysis) mod interval;
mod onset;
mod split;

pub use self::{
    bound::{BoundTest, ln_evidence as ln_bound_evidence, over_grid, under_grid},
    comparison::{Comparison, Direction},
    hypergeometric::{Margins, fisher_one_sided, fisher_two_sided},
    interval::{Interval, MIN_EVENTS, MIN_UNITS, one_sided_lower},
    onset::Onset,
    split::{SplitTest, chi_square, ln_dirichlet},
};

/// `ln(1/α)`: the evidence at which a null hypothesis is rejected.
#[must_use]
pub fn threshold(alpha: f64) -> f64 {
    -alpha.ln()
}

/// The p-value that holds at any time, of the largest evidence so far.
#[must_use]
pub fn p_anytime(ln_evidence: f64) -> f64 {
    (-ln_evidence).exp().min(1.0)
}
