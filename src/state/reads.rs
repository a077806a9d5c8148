//! Reads from registries, beside the reconciles. A reconcile takes the last answer, and a new one wakes it: a
//! slow registry holds up nobody, and what it answers late is not lost.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    api::{
        model_alias::AliasKey,
        names::{ModelName, Version},
    },
    cluster::Requeue,
    registry::{
        RegisteredModelFacts,
        limiter::Priority,
        polled::{PolledRegistry, RegistryIdentity, RegistryKey},
    },
};

/// For how long the answers of most reads are not read again.
pub const FRESH: Duration = Duration::from_secs(1);

/// For how long an answer is kept for those that waited for it, and may be returned while it is being read
/// again.
const KEPT: Duration = Duration::from_secs(30);

/// How many reads from one registry run at a time. The limits of the registry may be lower. After a start,
/// each of thousands of objects needs some.
const AT_ONCE: usize = 32;

/// How many of them no decision waits for. The others find room, however many of these a slow registry has
/// not answered.
const UNNEEDED_AT_ONCE: usize = 16;

/// How many reads are remembered before those that nobody needs are dropped.
const FEW: usize = 64;

/// Identifies what is read, with the object that says where and with which login. An answer from before the
/// model changed, or was created again, answers nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadKey {
    registry: RegistryKey,
    identity: RegistryIdentity,
    model: ModelName,
    seen: (Timestamp, Timestamp),
    what: What,
    /// A read that a decision waits for does not wait for one of lower priority.
    priority: Priority,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    Version(Version),
    /// The newest versions, with these metrics.
    Newest(BTreeSet<String>),
}

impl ReadKey {
    fn new(registry: &PolledRegistry, model: &RegisteredModelFacts, what: What, priority: Priority) -> Self {
        Self {
            registry: registry.key.clone(),
            identity: registry.identity(),
            model: model.name.clone(),
            seen: (model.created_at, model.updated_at),
            what,
            priority,
        }
    }

    /// Identifies a version of a model, as the model was last seen in its registry.
    #[must_use]
    pub fn version(
        registry: &PolledRegistry,
        model: &RegisteredModelFacts,
        version: Version,
        priority: Priority,
    ) -> Self {
        Self::new(registry, model, What::Version(version), priority)
    }

    /// Identifies the newest versions of a model, as the model was last seen in its registry, with these
    /// metrics.
    #[must_use]
    pub fn newest(
        registry: &PolledRegistry,
        model: &RegisteredModelFacts,
        metrics: &BTreeSet<String>,
    ) -> Self {
        Self::new(registry, model, What::Newest(metrics.clone()), Priority::Display)
    }
}

/// An object that waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Waiter {
    /// A ModelAlias.
    Alias(AliasKey),
    /// A RegisteredModel, by namespace and name.
    Model(String, String),
}

impl Waiter {
    fn wake(&self, requeue: &Requeue) {
        match self {
            Self::Alias(alias) => requeue.alias(alias),
            Self::Model(namespace, name) => requeue.model(namespace, name),
        }
    }
}

/// The reads of one kind, and their last answers. Clones share them.
#[derive(Debug)]
pub struct Reads<T>(Arc<Shared<T>>);

impl<T> Clone for Reads<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Shared<T> {
    reads: Mutex<Store<T>>,
    fresh: Duration,
    may_be_stale: fn(&T) -> bool,
    requeue: Requeue,
}

#[derive(Debug)]
struct Store<T> {
    reads: HashMap<ReadKey, Read<T>>,
    /// The reads from each registry that has any.
    backlogs: HashMap<RegistryKey, Backlog<T>>,
    /// At which size those that nobody needs are dropped.
    limit: usize,
}

/// The reads from one registry.
struct Backlog<T> {
    /// Those that a decision waits for.
    needed: Class<T>,
    unneeded: Class<T>,
}

/// The reads of one urgency.
struct Class<T> {
    running: usize,
    /// Those that wait for others to end.
    waiting: VecDeque<Job<T>>,
}

type Job<T> = (ReadKey, BoxFuture<'static, T>);

#[derive(Debug)]
struct Read<T> {
    /// When the one that runs, or waits, was begun.
    running: Option<Instant>,
    answer: Option<(Instant, T)>,
    /// The objects to wake when the answer changes.
    waiting: HashSet<Waiter>,
    /// The objects that waited for the answer and have not taken it yet.
    undelivered: HashSet<Waiter>,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        let class = || Class { running: 0, waiting: VecDeque::new() };
        Self { needed: class(), unneeded: class() }
    }
}

impl<T> Backlog<T> {
    fn class(&mut self, key: &ReadKey) -> &mut Class<T> {
        if key.priority > Priority::Decision { &mut self.unneeded } else { &mut self.needed }
    }

    fn running(&self) -> usize {
        self.needed.running + self.unneeded.running
    }

    /// Returns the next read that may run.
    fn next(&mut self) -> Option<Job<T>> {
        if self.running() >= AT_ONCE {
            return None;
        }
        let may_begin = self.unneeded.running < UNNEEDED_AT_ONCE;
        let rest = may_begin.then_some(&mut self.unneeded);
        [Some(&mut self.needed), rest].into_iter().flatten().find_map(|class| {
            let job = class.waiting.pop_front()?;
            class.running += 1;
            Some(job)
        })
    }
}

