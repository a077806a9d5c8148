//! Experiments: a challenger against the champion on live shares, for days or weeks, by a metric that matters.
//!
//! ```text
//! Batch ─ add ─► sums, guardrails, split ─ conclude ─► outcome, interval, guardrails, message
//! ```
//!
//! The interval of the primary metric holds at all times at once, so it may be looked at every day. It is
//! asymptotic: nothing is concluded before each arm has [`MIN_UNITS`](crate::analysis::sequential::MIN_UNITS)
//! values and the samples that the rules ask for.

mod conclude;
mod evidence;
mod primary;
mod rules;

pub use self::{
    conclude::{Conclusion, Guardrail, Outcome, Why, conclude},
    evidence::ExperimentEvidence,
    primary::difference,
    rules::{ExperimentRules, Goal, Kind, Metric},
};
