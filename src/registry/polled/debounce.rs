//! When webhook deliveries and our own writes cause reads: at once, unless the last such read has just begun.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::api::names::ModelName;

/// Minimum time between the starts of two such reads. The pause after one is also at least as long as it took.
/// So a registry that is written to constantly is read at most twice a second, and at most half of the time.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// How many models are read by themselves. If there are more, everything is.
const MODELS_MAX: usize = 100;

/// What has to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Pending {
    #[default]
    Nothing,
    Models(BTreeSet<ModelName>),
    Everything,
}

/// The reads of one registry that something asked for.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    state: Mutex<DebounceState>,
    arrival: Notify,
}

#[derive(Debug, Default)]
struct DebounceState {
    /// What no read covers yet.
    pending: Pending,
    /// Start of the running read that covers what was asked for before it.
    reading_since: Option<Instant>,
    /// Earliest start of the next one.
    not_before: Option<Instant>,
}

impl DebounceState {
    fn start(&mut self, at: Instant) -> Pending {
        let pending = std::mem::take(&mut self.pending);
        if pending != Pending::Nothing {
            self.reading_since = Some(at);
        }
        pending
    }
}

impl Debounce {
    fn state(&self) -> MutexGuard<'_, DebounceState> {
        self.state.lock()
    }

    /// Asks for a model to be read, or with `None` for everything.
    pub(super) fn add(&self, model: Option<ModelName>) {
        let pending = &mut self.state().pending;
        *pending = match (std::mem::take(pending), model) {
            (Pending::Nothing, Some(model)) => Pending::Models(BTreeSet::from([model])),
            (Pending::Models(mut models), Some(model)) if models.len() < MODELS_MAX => {
                models.insert(model);
                Pending::Models(models)
            }
            _ => Pending::Everything,
        };
        self.arrival.notify_one();
    }

    /// Remembers that a poll started. It covers everything before it.
    pub(super) fn poll_started(&self, at: Instant) {
        self.state().start(at);
    }

    /// Remembers that the poll ended, or the read of single models.
    pub(super) fn poll_ended(&self, at: Instant) {
        let mut state = self.state();
        if let Some(start) = state.reading_since.take() {
            state.not_before = Some((start + MIN_INTERVAL).max(at + at.duration_since(start)));
        }
    }

    /// Resolves when something has to be read. Single models are taken; a poll takes the rest when it starts.
    /// It may be cancelled without losing anything.
    pub(super) async fn due(&self) -> Pending {
        loop {
            let due = {
                let state = self.state();
                (state.pending != Pending::Nothing).then_some(state.not_before)
            };
            match due {
                Some(Some(until)) if until > Instant::now() => {
                    tokio::time::sleep_until(until.into()).await;
                }
                Some(_) => {
                    let mut state = self.state();
                    return match &state.pending {
                        Pending::Everything => Pending::Everything,
                        Pending::Nothing | Pending::Models(_) => state.start(Instant::now()),
                    };
                }
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
            debounce.add(None);
        }
        assert!(debounce.due().now_or_never().is_some(), "the first poll is due at once");
        let start = Instant::now();
        debounce.poll_started(start);
        debounce.poll_ended(start);
        assert!(debounce.due().now_or_never().is_none(), "the poll covers all deliveries");
        for _ in 0..50 {
            debounce.add(None);
        }
        debounce.due().await;
        assert!(start.elapsed() >= MIN_INTERVAL);
        debounce.poll_started(Instant::now());
        assert!(debounce.due().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_delivery_during_a_poll_causes_another_poll() {
        let debounce = Debounce::default();
        debounce.add(None);
        debounce.poll_started(Instant::now());
        debounce.add(None);
        tokio::time::timeout(Duration::from_mins(1), debounce.due()).await.expect("it is due");
    }

    #[tokio::test]
    async fn a_slow_registry_is_polled_at_most_half_of_the_time() {
        let took = 2 * MIN_INTERVAL;
        let debounce = Debounce::default();
        debounce.add(None);
        let end = Instant::now();
        debounce.poll_started(end.checked_sub(took).unwrap());
        debounce.poll_ended(end);
        debounce.add(None);
        debounce.due().await;
        assert!(end.elapsed() >= took, "{:?}", end.elapsed());
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_no_delivery() {
        let debounce = Debounce::default();
        assert!(debounce.due().now_or_never().is_none());
        debounce.add(None);
        assert!(debounce.due().now_or_never().is_some());
        assert!(debounce.due().now_or_never().is_some(), "still pending");
    }

    fn model(name: &str) -> ModelName {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn models_that_are_named_are_read_together() {
        let debounce = Debounce::default();
        for name in ["fraud", "iris", "fraud"] {
            debounce.add(Some(model(name)));
        }
        let both = BTreeSet::from([model("fraud"), model("iris")]);
        assert_eq!(debounce.due().await, Pending::Models(both));
        assert!(debounce.due().now_or_never().is_none(), "they were taken");
        let began = Instant::now();
        debounce.poll_ended(began);
        debounce.add(Some(model("fraud")));
        assert_eq!(debounce.due().await, Pending::Models(BTreeSet::from([model("fraud")])));
        assert!(began.elapsed() >= MIN_INTERVAL / 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn many_models_are_read_by_a_poll() {
        let debounce = Debounce::default();
        for number in 0..=MODELS_MAX {
            debounce.add(Some(model(&format!("m{number}"))));
        }
        assert_eq!(debounce.due().await, Pending::Everything);
        debounce.add(Some(model("fraud")));
        assert_eq!(debounce.due().await, Pending::Everything, "it includes all models");
        debounce.poll_started(Instant::now());
        assert!(debounce.due().now_or_never().is_none());
    }
}
