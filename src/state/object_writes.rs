//! Writes to registries for `RegisteredModels`, with what a deletion reads before, and for `ModelExperiments`.
//! They run beside the reconciles: a slow registry must not hold up the objects of others. The end wakes the
//! object if there is more to do for it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    cluster::Requeue,
    decide::{experiment::ExperimentAction, registered_model::ModelAction},
};

/// How many attempts are remembered before those that are over are dropped.
const FEW: usize = 64;

/// The pause after an attempt that panicked.
const AFTER_PANIC: Duration = Duration::from_secs(10);

/// What is attempted for a RegisteredModel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The deletion of the object in this revision.
    Deletion(Option<String>),
    /// These actions.
    Actions(Vec<ModelAction>),
}

/// Attempts of one kind, by the UIDs of the objects. Cheap to clone.
pub struct ObjectWrites<A> {
    wake: Arc<dyn Fn(&Target) + Send + Sync>,
    states: Arc<Mutex<HashMap<String, State<A>>>>,
}

/// Those for `RegisteredModels`.
pub type ModelWrites = ObjectWrites<Attempt>;

/// Those for `ModelExperiments`.
pub type ExperimentWrites = ObjectWrites<Vec<ExperimentAction>>;

impl<A> Clone for ObjectWrites<A> {
    fn clone(&self) -> Self {
        Self { wake: self.wake.clone(), states: self.states.clone() }
    }
}

#[derive(Debug)]
enum State<A> {
    Running {
        /// Whether a reconcile was asked for in the meantime.
        is_asked: bool,
    },
    /// The same is not attempted again before a time.
    Paused(A, Instant),
}

/// An object that is written for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// How an attempt is begun.
#[derive(Debug, PartialEq, Eq)]
pub enum Begin {
    /// It has begun.
    Begun,
    /// One is running. Its end wakes the object.
    UnderWay,
    /// The same did not succeed just now, and is due again after this time.
    Due(Duration),
}

impl ModelWrites {
    /// Nothing is attempted yet.
    #[must_use]
    pub fn new(requeue: Requeue) -> Self {
        let wake = move |target: &Target| requeue.model(&target.namespace, &target.name);
        Self { wake: Arc::new(wake), states: Arc::default() }
    }
}

impl ExperimentWrites {
    /// Nothing is attempted yet.
    #[must_use]
    pub fn new(requeue: Requeue) -> Self {
        let wake =
            move |target: &Target| requeue.experiment(&(target.namespace.clone(), target.name.clone()));
        Self { wake: Arc::new(wake), states: Arc::default() }
    }
}

impl<A: Clone + PartialEq + Send + 'static> ObjectWrites<A> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, State<A>>> {
        self.states.lock()
    }

    /// Whether an attempt for the object is running. Its end wakes the object then.
    #[must_use]
    pub fn postpones(&self, uid: &str) -> bool {
        match self.lock().get_mut(uid) {
            Some(State::Running { is_asked }) => {
                *is_asked = true;
                true
            }
            Some(State::Paused(..)) | None => false,
        }
    }

    /// Begins `work`, which returns when the same has to be attempted again, if it has to be.
    pub fn begin(
        &self,
        target: Target,
        attempt: A,
        work: impl Future<Output = Option<Duration>> + Send + 'static,
    ) -> Begin {
        let now = Instant::now();
        let mut states = self.lock();
        match states.get_mut(&target.uid) {
            Some(State::Running { is_asked }) => {
                *is_asked = true;
                return Begin::UnderWay;
            }
            Some(State::Paused(paused, due)) if *paused == attempt && *due > now => {
                return Begin::Due(*due - now);
            }
            Some(State::Paused(..)) | None => {}
        }
        if states.len() >= FEW {
            states.retain(|_, state| !matches!(state, State::Paused(_, due) if *due <= now));
        }
        states.insert(target.uid.clone(), State::Running { is_asked: false });
        drop(states);
        let running = Running { writes: self.clone(), target, attempt, pause: Some(AFTER_PANIC) };
        tokio::spawn(async move {
            let mut running = running;
            running.pause = work.await;
        });
        Begin::Begun
    }
}

/// An attempt that runs. However it ends, it does not run any more.
struct Running<A: Clone + PartialEq + Send + 'static> {
    writes: ObjectWrites<A>,
    target: Target,
    attempt: A,
    pause: Option<Duration>,
}

