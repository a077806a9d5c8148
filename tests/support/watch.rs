//! Everything that a watch reported, with the moment it was seen here.
//!
//! Waiting and measuring share it: nothing that happened between two looks is missed, and how long something
//! took can be asked after it happened.

use std::{fmt::Debug, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::{Mutex, MutexGuard};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

/// An object as it was at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Seen<K> {
    /// When it was seen here.
    pub(crate) at: Instant,
    /// The object.
    pub(crate) object: K,
    /// Whether this is its last state before it was gone.
    pub(crate) gone: bool,
}

/// A watch that keeps what it saw, until it is dropped.
pub(crate) struct Watch<K> {
    log: Arc<Log<K>>,
    _watching: JoinSet<()>,
}

struct Log<K> {
    seen: Mutex<Vec<Seen<K>>>,
    grown: watch::Sender<()>,
}

impl<K> Log<K> {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen<K>>> {
        self.seen.lock()
    }

    fn cause(&self, event: Event<K>) {
        let (object, gone) = match event {
            Event::Apply(object) | Event::InitApply(object) => (object, false),
            Event::Delete(object) => (object, true),
            Event::Init | Event::InitDone => return,
        };
        self.seen().push(Seen { at: Instant::now(), object, gone });
        self.grown.send_replace(());
    }
}

impl<K> Watch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Watches what `selected` selects.
    pub(crate) fn start(api: Api<K>, selected: watcher::Config) -> Self {
        let log = Arc::new(Log { seen: Mutex::new(Vec::new()), grown: watch::Sender::new(()) });
        let mut watching = JoinSet::new();
        let noted = Arc::clone(&log);
        watching.spawn(async move {
            let mut events = watcher(api, selected).default_backoff().boxed();
            while let Some(event) = events.next().await {
                // After an error the watcher begins again by itself, a little later.
                if let Ok(event) = event {
                    noted.cause(event);
                }
            }
        });
        Self { log, _watching: watching }
    }

    /// Watches one object.
    pub(crate) fn of(api: Api<K>, name: &str) -> Self {
        Self::start(api, watcher::Config::default().fields(&format!("metadata.name={name}")))
    }
}

impl<K: Clone> Watch<K> {
    /// Everything seen so far, oldest first.
    pub(crate) fn seen(&self) -> Vec<Seen<K>> {
        self.log.seen().clone()
    }

    /// The state seen last.
    pub(crate) fn last(&self) -> Option<Seen<K>> {
        self.log.seen().last().cloned()
    }

    /// The first state that `wanted` holds for, as soon as there is one; an error that names `what` after
    /// `deadline`.
    pub(crate) async fn until(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Seen<K>) -> bool,
    ) -> Result<Seen<K>> {
        let mut grown = self.log.grown.subscribe();
        let found = async {
            loop {
                if let Some(found) = self.first(&wanted) {
                    return Ok(found);
                }
                grown.changed().await?;
            }
        };
        let late = |_| anyhow!("not within {deadline:?}: {what}");
        timeout(deadline, found).await.map_err(late)?
    }

    fn first(&self, wanted: impl Fn(&Seen<K>) -> bool) -> Option<Seen<K>> {
        // From a copy: `wanted` may look at the log itself.
        self.seen().into_iter().find(wanted)
    }
}
