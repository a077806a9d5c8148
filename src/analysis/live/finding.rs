//! What a check found.

use serde::{Deserialize, Serialize};

use crate::analysis::Pair;

/// What is known about a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumIter)]
pub enum Verdict {
    /// No data, or data that cannot be relied on.
    Unknown,
    /// There are data, and they prove nothing yet.
    Undecided,
    /// Requests are not shared as planned, so nothing can be compared.
    Untrusted,
    /// It is worse, with the chance of a false alarm that the rules allow.
    Worse,
    /// It is no worse than the margin allows.
    NoWorse,
    /// It is worse, but so are many others at the same time: the measuring may be broken.
    Suspect,
    /// The check cannot judge it: there is nothing to compare with and no bound, or users are sticky.
    NotJudged,
}

/// Why.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum Reason {
    /// It is proven to be worse.
    Regressed,
    /// It is proven to be no worse.
    NoWorse,
    /// Data arrive, and more are needed.
    Watching,
    /// It had fewer requests, or fewer failures, than a verdict takes.
    NotEnoughTraffic,
    /// The time of the step is over, and nothing is proven.
    Undecided,
    /// No version gets traffic beside it, and there is no absolute bound.
    NoBaseline,
    /// The requests of a user stay together, and the rules declare no design effect.
    StickyAssignment,
    /// Requests are not shared as planned.
    SplitMismatch,
    /// Pods or the metric store could not be read.
    MetricsUnreachable,
    /// Series are missing, incomplete, or not counts.
    MetricsMissing,
    /// Several values were found where one is expected.
    MetricsAmbiguous,
    /// Many aliases became worse at the same time.
    ManyRegressed,
}

/// What one check found: its verdict and the numbers behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check.
    pub check: String,
    /// What it found.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What was counted of both versions in the same minutes.
    pub counted: Pair,
    /// `ln E`: the largest evidence so far that the version is worse.
    pub evidence: f64,
    /// The evidence at which it is called worse.
    pub needed: f64,
    /// `ln E`: the evidence now that it is no worse.
    pub evidence_no_worse: f64,
    /// The evidence at which it is called no worse.
    pub needed_no_worse: f64,
    /// For people: counts of both, difference with interval, evidence and threshold.
    pub message: String,
}