impl<A: Clone + PartialEq + Send + 'static> Drop for Running<A> {
    fn drop(&mut self) {
        let before = {
            let mut states = self.writes.lock();
            match self.pause {
                Some(pause) => {
                    let paused = State::Paused(self.attempt.clone(), Instant::now() + pause);
                    states.insert(self.target.uid.clone(), paused)
                }
                None => states.remove(&self.target.uid),
            }
        };
        let is_asked = matches!(before, Some(State::Running { is_asked: true }));
        if is_asked || self.pause.is_some() {
            (self.writes.wake)(&self.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use pretty_assertions::assert_eq;
    use tokio::sync::oneshot;

    use super::*;
    use crate::cluster::RequeueStreams;

    fn target(uid: &str) -> Target {
        Target { uid: uid.to_owned(), namespace: "risk".to_owned(), name: uid.to_owned() }
    }

    fn deletion(revision: &str) -> Attempt {
        Attempt::Deletion(Some(revision.to_owned()))
    }

    async fn woken(streams: &mut RequeueStreams) -> String {
        streams.models.next().await.unwrap().name
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn one_attempt_runs_at_a_time_and_holds_up_no_other_object() {
        let (requeue, mut streams) = Requeue::new();
        let writes = ModelWrites::new(requeue);
        let (sender, answer) = oneshot::channel::<()>();
        let slow = async move {
            answer.await.unwrap();
            None
        };
        assert_eq!(writes.begin(target("a"), deletion("1"), slow), Begin::Begun);
        assert_eq!(
            writes.begin(target("a"), deletion("2"), async { panic!("one is running") }),
            Begin::UnderWay
        );
        assert_eq!(writes.begin(target("b"), deletion("1"), async { Some(MINUTE) }), Begin::Begun);
        assert_eq!(woken(&mut streams).await, "b", "it does not wait for the slow one");
        assert!(writes.postpones("a") && !writes.postpones("b"));
        sender.send(()).unwrap();
        assert_eq!(woken(&mut streams).await, "a");
        assert_eq!(writes.begin(target("a"), deletion("1"), async { None }), Begin::Begun);
    }

    #[tokio::test]
    async fn an_end_wakes_the_object_only_if_there_is_more_to_do() {
        let (requeue, mut streams) = Requeue::new();
        let writes = ModelWrites::new(requeue);
        for is_asked in [false, true] {
            let (sender, answer) = oneshot::channel::<()>();
            let work = async move {
                answer.await.unwrap();
                None
            };
            writes.begin(target("a"), deletion("1"), work);
            assert!(!is_asked || writes.postpones("a"));
            sender.send(()).unwrap();
            while writes.lock().contains_key("a") {
                tokio::task::yield_now().await;
            }
            assert_eq!(streams.models.try_recv().is_ok(), is_asked);
        }
    }

    #[tokio::test]
    async fn what_did_not_succeed_is_not_attempted_again_at_once_but_something_else_is() {
        let (requeue, mut streams) = Requeue::new();
        let writes = ModelWrites::new(requeue);
        writes.begin(target("a"), deletion("1"), async { Some(MINUTE) });
        woken(&mut streams).await;
        let again = writes.begin(target("a"), deletion("1"), async { panic!("not yet") });
        assert!(matches!(again, Begin::Due(due) if due <= MINUTE && due > MINUTE / 2), "{again:?}");
        let other = Attempt::Actions(vec![ModelAction::DeleteModel]);
        assert_eq!(writes.begin(target("a"), other, async { None }), Begin::Begun);
    }

    #[tokio::test]
    async fn an_attempt_that_panics_is_over_and_nothing_is_kept_for_ever() {
        let (requeue, mut streams) = Requeue::new();
        let writes = ModelWrites::new(requeue);
        writes.begin(target("a"), deletion("1"), async { panic!("a defect") });
        assert_eq!(woken(&mut streams).await, "a");
        let again = writes.begin(target("a"), deletion("1"), async { panic!("not at once") });
        assert!(!writes.postpones("a") && matches!(again, Begin::Due(_)), "{again:?}");
        for number in 0..1000 {
            writes.begin(target(&number.to_string()), deletion("1"), async { Some(Duration::ZERO) });
            woken(&mut streams).await;
        }
        assert!(writes.lock().len() <= FEW + 1, "{}", writes.lock().len());
    }
}
