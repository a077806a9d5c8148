//! What Events say about pods that are waited for and whose status does not say why.
//!
//! Only Events report a volume that cannot be mounted or a probe that fails. They are read beside the
//! reconciles, for a few pods of each ModelAlias, less and less often while a pod waits. What is found wakes
//! the ModelAlias.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kube::Client;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::Instant,
};

use crate::{
    api::model_alias::AliasKey,
    cluster::{
        Requeue,
        pod_causes::{AwaitedPod, PodEvent},
        pod_events,
    },
};

#[cfg(test)]
mod tests;

/// How old a pod is when its Events are read first: a pod that starts as it should causes no read.
const FIRST_AFTER: Duration = Duration::from_secs(2);
/// The pause before the second read. It doubles from one read to the next.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often a task looks which pods are due.
const TICK: Duration = Duration::from_millis(500);
/// How many reads run concurrently, at most one in each namespace.
const AT_ONCE: usize = 4;
/// After a read its namespace rests for this many times as long. The API server has no index of Events: for each read it
/// goes through all of the namespace. When thousands of pods start, reads without a rest cost it more than the pods
/// themselves, and delay them.
const REST: u32 = 9;
/// How long a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The Events about the pods of all `ModelAliases`. Cheap to clone.
#[derive(Clone)]
pub struct PodEvents(Arc<Shared>);

struct Shared {
    client: Client,
    requeue: Requeue,
    /// By the UID of the ModelAlias.
    awaited: Mutex<HashMap<String, Awaited>>,
    at_once: Semaphore,
    /// By namespace.
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
    is_denied: AtomicBool,
    is_there: Box<IsThere>,
}

/// Whether there is a ModelAlias with this key and UID.
type IsThere = dyn Fn(&AliasKey, &str) -> bool + Send + Sync;

/// The pods of one ModelAlias. Its task ends with it.
struct Awaited {
    pods: HashMap<String, Known>,
    task: AbortHandle,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One pod with its Events as last read.
struct Known {
    pod: AwaitedPod,
    events: Vec<PodEvent>,
    due: Instant,
    pause: Duration,
}

impl Known {
    fn new(pod: AwaitedPod) -> Self {
        let age = pod.created.map(|created| jiff::Timestamp::now().duration_since(created));
        let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        Self { pod, events: Vec::new(), due: Instant::now() + FIRST_AFTER.saturating_sub(age), pause: PAUSE }
    }
}

/// A read. The next one in its namespace begins a while after it has ended, even if its result is of no use any more.
struct Turn {
    permit: Option<OwnedSemaphorePermit>,
    began: Instant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (permit, rest) = (self.permit.take(), (self.began.elapsed() * REST).min(READ_TIMEOUT));
        tokio::spawn(async move {
            tokio::time::sleep(rest).await;
            drop(permit);
        });
    }
}

