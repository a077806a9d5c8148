//! Versions that are judged by their live traffic: their pods are read every 15 seconds, beside the
//! reconciles, for as long as a decision wants it. At rest nothing is read.
//!
//! ```text
//! mod  which versions are judged, and what is known of them
//! run  one of them: a round, its batch, the findings; wakes the ModelAlias when they say something else
//! ```

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::task::AbortHandle;

use super::{PodAccess, counted::Source};
use crate::{
    analysis::live::{AT_ONCE, are_many_worse},
    api::model_alias::AliasKey,
    cluster::Requeue,
    decide::{LiveView, LiveWatch},
};

mod run;
#[cfg(test)]
mod tests;

/// Of how many `ModelAliases` it is remembered that a version became worse.
const WORSE_MAX: usize = 1000;

/// The versions that are judged. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LiveWatches(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    watches: Mutex<HashMap<String, Watched>>,
    /// When a version became worse, by the UID of its ModelAlias: several in a row are one ModelAlias.
    became_worse: Mutex<HashMap<String, Timestamp>>,
    pods: Arc<PodAccess>,
    requeue: Requeue,
}

/// A version to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The UID of the ModelAlias.
    pub uid: String,
    /// Its namespace and name.
    pub alias: AliasKey,
    /// What is to be judged.
    pub watch: LiveWatch,
    /// Where its pods say what they counted.
    pub source: Source,
}

/// The version of one ModelAlias that is judged. Its task ends with it.
#[derive(Debug)]
struct Watched {
    request: Request,
    view: Option<LiveView>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LiveWatches {
    /// Nothing is judged yet.
    #[must_use]
    pub fn new(pods: PodAccess, requeue: Requeue) -> Self {
        let (watches, became_worse) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { watches, became_worse, pods: Arc::new(pods), requeue }))
    }

    /// What is known of the version that is judged; `uid` is the ModelAlias's.
    #[must_use]
    pub fn of(&self, uid: &str) -> Option<LiveView> {
        self.0.lock().get(uid)?.view.clone()
    }

    /// Judges this version from now on, and no other of its ModelAlias. Evidence about the same thing is kept.
    pub fn follow(&self, request: Request) {
        let mut watches = self.0.lock();
        if let Some(watched) = watches.get_mut(&request.uid).filter(|it| it.is_about(&request)) {
            watched.request = request;
            return;
        }
        let task = run::Task::new(&request, Arc::downgrade(&self.0));
        let task = tokio::spawn(task.run()).abort_handle();
        watches.insert(request.uid.clone(), Watched { request, view: None, task });
    }

    /// Judges no version of a ModelAlias any more.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

impl Watched {
    fn is_about(&self, request: &Request) -> bool {
        self.request.watch.key == request.watch.key && self.request.source == request.source
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.watches.lock()
    }

    /// What is to be judged now; `None` if it is something else than before.
    fn request(&self, before: &Request) -> Option<Request> {
        let watches = self.lock();
        watches.get(&before.uid).filter(|watched| watched.is_about(before)).map(|it| it.request.clone())
    }

    /// Stores what is known now, and wakes the ModelAlias.
    fn publish(&self, request: &Request, view: LiveView) {
        let mut all = self.lock();
        let watched = all.get_mut(&request.uid).filter(|watched| watched.is_about(request));
        let is_wanted = watched.map(|watched| watched.view = Some(view)).is_some();
        drop(all);
        if is_wanted {
            self.requeue.alias(&request.alias);
        }
    }

    /// Remembers that a version of a ModelAlias became worse.
    fn became_worse(&self, uid: &str, at: Timestamp) {
        let mut became_worse = self.became_worse.lock();
        became_worse.insert(uid.to_owned(), at);
        if became_worse.len() > WORSE_MAX {
            let oldest = became_worse.iter().min_by_key(|(_, at)| **at).map(|(uid, _)| uid.clone());
            oldest.and_then(|uid| became_worse.remove(&uid));
        }
    }

    /// Whether so many `ModelAliases` became worse just now that none of them is believed. Those that went back
    /// are judged no longer, and count as well.
    fn are_many_worse(&self, now: Timestamp) -> bool {
        let watches = self.lock();
        let mut became_worse = self.became_worse.lock();
        became_worse.retain(|_, at| now.duration_since(*at) <= AT_ONCE);
        let went_back = became_worse.keys().filter(|uid| !watches.contains_key(*uid)).count();
        let times: Vec<Timestamp> = became_worse.values().copied().collect();
        are_many_worse(&times, watches.len() + went_back, now)
    }
}
