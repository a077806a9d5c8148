//! Live rules: whether a version that gets traffic is worse than the one that served before.
//!
//! ```text
//! Batch ─ Watch::add ─► evidence of each check ─ judge ─► a Finding each ─ conclude ─► Conclusion
//!                       split, comparisons, bounds        with its numbers            verdict, reason, move
//! ```
//!
//! Only `Worse` moves traffic back, only `NoWorse` in every check moves it on; all else holds.

mod conclusion;
mod evidence;
mod finding;
mod judge;
mod many;
mod rules;

pub use self::{
    conclusion::{Conclusion, Move, Phase, Progress, conclude},
    evidence::{CheckEvidence, Watch, WatchKey},
    finding::{Finding, Reason, Verdict},
    judge::{Data, judge, reason_of},
    many::{AT_ONCE, are_many_worse},
    rules::{Assignment, Check, LiveRules, OnRegression, WhenUndecided},
};