impl PodEvents {
    /// Waits for no pods yet. `is_there` tells whether there is a ModelAlias with this key and UID: one that
    /// is gone waits for nothing.
    #[must_use]
    pub fn new(
        client: Client,
        requeue: Requeue,
        is_there: impl Fn(&AliasKey, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            client,
            requeue,
            awaited: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE),
            turns: Mutex::default(),
            is_denied: AtomicBool::default(),
            is_there: Box::new(is_there),
        }))
    }

    /// Reads the Events of these pods of a ModelAlias from now on, and of no others of it; `uid` is the
    /// ModelAlias's.
    pub fn follow(&self, uid: &str, alias: &AliasKey, pods: &[AwaitedPod]) {
        let mut awaited = self.0.lock();
        if pods.is_empty() {
            awaited.remove(uid);
            return;
        }
        let known = awaited.entry(uid.to_owned()).or_insert_with(|| {
            let task = run(Arc::downgrade(&self.0), uid.to_owned(), alias.clone());
            Awaited { pods: HashMap::new(), task: tokio::spawn(task).abort_handle() }
        });
        known.pods.retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
        for pod in pods {
            known.pods.entry(pod.uid.clone()).or_insert_with(|| Known::new(pod.clone()));
        }
    }

    /// Returns the Events of a pod of a ModelAlias as last read.
    #[must_use]
    pub fn of(&self, uid: &str, pod: &str) -> Vec<PodEvent> {
        let awaited = self.0.lock();
        let known = awaited.get(uid).and_then(|awaited| awaited.pods.get(pod));
        known.map(|known| known.events.clone()).unwrap_or_default()
    }

    /// Forgets a ModelAlias that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Awaited>> {
        self.awaited.lock()
    }

    /// The pods to read now; each is due again after its pause.
    fn due(&self, uid: &str) -> Vec<AwaitedPod> {
        let now = Instant::now();
        let mut awaited = self.lock();
        let pods = awaited.get_mut(uid).into_iter().flat_map(|awaited| awaited.pods.values_mut());
        let due = pods.filter(|known| known.due <= now).map(|known| {
            known.due = now + known.pause;
            known.pause = known.pause.saturating_mul(2).min(PAUSE_MAX);
            known.pod.clone()
        });
        due.collect()
    }

    /// Whose turn it is to read in a namespace.
    fn turn(&self, namespace: &str) -> Arc<Semaphore> {
        let mut turns = self.turns.lock();
        // Nobody waits for the others, and they do not rest.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(namespace.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    /// Reads the Events of a pod. Returns whether they are new.
    async fn look(&self, uid: &str, pod: &AwaitedPod) -> bool {
        let Ok(permit) = self.turn(&pod.namespace).acquire_owned().await else { return false };
        let Ok(_at_once) = self.at_once.acquire().await else { return false };
        let _turn = Turn { permit: Some(permit), began: Instant::now() };
        let events = match tokio::time::timeout(READ_TIMEOUT, pod_events::read(&self.client, pod)).await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => {
                self.report(&error);
                return false;
            }
            Err(_) => return false,
        };
        let mut awaited = self.lock();
        let known = awaited.get_mut(uid).and_then(|awaited| awaited.pods.get_mut(&pod.uid));
        let Some(known) = known else { return false };
        let events = in_known_order(&known.events, events);
        // A repetition of the same Event is no news.
        let is_new = known.events.len() != events.len()
            || known.events.iter().zip(&events).any(|(before, now)| !before.is_like(now));
        known.events = events;
        is_new
    }

    /// Without the permission conditions lack what only Events report; nothing else depends on it.
    fn report(&self, error: &kube::Error) {
        let is_denied = matches!(error, kube::Error::Api(status) if status.code == 403);
        if is_denied && !self.is_denied.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %error,
                "cannot list Events, so conditions do not name causes that only Events report: compare Laurel's \
                 role with the chart's"
            );
        } else {
            tracing::debug!(%error, "cannot list Events");
        }
    }
}

/// Puts Events that are known and still repeated first, in the order in which they are known: of several that
/// are repeated in turn, the same one stays the first.
fn in_known_order(known: &[PodEvent], mut events: Vec<PodEvent>) -> Vec<PodEvent> {
    let last = events.iter().filter_map(|event| event.at).max();
    let place = |event: &PodEvent| {
        let place = known.iter().position(|known| known.is_like(event));
        place.filter(|_| event.is_current(last)).unwrap_or(known.len())
    };
    events.sort_by_key(place);
    events
}

async fn run(shared: Weak<Shared>, uid: String, alias: AliasKey) {
    while let Some(shared) = shared.upgrade() {
        // A reconcile that began before the deletion may follow its pods after they were forgotten.
        if !(shared.is_there)(&alias, &uid) {
            shared.lock().remove(&uid);
            return;
        }
        for pod in shared.due(&uid) {
            if shared.look(&uid, &pod).await {
                shared.requeue.alias(&alias);
            }
        }
        drop(shared);
        tokio::time::sleep(TICK).await;
    }
}
