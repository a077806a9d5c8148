//! Smoke tests: a version's own input example, sent to one of its pods before its first traffic.
//!
//! A test runs beside the reconciles, so that nothing waits for it; its result wakes the ModelAlias. Only a
//! pod's own response can fail a version. An unreadable example or an unreachable pod proves nothing: the
//! test then reports that it is unavailable and retries until it is ended.
//!
//! ```text
//! mod    which tests run, and their reports
//! run    one test: read the example, send it, try again
//! reply  what an answer means
//! ```

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Semaphore, task::AbortHandle};

use crate::{
    api::{
        model_alias::AliasKey,
        names::{ModelName, Version},
    },
    cluster::Requeue,
    decide::{Attempt, SmokeReport, SmokeTest, SmokeTestSlot},
    registry::polled::PolledRegistry,
    state::PodAccess,
};

mod reply;
mod run;
#[cfg(test)]
mod tests;

/// How many examples larger than [`run::SMALL`] are held in memory at a time.
const LARGE_AT_ONCE: usize = 2;

/// The smoke tests of all `ModelAliases`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SmokeTests(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tests: Mutex<HashMap<String, Running>>,
    pods: PodAccess,
    requeue: Requeue,
    /// An example with more bytes is not sent.
    example_max: usize,
    large: Arc<Semaphore>,
}

/// The test of one ModelAlias. Its task ends with it.
#[derive(Debug, Default)]
struct Running {
    slot: SmokeTestSlot,
    task: Option<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Running {
    fn abort(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// A test to begin.
#[derive(Clone, Debug)]
pub struct Request {
    /// The UID of the ModelAlias.
    pub uid: String,
    /// Its namespace and name.
    pub alias: AliasKey,
    /// The version.
    pub version: Version,
    /// The attempt that the result belongs to.
    pub attempt: Attempt,
    /// The version's model.
    pub model: ModelName,
    /// The location of its example.
    pub registry: Arc<PolledRegistry>,
    /// The port of its pods.
    pub port: u16,
    /// The time limit for the response.
    pub timeout: Duration,
}

impl SmokeTests {
    /// Creates an empty set. An example of more than `example_max` bytes is not sent.
    #[must_use]
    pub fn new(pods: PodAccess, requeue: Requeue, example_max: usize) -> Self {
        let (tests, large) = (Mutex::default(), Arc::new(Semaphore::new(LARGE_AT_ONCE)));
        Self(Arc::new(Shared { tests, pods, requeue, example_max, large }))
    }

    /// Returns the test of a version; `uid` is the ModelAlias's.
    #[must_use]
    pub fn of(&self, uid: &str, version: Version) -> Option<SmokeTest> {
        self.0.lock().get(uid)?.slot.of(version).cloned()
    }

    /// Begins a test in place of any other of its ModelAlias, unless it is known already. Returns whether it
    /// did.
    #[must_use]
    pub fn begin(&self, request: Request) -> bool {
        let mut tests = self.0.lock();
        let running = tests.entry(request.uid.clone()).or_default();
        let begins = running.slot.begin(request.version, &request.attempt);
        if begins {
            running.abort();
            let test = run::Test { request, shared: Arc::downgrade(&self.0) };
            running.task = Some(tokio::spawn(test.run()).abort_handle());
        }
        begins
    }

    /// Ends the ModelAlias's test, unless it is the desired one.
    pub fn keep_only(&self, uid: &str, wanted: Option<&(Version, Attempt)>) {
        let mut tests = self.0.lock();
        if tests.get_mut(uid).is_some_and(|running| running.slot.keep_only(wanted)) {
            tests.remove(uid);
        }
    }

    /// Forgets a ModelAlias that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.tests.lock()
    }

    /// Stores the report of a test that is still desired, and wakes its ModelAlias if anything changed.
    fn update(&self, request: &Request, report: SmokeReport) {
        let Request { uid, version, attempt, alias, .. } = request;
        let mut tests = self.lock();
        let is_new = tests.get_mut(uid).is_some_and(|running| running.slot.update(*version, attempt, report));
        drop(tests);
        if is_new {
            self.requeue.alias(alias);
        }
    }

    /// Ends a test without a report; the next reconcile begins another one.
    fn begin_again(&self, request: &Request) {
        let mut tests = self.lock();
        if tests
            .get(&request.uid)
            .is_some_and(|running| running.slot.holds(request.version, &request.attempt))
        {
            tests.remove(&request.uid);
        }
        drop(tests);
        self.requeue.alias(&request.alias);
    }
}
