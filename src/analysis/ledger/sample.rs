//! What was read of the pods: the input of the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::analysis::moments::Moments;

/// One side of a comparison: a version of a ModelAlias. Compared as a whole, so version 1 is never version
/// 12.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Arm(pub String);

/// The UID of a pod; for a metric store, the identity of the series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodUid(pub String);

/// How often an outcome was counted, as it was read: not yet checked to be possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The requests with the outcome.
    pub bad: u64,
    /// All requests that could have it.
    pub total: u64,
}

/// What one process counted since it started. Every series is there from the first scrape, at 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// The requests that were answered.
    pub requests: u64,
    /// For each check, how many requests had its outcome.
    pub checks: BTreeMap<String, Outcomes>,
    /// For each mean, the sums of its values.
    pub values: BTreeMap<String, Moments>,
}

impl Counters {
    /// What was counted since `earlier`. `None` if a series is lower now: the process has restarted.
    pub(super) fn since(&self, earlier: &Self) -> Option<Self> {
        let mut checks = BTreeMap::new();
        for (name, now) in &self.checks {
            let before = earlier.checks.get(name).copied().unwrap_or_default();
            let bad = now.bad.checked_sub(before.bad)?;
            checks.insert(name.clone(), Outcomes { bad, total: now.total.checked_sub(before.total)? });
        }
        let mut values = BTreeMap::new();
        for (name, now) in &self.values {
            let before = earlier.values.get(name).copied().unwrap_or_default();
            values.insert(name.clone(), now.since(before)?);
        }
        Some(Self { requests: self.requests.checked_sub(earlier.requests)?, checks, values })
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        for (name, more) in &other.checks {
            let sum = self.checks.entry(name.clone()).or_default();
            sum.bad = sum.bad.saturating_add(more.bad);
            sum.total = sum.total.saturating_add(more.total);
        }
        for (name, more) in &other.values {
            let sum = self.values.entry(name.clone()).or_default();
            *sum = sum.plus(*more);
        }
    }
}

/// Why something is not known. It is never taken for 0, never for bad and never for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display, strum::EnumIter)]
pub enum Gap {
    /// It could not be read: no connection, a timeout, or an error as the answer.
    Unreachable,
    /// A series, or a whole version, is missing from the answer.
    Missing,
    /// The answer has several values where one is expected, or a pod twice.
    Ambiguous,
    /// The answer is marked as incomplete.
    Partial,
    /// A value is not a count: `NaN`, infinite, negative or a fraction.
    NotACount,
    /// The pods were not read at the same time.
    Late,
    /// More outcomes were counted than requests.
    Inconsistent,
}

/// One pod, read once.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    /// The version of the pod, from its label; never from the text of a metric.
    pub arm: Arm,
    /// The pod.
    pub pod: PodUid,
    /// When its server process started.
    pub started_at: Timestamp,
    /// When it was read.
    pub at: Timestamp,
    /// Its counters, or why they are not known.
    pub counters: Result<Counters, Gap>,
}

/// All pods that had traffic, read at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// When the round was made.
    pub at: Timestamp,
    /// The planned share of the requests of each arm, in the order of the ledger's arms.
    pub weights: Vec<f64>,
    /// A scrape of every pod that may have had requests, read or not.
    pub scrapes: Vec<Scrape>,
}
