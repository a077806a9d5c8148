//! When webhook deliveries cause a poll: at once, unless the last such poll has just begun.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// Minimum time between the starts of two polls caused by deliveries. The pause after such a poll is also at
/// least as long as the poll took. So a registry that is written to constantly is polled at most twice a
/// second, and at most half of the time.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// The deliveries of one registry.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    state: Mutex<DebounceState>,
    arrival: Notify,
}

#[derive(Debug, Default)]
struct DebounceState {
    /// A delivery arrived that no poll covers yet.
    pending: bool,
    /// Start of the running poll that covers the deliveries before it.
    polling_since: Option<Instant>,
    /// Earliest start of the next poll.
    not_before: Option<Instant>,
}

impl Debounce {
    fn state(&self) -> MutexGuard<'_, DebounceState> {
        self.state.lock()
    }

    /// Remembers that a delivery arrived.
    pub(super) fn delivery_arrived(&self) {
        self.state().pending = true;
        self.arrival.notify_one();
    }

    /// Remembers that a poll started. It covers all deliveries before it.
    pub(super) fn poll_started(&self, at: Instant) {
        let mut state = self.state();
        if std::mem::take(&mut state.pending) {
            state.polling_since = Some(at);
        }
    }

    /// Remembers that the poll ended.
    pub(super) fn poll_ended(&self, at: Instant) {
        let mut state = self.state();
        if let Some(start) = state.polling_since.take() {
            state.not_before = Some((start + MIN_INTERVAL).max(at + at.duration_since(start)));
        }
    }

    /// Resolves when deliveries require a poll. It may be cancelled without losing a delivery.
    pub(super) async fn due(&self) {
        loop {
            let due = {
                let state = self.state();
                state.pending.then_some(state.not_before)
            };
            match due {
                Some(Some(until)) => return tokio::time::sleep_until(until.into()).await,
                Some(None) => return,
                None => self.arrival.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_burst_of_deliveries_causes_one_poll_at_once_and_one_later() {
        let debounce = Debounce::default();
        assert!(debounce.due().now_or_never().is_none(), "no delivery");
        for _ in 0..50 {
            debounce.delivery_arrived();
        }
        assert!(debounce.due().now_or_never().is_some(), "the first poll is due at once");
        let start = Instant::now();
        debounce.poll_started(start);
        debounce.poll_ended(start);
        assert!(debounce.due().now_or_never().is_none(), "the poll covers all deliveries");
        for _ in 0..50 {
            debounce.delivery_arrived();
        }
        debounce.due().await;
        assert!(start.elapsed() >= MIN_INTERVAL);
        debounce.poll_started(Instant::now());
        assert!(debounce.due().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_delivery_during_a_poll_causes_another_poll() {
        let debounce = Debounce::default();
        debounce.delivery_arrived();
        debounce.poll_started(Instant::now());
        debounce.delivery_arrived();
        tokio::time::timeout(Duration::from_mins(1), debounce.due()).await.expect("it is due");
    }

    #[tokio::test]
    async fn a_slow_registry_is_polled_at_most_half_of_the_time() {
        let took = 2 * MIN_INTERVAL;
        let debounce = Debounce::default();
        debounce.delivery_arrived();
        let end = Instant::now();
        debounce.poll_started(end.checked_sub(took).unwrap());
        debounce.poll_ended(end);
        debounce.delivery_arrived();
        debounce.due().await;
        assert!(end.elapsed() >= took, "{:?}", end.elapsed());
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_no_delivery() {
        let debounce = Debounce::default();
        assert!(debounce.due().now_or_never().is_none());
        debounce.delivery_arrived();
        assert!(debounce.due().now_or_never().is_some());
        assert!(debounce.due().now_or_never().is_some(), "still pending");
    }
}
