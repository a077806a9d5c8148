//! How many objects of a kind have reached a state, and when the last one did.

use std::{collections::HashMap, fmt::Debug, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, timeout},
};

/// The pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// A watch that counts, until dropped.
pub(crate) struct Tally {
    state: Arc<State>,
    _watching: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// Since when each of them has been in the state.
    reached: Mutex<HashMap<String, Instant>>,
    grown: watch::Sender<()>,
}

impl Tally {
    /// Counts the objects for which `is_reached` holds, and returns the names of those for which it begins to.
    pub(crate) fn start<K>(
        api: Api<K>,
        selected: watcher::Config,
        is_reached: impl Fn(&K) -> bool + Send + 'static,
    ) -> (Self, UnboundedReceiver<String>)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (names, reached) = unbounded();
        let state = Arc::new(State::default());
        let mut watching = JoinSet::new();
        let shared = Arc::clone(&state);
        watching.spawn(async move {
            let mut events = watcher(api, selected).default_backoff().boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        shared.see(object.name_any(), is_reached(&object), &names);
                    }
                    Ok(Event::Delete(object)) => shared.see(object.name_any(), false, &names),
                    // After an error the watcher restarts by itself, a little later.
                    Ok(Event::Init | Event::InitDone) | Err(_) => {}
                }
            }
        });
        (Self { state, _watching: watching }, reached)
    }

    /// Returns how many objects are in the state.
    pub(crate) fn reached(&self) -> usize {
        self.state.count().0
    }

    /// Waits until `count` objects are in the state. Returns when the last of them got there. Prints how many
    /// there are in the meantime; `what` describes them.
    pub(crate) async fn until(&self, what: &str, count: usize, deadline: Duration) -> Result<Instant> {
        let began = Instant::now();
        let mut grown = self.state.grown.subscribe();
        let all = async {
            let mut progress = interval(PROGRESS);
            progress.tick().await;
            loop {
                let (reached, last) = self.state.count();
                if reached >= count {
                    return last.context("nothing is counted");
                }
                tokio::select! {
                    changed = grown.changed() => changed?,
                    _ = progress.tick() => {
                        println!("  {reached} of {count} {what} after {:.0} s", began.elapsed().as_secs_f64());
                    }
                }
            }
        };
        timeout(deadline, all).await.with_context(|| format!("not within {deadline:?}: {count} {what}"))?
    }
}

impl State {
    fn see(&self, name: String, is_reached: bool, names: &UnboundedSender<String>) {
        let mut reached = self.reached.lock();
        if !is_reached {
            reached.remove(&name);
        } else if !reached.contains_key(&name) {
            reached.insert(name.clone(), Instant::now());
            // Not everybody who counts wants the names.
            drop(names.unbounded_send(name));
        }
        drop(reached);
        self.grown.send_replace(());
    }

    fn count(&self) -> (usize, Option<Instant>) {
        let reached = self.reached.lock();
        (reached.len(), reached.values().max().copied())
    }
}
