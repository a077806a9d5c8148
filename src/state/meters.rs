//! In which namespaces the ConfigMap with the meter was written lately. It is looked after whenever a
//! Deployment is applied that mounts it, and thousands of Deployments in a namespace cost one write.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::Mutex as AsyncMutex, time::timeout};

use super::throttle::retry_after;
use crate::api::condition::{Reason, ReasonMessage};

/// For how long a written ConfigMap counts as there. Somebody may delete it, or the whole namespace.
const FRESH: Duration = Duration::from_mins(10);

/// How long a Deployment waits for the write. Its pods start without the ConfigMap as well.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many namespaces are remembered. Those that are forgotten cost a write more.
const MOST: usize = 4096;

/// The writes, by namespace.
#[derive(Debug, Default)]
pub struct Meters {
    namespaces: Mutex<HashMap<String, Arc<AsyncMutex<Attempt>>>>,
}

/// The last write in a namespace. It is locked during a write, so that all that need it wait for the same one.
#[derive(Debug, Default)]
struct Attempt {
    /// When the next one is due; `None` before the first.
    due: Option<Instant>,
    has_failed: bool,
}

impl Attempt {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

impl Meters {
    /// Writes the ConfigMap of a namespace, unless that was done lately. Returns why it failed, if the last
    /// time it did not.
    pub async fn ensure(
        &self,
        namespace: &str,
        now: Instant,
        write: impl Future<Output = Result<(), ReasonMessage>>,
    ) -> Option<ReasonMessage> {
        let attempt = self.attempt(namespace, now);
        let mut attempt = attempt.lock().await;
        if !attempt.is_due(now) {
            return None;
        }
        let written = timeout(PATIENCE, write).await.unwrap_or_else(|_| Err(too_slow()));
        attempt.due = Some(now + written.as_ref().err().map_or(FRESH, retry_after));
        let failed_before = std::mem::replace(&mut attempt.has_failed, written.is_err());
        written.err().filter(|_| !failed_before)
    }

    fn attempt(&self, namespace: &str, now: Instant) -> Arc<AsyncMutex<Attempt>> {
        let mut namespaces = self.namespaces.lock();
        if namespaces.len() >= MOST && !namespaces.contains_key(namespace) {
            namespaces.retain(|_, attempt| attempt.try_lock().map_or(true, |attempt| !attempt.is_due(now)));
            if namespaces.len() >= MOST {
                namespaces.clear();
            }
        }
        namespaces.entry(namespace.to_owned()).or_default().clone()
    }

    /// Forgets a namespace: it may be deleted, and created anew without the ConfigMap.
    pub fn forget(&self, namespace: &str) {
        self.namespaces.lock().remove(namespace);
    }
}

fn too_slow() -> ReasonMessage {
    let message = format!("the API server did not answer within {} s", PATIENCE.as_secs());
    ReasonMessage::new(Reason::ApplyFailed, message)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use pretty_assertions::assert_eq;

    use super::*;

    /// What counts the writes of a test.
    #[derive(Default)]
    struct Server {
        writes: AtomicUsize,
        refuses: Option<Reason>,
    }

    impl Server {
        async fn write(&self) -> Result<(), ReasonMessage> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            self.refuses.map_or(Ok(()), |reason| Err(ReasonMessage::new(reason, "no")))
        }

        /// The number of writes since the last time.
        fn written(&self) -> usize {
            self.writes.swap(0, Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_thousand_deployments_of_a_namespace_cost_one_write() {
        let (meters, server, now) = (Meters::default(), Server::default(), Instant::now());
        let all = join_all((0..1000).map(|_| meters.ensure("risk", now, server.write()))).await;
        assert_eq!(server.written(), 1);
        assert!(all.iter().all(Option::is_none));
        meters.ensure("fraud", now, server.write()).await;
        assert_eq!(server.written(), 1, "every namespace has its own");
    }

    #[tokio::test]
    async fn it_is_written_again_after_ten_minutes_and_in_a_namespace_that_was_forgotten() {
        let (meters, server, now) = (Meters::default(), Server::default(), Instant::now());
        let at = |time| meters.ensure("risk", time, server.write());
        at(now).await;
        at(now + FRESH / 2).await;
        assert_eq!(server.written(), 1);
        at(now + FRESH).await;
        assert_eq!(server.written(), 1);
        meters.forget("risk");
        at(now + FRESH).await;
        assert_eq!(server.written(), 1);
    }

    #[tokio::test]
    async fn a_failure_is_reported_once_and_tried_again_soon() {
        let (meters, now) = (&Meters::default(), Instant::now());
        let refused = Server { refuses: Some(Reason::ApplyForbidden), ..Server::default() };
        let at = |server, minutes| async move {
            let time = now + Duration::from_mins(minutes);
            meters.ensure("risk", time, Server::write(server)).await.is_some()
        };
        let mut reported = Vec::new();
        for minutes in [0, 0, 1, 2] {
            reported.push(at(&refused, minutes).await);
        }
        assert_eq!((reported, refused.written()), (vec![true, false, false, false], 3));
        let works = Server::default();
        assert!(!at(&works, 3).await);
        assert_eq!(works.written(), 1);
        assert!(at(&refused, 13).await, "another failure is news");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_holds_nothing_up_for_long() {
        let (meters, now) = (Meters::default(), Instant::now());
        let cause = meters.ensure("risk", now, std::future::pending()).await.unwrap();
        assert_eq!(cause.message, "the API server did not answer within 2 s");
        assert_eq!(meters.ensure("risk", now, std::future::pending()).await, None, "it is not asked again");
    }

    #[tokio::test]
    async fn as_many_namespaces_are_remembered_as_have_room() {
        let (meters, server, now) = (Meters::default(), Server::default(), Instant::now());
        for number in 0..=MOST {
            meters.ensure(&number.to_string(), now, server.write()).await;
        }
        assert_eq!(server.written(), MOST + 1);
        assert!(meters.namespaces.lock().len() <= MOST);
        meters.ensure("0", now + FRESH, server.write()).await;
        assert_eq!(server.written(), 1);
    }
}
