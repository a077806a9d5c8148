//! Whether this process may write to the cluster and to registries.
//!
//! Of several operators only the one that holds the Lease writes, and only as long as it is certain to hold
//! it: a permission ends by the clock, without anything having to run at that moment. Every client that
//! writes asks for a permit first, so a process that was stopped for a minute, or is cut off from the API
//! server, writes nothing afterwards.
#![allow(clippy::disallowed_methods, reason = "a permission ends by the clock")]

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout_at};

/// Gives out permits to write. Cheap to clone; all clones are one fence.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    allowed: Mutex<Allowed>,
    /// How many writes are in progress.
    writes: watch::Sender<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Allowed {
    /// This process acts alone.
    Always,
    /// Writes may begin before the first, and have to end before the second.
    Until(Instant, Instant),
    /// Not yet, or no longer.
    Never,
}

/// This process may not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this operator does not hold the Lease, so it writes nothing: another operator acts")]
pub struct Fenced;

/// The permission for one write. Drop it when the response is there.
#[derive(Debug)]
pub struct Permit {
    fence: Arc<Inner>,
    ends: Option<Instant>,
}

impl Permit {
    /// Performs the write, for as long as nobody else can act.
    ///
    /// # Errors
    /// When it has not ended by then.
    pub async fn within<T>(&self, write: impl Future<Output = T>) -> Result<T, Fenced> {
        match self.ends {
            Some(ends) => timeout_at(ends.into(), write).await.map_err(|_| Fenced),
            None => Ok(write.await),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.fence.writes.send_modify(|writes| *writes -= 1);
    }
}

impl Default for Fence {
    fn default() -> Self {
        Self::new(Allowed::Always)
    }
}

impl Fence {
    fn new(allowed: Allowed) -> Self {
        Self(Arc::new(Inner { allowed: Mutex::new(allowed), writes: watch::Sender::new(0) }))
    }

    /// A fence that gives out no permit before the first `allow`.
    #[must_use]
    pub fn closed() -> Self {
        Self::new(Allowed::Never)
    }

    /// Allows writes that begin before `until`. They are given up at `ends`.
    pub fn allow(&self, until: Instant, ends: Instant) {
        *self.0.allowed.lock() = Allowed::Until(until, ends);
    }

    /// Allows no further writes.
    pub fn close(&self) {
        *self.0.allowed.lock() = Allowed::Never;
    }

    /// Returns the permission to begin a write now.
    ///
    /// # Errors
    /// When this process may not write.
    pub fn permit(&self) -> Result<Permit, Fenced> {
        let allowed = self.0.allowed.lock();
        let ends = match *allowed {
            Allowed::Until(until, ends) if Instant::now() < until => Some(ends),
            Allowed::Always => None,
            Allowed::Never | Allowed::Until(..) => return Err(Fenced),
        };
        // Under the lock: after `close`, `idle` knows of every write that was permitted.
        self.0.writes.send_modify(|writes| *writes += 1);
        Ok(Permit { fence: self.0.clone(), ends })
    }

    /// Resolves once no write is in progress.
    pub async fn idle(&self) {
        // The sender lives as long as this object does.
        let _ = self.0.writes.subscribe().wait_for(|writes| *writes == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_permission_ends_by_the_clock() {
        let fence = Fence::closed();
        assert_eq!(fence.permit().err(), Some(Fenced));
        let soon = Instant::now() + Duration::from_mins(1);
        fence.allow(soon, soon);
        assert!(fence.permit().is_ok());
        fence.allow(Instant::now(), soon);
        assert_eq!(fence.permit().err(), Some(Fenced));
        assert!(Fence::default().permit().is_ok());
    }

    #[tokio::test]
    async fn a_write_is_given_up_when_another_operator_may_act() {
        let fence = Fence::closed();
        let soon = Instant::now() + Duration::from_mins(1);
        fence.allow(soon, Instant::now() + Duration::from_millis(10));
        let permit = fence.permit().unwrap();
        assert_eq!(permit.within(std::future::pending::<()>()).await, Err(Fenced));
        assert_eq!(Fence::default().permit().unwrap().within(async { 7 }).await, Ok(7));
    }

    #[test]
    fn a_closed_fence_is_idle_once_the_writes_that_it_permitted_have_ended() {
        let fence = Fence::default();
        let permit = fence.permit().unwrap();
        fence.close();
        assert_eq!(fence.permit().err(), Some(Fenced));
        assert!(fence.idle().now_or_never().is_none());
        drop(permit);
        assert!(fence.idle().now_or_never().is_some());
    }
}
