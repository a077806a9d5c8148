//! Experiments that are under way: the pods of their versions are read every 15 seconds, beside the
//! reconciles, for as long as a decision wants it. At rest nothing is read.
//!
//! ```text
//! mod      which experiments are counted, and what is known of them
//! run      one of them: a round, a batch for each contest; wakes the ModelExperiment when there is news
//! contest  the champion against one challenger
//! ```

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::task::AbortHandle;

use super::{
    PodAccess,
    counted::{Source, Wanted},
};
use crate::{
    api::{model_alias::AliasKey, model_experiment::ExperimentKey},
    cluster::Requeue,
    decide::experiment::{Contest, CountedView},
};

mod contest;
mod run;
#[cfg(test)]
mod tests;

/// The experiments that are counted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Experiments(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    watched: Mutex<HashMap<String, Watched>>,
    pods: Arc<PodAccess>,
    requeue: Requeue,
}

/// An experiment to count.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its UID.
    pub uid: String,
    /// Its namespace and name.
    pub key: ExperimentKey,
    /// The ModelAlias of the champion, and where its pods say what they counted.
    pub champion: (AliasKey, Source),
    /// What is looked for in the counts.
    pub wanted: Vec<Wanted>,
    /// The contests, with where the challenger's pods say what they counted.
    pub contests: Vec<(Contest, Source)>,
}

/// One experiment. Its task ends with it.
#[derive(Debug)]
struct Watched {
    request: Request,
    views: Vec<CountedView>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Experiments {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(pods: PodAccess, requeue: Requeue) -> Self {
        Self(Arc::new(Shared { watched: Mutex::default(), pods: Arc::new(pods), requeue }))
    }

    /// What was counted of the experiment with this UID.
    #[must_use]
    pub fn of(&self, uid: &str) -> Vec<CountedView> {
        self.0.lock().get(uid).map(|watched| watched.views.clone()).unwrap_or_default()
    }

    /// Counts these contests from now on, and no others. What was counted of the same versions is kept.
    pub fn follow(&self, request: Request) {
        let mut watched = self.0.lock();
        // A task that is over was a defect: another one goes on.
        let is_running = |known: &&mut Watched| !known.task.is_finished();
        if let Some(known) = watched.get_mut(&request.uid).filter(is_running) {
            known.views.retain(|view| request.contests.iter().any(|(contest, _)| contest.key == view.key));
            known.request = request;
            return;
        }
        let task = run::Task::new(&request, Arc::downgrade(&self.0));
        let task = tokio::spawn(task.run()).abort_handle();
        watched.insert(request.uid.clone(), Watched { request, views: Vec::new(), task });
    }

    /// Counts nothing of an experiment any more.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.watched.lock()
    }

    fn request(&self, uid: &str) -> Option<Request> {
        self.lock().get(uid).map(|watched| watched.request.clone())
    }

    /// Stores what is known now, and wakes the ModelExperiment.
    fn publish(&self, request: &Request, views: Vec<CountedView>) {
        if let Some(watched) = self.lock().get_mut(&request.uid) {
            let is_wanted = |view: &CountedView| {
                watched.request.contests.iter().any(|(contest, _)| contest.key == view.key)
            };
            watched.views = views.into_iter().filter(is_wanted).collect();
        }
        self.requeue.experiment(&request.key);
    }
}
