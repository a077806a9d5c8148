//! What was counted of one version, and of two versions in the same minutes.

use serde::{Deserialize, Serialize};

use super::numbers::{MAX_COUNT, float};

/// How many of some requests had an outcome: failed, slow, or another that a check is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Counts", into = "Counts")]
pub struct Tally {
    bad: u64,
    total: u64,
}

#[derive(Serialize, Deserialize)]
struct Counts {
    bad: u64,
    total: u64,
}

impl TryFrom<Counts> for Tally {
    type Error = &'static str;

    fn try_from(counts: Counts) -> Result<Self, Self::Error> {
        Self::new(counts.bad, counts.total).ok_or("more outcomes than requests, or more than can be counted")
    }
}

impl From<Tally> for Counts {
    fn from(Tally { bad, total }: Tally) -> Self {
        Self { bad, total }
    }
}

impl Tally {
    /// Returns `None` for more outcomes than requests, and for more than [`MAX_COUNT`] requests.
    #[must_use]
    pub const fn new(bad: u64, total: u64) -> Option<Self> {
        if bad <= total && total <= MAX_COUNT { Some(Self { bad, total }) } else { None }
    }

    /// The requests with the outcome.
    #[must_use]
    pub const fn bad(self) -> u64 {
        self.bad
    }

    /// All requests.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.total
    }

    /// The requests without the outcome.
    #[must_use]
    pub const fn good(self) -> u64 {
        self.total - self.bad
    }

    /// The share with the outcome, from 0 to 1. `None` without requests.
    #[must_use]
    pub fn share(self) -> Option<f64> {
        (self.total > 0).then(|| float(self.bad) / float(self.total))
    }

    /// Both together. Stays as it is where the sum would exceed [`MAX_COUNT`].
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::new(self.bad + other.bad, self.total + other.total).unwrap_or(self)
    }
}

/// What two versions did in the same minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The version that is compared with: it served before.
    pub baseline: Tally,
    /// The version that is judged.
    pub candidate: Tally,
}

impl Pair {
    /// Both batches together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let baseline = self.baseline.plus(other.baseline);
        Self { baseline, candidate: self.candidate.plus(other.candidate) }
    }

    /// The same with the roles exchanged.
    #[must_use]
    pub const fn swapped(self) -> Self {
        Self { baseline: self.candidate, candidate: self.baseline }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tally_has_more_outcomes_than_requests() {
        assert_eq!(Tally::new(2, 1), None);
        assert_eq!(Tally::new(0, u64::MAX), None);
        assert_eq!(Tally::new(0, 0).and_then(Tally::share), None);
        assert_eq!(Tally::new(1, 4).and_then(Tally::share), Some(0.25));
    }
}
