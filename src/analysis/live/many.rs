//! The guard of the guard: when many aliases become worse at once, what measures them is more likely to be
//! broken.

use jiff::{SignedDuration, Timestamp};

/// Within which time several are at once.
pub const AT_ONCE: SignedDuration = SignedDuration::from_mins(5);
const LEAST: usize = 3;

/// Whether so many of the watched aliases became worse just now that none should be believed: at least three,
/// and at least three in ten, within five minutes.
#[must_use]
pub fn are_many_worse(became_worse: &[Timestamp], watched: usize, now: Timestamp) -> bool {
    let is_recent = |at: &&Timestamp| now.duration_since(**at) <= AT_ONCE;
    let recent = became_worse.iter().filter(is_recent).count();
    recent >= LEAST && recent * 10 >= watched * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_ten_within_five_minutes() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        let ago = |minutes| now - SignedDuration::from_mins(minutes);
        assert!(are_many_worse(&[ago(0), ago(4), ago(5)], 10, now));
        assert!(!are_many_worse(&[ago(0), ago(4), ago(6)], 10, now));
        assert!(!are_many_worse(&[ago(0), ago(4), ago(5)], 11, now));
        assert!(!are_many_worse(&[ago(0), ago(1)], 2, now));
    }
}
