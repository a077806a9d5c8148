//! When what a registry says by itself is answered by a poll: at once, unless the last such poll has just begun.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// How much time lies at least between the beginnings of two polls that answer pushes; and at least as much as the last one
/// took lies between its end and the next. A registry that is written to all the time costs at most two polls a second, and is
/// read at most half of the time.
const DISTANCE: Duration = Duration::from_millis(500);

/// The pushes of one registry.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    state: Mutex<DebounceState>,
    arrival: Notify,
}

#[derive(Debug, Default)]
struct DebounceState {
    /// Something came that no poll has answered yet.
    waits: bool,
    /// When the poll began that answers what came before.
    answering: Option<Instant>,
    /// No other one begins before.
    rests_until: Option<Instant>,
}

impl Debounce {
    fn state(&self) -> MutexGuard<'_, DebounceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something came.
    pub(super) fn arrived(&self) {
        self.state().waits = true;
        self.arrival.notify_one();
    }

    /// A poll begins, and answers all that came before.
    pub(super) fn answered(&self, at: Instant) {
        let mut state = self.state();
        if std::mem::take(&mut state.waits) {
            state.answering = Some(at);
        }
    }

    /// The poll is over.
    pub(super) fn ended(&self, at: Instant) {
        let mut state = self.state();
        if let Some(began) = state.answering.take() {
            state.rests_until = Some((began + DISTANCE).max(at + at.duration_since(began)));
        }
    }

    /// Resolves when a poll is to answer what came. Nothing is lost when nobody waits for it any more.
    pub(super) async fn due(&self) {
        loop {
            let waits_until = {
                let state = self.state();
                state.waits.then_some(state.rests_until)
            };
            match waits_until {
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
    async fn a_burst_is_answered_by_one_poll_at_once_and_one_more() {
        let debounce = Debounce::default();
        assert!(debounce.due().now_or_never().is_none(), "nothing came");
        for _ in 0..50 {
            debounce.arrived();
        }
        assert!(debounce.due().now_or_never().is_some(), "the first is answered at once");
        let began = Instant::now();
        debounce.answered(began);
        debounce.ended(began);
        assert!(debounce.due().now_or_never().is_none(), "all of them were answered");
        for _ in 0..50 {
            debounce.arrived();
        }
        debounce.due().await;
        assert!(began.elapsed() >= DISTANCE);
        debounce.answered(Instant::now());
        assert!(debounce.due().now_or_never().is_none());
    }

    #[tokio::test]
    async fn what_comes_while_a_poll_runs_is_answered_by_the_next() {
        let debounce = Debounce::default();
        debounce.arrived();
        debounce.answered(Instant::now());
        debounce.arrived();
        tokio::time::timeout(Duration::from_mins(1), debounce.due()).await.expect("it is due");
    }

    #[tokio::test]
    async fn a_registry_that_is_slow_is_read_at_most_half_of_the_time() {
        let took = 2 * DISTANCE;
        let debounce = Debounce::default();
        debounce.arrived();
        let ended = Instant::now();
        debounce.answered(ended.checked_sub(took).unwrap());
        debounce.ended(ended);
        debounce.arrived();
        debounce.due().await;
        assert!(ended.elapsed() >= took, "{:?}", ended.elapsed());
    }

    #[tokio::test]
    async fn who_stops_waiting_loses_nothing() {
        let debounce = Debounce::default();
        assert!(debounce.due().now_or_never().is_none());
        debounce.arrived();
        assert!(debounce.due().now_or_never().is_some());
        assert!(debounce.due().now_or_never().is_some(), "still unanswered");
    }
}
