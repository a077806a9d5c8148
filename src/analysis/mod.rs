//! Whether a version is worse than another one, judged by what both do on live traffic. Pure: no clock, no
//! IO.
//!
//! Counts are whole numbers until they reach a test; the same counts give the same evidence.

mod binomial;
pub mod moments;
mod numbers;
pub mod sequential;
pub mod single_look;
mod tally;
#[cfg(test)]
mod tests;

pub use self::{
    numbers::{MAX_COUNT, count},
    tally::{Pair, Tally},
};
