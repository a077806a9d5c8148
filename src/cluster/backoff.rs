//! The backoff of failed watches.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kube::runtime::utils::Backoff;

/// The first pause. Each further one is about twice as long as the one before.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause; jitter can double it. It is short because there is only one operator, and changes must
/// not wait.
const LONGEST: Duration = Duration::from_secs(3);

/// After this time without a failure, the backoff starts again at the first pause.
const RESET_AFTER: Duration = Duration::from_secs(15);

fn delays() -> ExponentialBackoff {
    let delays = ExponentialBuilder::default().with_min_delay(FIRST).with_max_delay(LONGEST).with_jitter();
    delays.without_max_times().build()
}

/// The backoff of one watch.
///
/// Only time resets it, not the watch: a watch announces a list before the list can fail.
pub(crate) struct WatchBackoff {
    next: ExponentialBackoff,
    last: Option<Instant>,
}

impl WatchBackoff {
    pub(crate) fn new() -> Self {
        Self { next: delays(), last: None }
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.replace(now).is_some_and(|last| now.duration_since(last) > RESET_AFTER) {
            self.next = delays();
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
    fn pauses_grow_even_if_the_watch_resets_them() {
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
        watch.last = Instant::now().checked_sub(RESET_AFTER + Duration::from_secs(1));
        assert!(watch.next().unwrap() <= FIRST * 2);
    }
}
