//! How long the answers have been awaited without which nothing can be said.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// The reads of one observation that have not been answered.
pub(super) struct Awaited {
    now: Timestamp,
    last: Option<Instant>,
}

impl Awaited {
    /// No reads yet.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { now, last: None }
    }

    /// Adds a read that was begun at this time.
    pub(super) fn add(&mut self, begun: Instant) {
        self.last = self.last.max(Some(begun));
    }

    /// When the last of them was begun.
    pub(super) fn since(&self) -> Option<Timestamp> {
        let age = SignedDuration::try_from(self.last?.elapsed()).unwrap_or(SignedDuration::MAX);
        Some(self.now.checked_sub(age).unwrap_or(Timestamp::MIN))
    }
}
