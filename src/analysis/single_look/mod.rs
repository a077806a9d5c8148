//! T5: the classical tests, for the report at the end. Each is right for **a single look** at data whose
//! amount was decided beforehand, so none of them takes part in a verdict.

mod incomplete_beta;
mod mann_whitney;
mod proportions;
mod tails;
mod welch;

pub use self::{
    mann_whitney::{RankTest, mann_whitney},
    proportions::{ProportionTest, newcombe, two_proportions},
    tails::{chi_square_tail, normal_quantile, normal_tail, student_tail, two_sided_normal},
    welch::{WelchTest, welch},
};