impl<T> std::fmt::Debug for Backlog<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.needed.waiting.len() + self.unneeded.waiting.len();
        write!(f, "{} running, {waiting} waiting", self.running())
    }
}

impl<T> Default for Read<T> {
    fn default() -> Self {
        Self { running: None, answer: None, waiting: HashSet::new(), undelivered: HashSet::new() }
    }
}

impl<T: Clone + PartialEq + Send + 'static> Reads<T> {
    /// Creates an empty store that wakes objects through `requeue`. An answer is not read again for as long
    /// as it is `fresh`. `may_be_stale` says which answers may be returned while they are being read again:
    /// errors may, so that a condition does not flap, and nothing that a version is judged by.
    #[must_use]
    pub fn new(requeue: Requeue, fresh: Duration, may_be_stale: fn(&T) -> bool) -> Self {
        let store = Store { reads: HashMap::new(), backlogs: HashMap::new(), limit: FEW };
        Self(Arc::new(Shared { reads: Mutex::new(store), fresh, may_be_stale, requeue }))
    }

    /// Returns what is remembered elsewhere, the answer that was read for this object, or a fresh one.
    /// Otherwise this begins to read it, unless it is being read, wakes the object when the answer has
    /// changed, and returns the last one if that may be stale.
    ///
    /// # Errors
    /// When the read was begun, if nothing is known yet.
    pub fn last(
        &self,
        key: ReadKey,
        waiter: &Waiter,
        remembered: Option<T>,
        read: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Instant> {
        let mut store = self.lock();
        if let Some(remembered) = remembered {
            if let Some(known) = store.reads.get_mut(&key) {
                known.undelivered.remove(waiter);
            }
            return Ok(remembered);
        }
        store.drop_unneeded();
        let known = store.reads.entry(key.clone()).or_default();
        let kept = known.answer.as_ref().filter(|(at, _)| at.elapsed() < KEPT);
        if let Some((at, answer)) = kept
            && (known.undelivered.remove(waiter) || at.elapsed() < self.0.fresh)
        {
            return Ok(answer.clone());
        }
        let last = kept.map(|(_, answer)| answer.clone()).filter(self.0.may_be_stale);
        known.waiting.insert(waiter.clone());
        let begun = known.running.unwrap_or_else(Instant::now);
        if known.running.replace(begun).is_none()
            && let Some(first) = store.begin((key, read.boxed()))
        {
            tokio::spawn(self.clone().work(first));
        }
        last.ok_or(begun)
    }

    /// Performs a read, and those from the same registry that wait.
    async fn work(self, first: Job<T>) {
        let mut next = Some(first);
        while let Some((key, read)) = next {
            // A read that panics has no answer, and may begin again.
            let answer = AssertUnwindSafe(read).catch_unwind().await.ok();
            self.end(&key, answer);
            next = self.lock().next(&key);
        }
    }

    /// Remembers the answer of a read that ended, and wakes the objects that waited for it, if it is new.
    fn end(&self, key: &ReadKey, answer: Option<T>) {
        let mut store = self.lock();
        let Some(known) = store.reads.get_mut(key) else { return };
        known.running = None;
        let waiting = std::mem::take(&mut known.waiting);
        let Some(answer) = answer else { return };
        let before = known.answer.replace((Instant::now(), answer.clone()));
        let was_returned = |(at, before): &(Instant, T)| {
            *before == answer && at.elapsed() < KEPT && (self.0.may_be_stale)(before)
        };
        let has_changed = !before.as_ref().is_some_and(was_returned);
        known.undelivered = if has_changed { waiting.clone() } else { HashSet::new() };
        drop(store);
        for waiter in waiting.iter().filter(|_| has_changed) {
            waiter.wake(&self.0.requeue);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store<T>> {
        self.0.reads.lock()
    }
}

impl<T> Store<T> {
    /// Returns the read if it may run now; otherwise it waits.
    fn begin(&mut self, job: Job<T>) -> Option<Job<T>> {
        let backlog = self.backlogs.entry(job.0.registry.clone()).or_default();
        backlog.class(&job.0).waiting.push_back(job);
        backlog.next()
    }

    /// A read ended: returns the next one.
    fn next(&mut self, ended: &ReadKey) -> Option<Job<T>> {
        let backlog = self.backlogs.get_mut(&ended.registry)?;
        backlog.class(ended).running -= 1;
        let next = backlog.next();
        if backlog.running() == 0 {
            self.backlogs.remove(&ended.registry);
        }
        next
    }

    fn drop_unneeded(&mut self) {
        if self.reads.len() >= self.limit {
            let is_needed = |read: &Read<T>| {
                read.running.is_some() || read.answer.as_ref().is_some_and(|(at, _)| at.elapsed() < KEPT)
            };
            self.reads.retain(|_, read| is_needed(read));
            self.limit = FEW.max(self.reads.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests;
