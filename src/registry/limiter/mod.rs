//! Limits what is asked of one registry at a time, by every part of Laurel together.
//!
//! ```text
//! Limiter (this file: waits for a slot, and gives it to the next when it is free)
//!   queue   which request begins next
//! ```

use std::{num::NonZeroU32, sync::Arc, time::Instant};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
};
use tokio::sync::oneshot;

use self::queue::{Next, Queue};
use crate::api::model_registry::RegistryLimits;

mod queue;

/// How urgent a request is, from the most urgent down. The names are the values of a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Priority {
    /// Writes of aliases: the registry must name what serves.
    AliasWrite,
    /// Reads without which something cannot be decided, and the few requests about webhooks.
    Decision,
    /// Polls, reads that nothing waits for, and writes of models.
    Poll,
    /// Audit tags, and what is only displayed.
    Display,
}

impl Priority {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AliasWrite, Self::Decision, Self::Poll, Self::Display];
}

/// What may be asked of a registry at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight.
    pub in_flight: NonZeroU32,
    /// Requests per second on average. Bursts may have half as many.
    pub per_second: NonZeroU32,
}

impl Limits {
    /// As good as none.
    pub const NONE: Self = Self { in_flight: NonZeroU32::MAX, per_second: NonZeroU32::MAX };
}

impl Default for Limits {
    fn default() -> Self {
        RegistryLimits::default().into()
    }
}

impl From<RegistryLimits> for Limits {
    fn from(RegistryLimits { in_flight, per_second }: RegistryLimits) -> Self {
        Self { in_flight, per_second }
    }
}

/// How long requests waited for their turn, by priority. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Waits(Family<Waited, Histogram>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    priority: &'static str,
}

impl Default for Waits {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new([0.001, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])))
    }
}

impl Waits {
    /// Adds them to metrics.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        registry.register_with_unit(
            "laurel_registry_request_wait",
            "How long requests to model registries waited for their turn, by priority",
            prometheus_client::registry::Unit::Seconds,
            self.0.clone(),
        );
    }

    fn observe(&self, priority: Priority, since: Instant) {
        let waited = Waited { priority: priority.into() };
        self.0.get_or_create(&waited).observe(since.elapsed().as_secs_f64());
    }
}

/// Limits the requests to one registry. Cheap to clone; all clones are one limiter.
#[derive(Clone, Debug)]
pub struct Limiter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    waits: Waits,
}

#[derive(Debug)]
struct State {
    queue: Queue<oneshot::Sender<Slot>>,
    /// Whether a task waits until the rate allows the next request.
    has_timer: bool,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(Limits::default(), Waits::default())
    }
}

impl Limiter {
    /// Creates a limiter.
    #[must_use]
    pub fn new(limits: Limits, waits: Waits) -> Self {
        let state = State { queue: Queue::new(limits), has_timer: false };
        Self(Arc::new(Shared { state: Mutex::new(state), waits }))
    }

    /// Waits for the turn of a request. Its time starts afterwards.
    pub(super) async fn turn(&self, priority: Priority) -> Slot {
        let since = Instant::now();
        loop {
            let (sender, slot) = oneshot::channel();
            self.lock().queue.add(priority, sender);
            self.begin_next();
            if let Ok(slot) = slot.await {
                self.0.waits.observe(priority, since);
                return slot;
            }
        }
    }

    /// Begins whatever may begin now.
    fn begin_next(&self) {
        loop {
            let mut state = self.lock();
            match state.queue.next(Instant::now(), oneshot::Sender::is_closed) {
                Next::Begin(priority, waiter) => {
                    drop(state);
                    // If it was given up just now, dropping the slot frees it.
                    drop(waiter.send(Slot { limiter: self.clone(), priority }));
                }
                Next::At(at) if !state.has_timer => {
                    state.has_timer = true;
                    drop(state);
                    tokio::spawn(self.clone().begin_at(at));
                    return;
                }
                Next::At(_) | Next::Nothing => return,
            }
        }
    }

    async fn begin_at(self, at: Instant) {
        tokio::time::sleep_until(at.into()).await;
        self.lock().has_timer = false;
        self.begin_next();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }
}

/// The turn of one request. Drop it when the response is there.
#[derive(Debug)]
pub(super) struct Slot {
    limiter: Limiter,
    priority: Priority,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.limiter.lock().queue.end(self.priority);
        self.limiter.begin_next();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn limiter(in_flight: u32, per_second: u32) -> Limiter {
        let limits = Limits {
            in_flight: NonZeroU32::new(in_flight).unwrap(),
            per_second: NonZeroU32::new(per_second).unwrap(),
        };
        Limiter::new(limits, Waits::default())
    }

    #[tokio::test]
    async fn a_slot_goes_to_the_most_urgent_request_that_waits() {
        let limiter = limiter(1, 1000);
        let first = limiter.turn(Priority::Display).await;
        let mut poll = Box::pin(limiter.turn(Priority::Poll));
        let mut write = Box::pin(limiter.turn(Priority::AliasWrite));
        assert!((&mut poll).now_or_never().is_none() && (&mut write).now_or_never().is_none());
        drop(first);
        assert!((&mut poll).now_or_never().is_none());
        drop(write.await);
        drop(poll.await);
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_holds_up_nobody() {
        let limiter = limiter(1, 1000);
        let first = limiter.turn(Priority::Poll).await;
        for _ in 0..10_000 {
            assert!(limiter.turn(Priority::AliasWrite).now_or_never().is_none());
        }
        let mut next = Box::pin(limiter.turn(Priority::Display));
        assert!((&mut next).now_or_never().is_none());
        drop(first);
        drop(next.await);
        drop(limiter.turn(Priority::Poll).await);
    }

    #[tokio::test]
    async fn requests_go_on_when_the_rate_allows_it() {
        let limiter = limiter(16, 100);
        let start = Instant::now();
        for _ in 0..70 {
            drop(limiter.turn(Priority::Poll).await);
        }
        assert!(start.elapsed() >= Duration::from_millis(190), "20 beyond the burst: {:?}", start.elapsed());
    }

    #[test]
    fn waits_are_metrics() {
        let waits = Waits::default();
        waits.observe(Priority::AliasWrite, Instant::now());
        let mut registry = prometheus_client::registry::Registry::default();
        waits.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let count = "laurel_registry_request_wait_seconds_count{priority=\"alias_write\"} 1";
        assert!(text.contains(count), "{text}");
    }
}
