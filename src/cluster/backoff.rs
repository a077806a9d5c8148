//! How soon a watch that failed is begun again.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kube::runtime::utils::Backoff;

/// The first pause. Each further one is about twice as long.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause, before as much again at random: there is only one of us, and a change must not wait.
const LONGEST: Duration = Duration::from_secs(3);

/// After so long without a failure the first pause is the next one again.
const WELL: Duration = Duration::from_secs(15);

fn pauses() -> ExponentialBackoff {
    let pauses = ExponentialBuilder::default().with_min_delay(FIRST).with_max_delay(LONGEST).with_jitter();
    pauses.without_max_times().build()
}

/// The pauses of one watch.
///
/// What the watch says does not shorten them, only time does: a list that fails is announced before it fails.
pub(crate) struct WatchBackoff {
    next: ExponentialBackoff,
    last: Option<Instant>,
}

impl WatchBackoff {
    pub(crate) fn new() -> Self {
        Self { next: pauses(), last: None }
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.replace(now).is_some_and(|last| now.duration_since(last) > WELL) {
            self.next = pauses();
        }
        self.next.next()
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_whatever_the_watch_says_in_between() {
        let mut watch = WatchBackoff::new();
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            watch.reset();
            last = watch.next().unwrap();
            assert!(last <= LONGEST * 2, "{last:?}");
        }
        assert!(last >= LONGEST, "{last:?}");
    }

    #[test]
    fn after_a_while_without_failure_the_first_pause_is_short_again() {
        let mut watch = WatchBackoff::new();
        watch.by_ref().take(10).for_each(drop);
        watch.last = Instant::now().checked_sub(WELL + Duration::from_secs(1));
        assert!(watch.next().unwrap() <= FIRST * 2);
    }
}
