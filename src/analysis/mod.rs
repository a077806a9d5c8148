//! Whether a version is worse than another one, judged by what both do on live traffic. Pure: no clock, no
//! IO.
//!
//! ```text
//! Round ─ ledger ─► Batch ─┬─ live ───────► Finding for each check ─► Conclusion: verdict, reason, move
//!  what pods counted       │                sequential: evidence that may be looked at all the time
//!                          └─ experiment ─► Conclusion about a challenger: outcome, interval, p-value
//!                                           single_look: classical tests, for the report only
//! ```
//!
//! Counts are whole numbers until they reach a test; what is missing, late or ambiguous is unknown, never
//! zero. The same batches give the same verdict, whenever and how often one looks.
//! `docs/analysis-internals.md` has the requirements, the properties and the measured error rates.

mod binomial;
pub mod experiment;
pub mod ledger;
pub mod live;
pub mod moments;
mod numbers;
pub mod sequential;
pub mod single_look;
mod tally;
#[cfg(test)]
mod tests;
mod text;

pub use self::{
    numbers::{MAX_COUNT, count},
    tally::{Pair, Tally},
    text::significant,
};
