//! When the operator is killed, and how.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::spawn_blocking};

use crate::{
    fixture::Fixture,
    wire::{Exchange, Rule, Violation},
};

/// A pause between two writes in which the cluster moves on by itself: pods become ready, a deadline passes.
const PAUSE: Duration = Duration::from_millis(100);

/// When the operator is killed, by the number of its write since the start of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    /// Right before the write is forwarded.
    Before(usize),
    /// Right after the server has answered, before the operator gets the response.
    After(usize),
}

impl Moment {
    pub(super) fn number(self) -> usize {
        match self {
            Self::Before(number) | Self::After(number) => number,
        }
    }
}

/// Returns when to kill the operator in a story with these writes: after each of them, after one more, and
/// before those that followed a pause. Left out are writes after which the next one is as free to go on as
/// before them: the tags in the middle of a history entry, and what the status of a ModelRegistry counts.
pub(super) fn moments(writes: &[Exchange]) -> Vec<Moment> {
    let is_tag = |write: &Exchange| write.path.contains("/model-versions/set-tag");
    let is_count = |write: &Exchange| write.path.contains("modelregistries/");
    let in_middle = |index: usize| {
        let around = index.checked_sub(1).and_then(|before| writes.get(before..=index + 1));
        around.is_some_and(|around| around.iter().all(is_tag))
    };
    let counts =
        |number: usize| writes.get(number - 1).is_none_or(|write| !is_count(write) && !in_middle(number - 1));
    let waited = |pair: &[Exchange]| {
        let before = pair[0].ended.unwrap_or(pair[0].arrived);
        pair[1].arrived.saturating_duration_since(before) >= PAUSE
    };
    let pauses = writes.windows(2).zip(2..).filter(|(pair, _)| waited(pair));
    let before = pauses.map(|(_, number)| Moment::Before(number));
    (1..=writes.len() + 1).map(Moment::After).chain(before).filter(|moment| counts(moment.number())).collect()
}

/// A planned crash.
pub(super) struct Crash {
    over: Arc<(AtomicBool, Notify)>,
}

impl Crash {
    /// Plans to kill the operator at its n-th write after `base`. From that write on, none of its requests
    /// reaches a server.
    pub(super) fn prepare(fixture: &Fixture, base: usize, moment: Moment) -> Self {
        let over = Arc::new((AtomicBool::new(false), Notify::new()));
        let (killed, operator) = (over.clone(), fixture.operator.clone());
        let proxies = [fixture.kubernetes.clone(), fixture.registry.clone()];
        let kill = move |_| {
            for proxy in &proxies {
                proxy.refuse();
            }
            let (killed, operator) = (killed.clone(), operator.clone());
            async move {
                spawn_blocking(move || operator.kill()).await.unwrap().unwrap();
                killed.0.store(true, Ordering::SeqCst);
                killed.1.notify_one();
            }
        };
        let number = base + moment.number();
        for proxy in [&fixture.kubernetes, &fixture.registry] {
            let violation = match moment {
                Moment::Before(_) => Violation::before(kill.clone()),
                Moment::After(_) => Violation::after(kill.clone()),
            };
            proxy.place(Rule::when(move |exchange| exchange.write == Some(number), violation));
        }
        Self { over }
    }

    pub(super) async fn happened(&self) {
        self.over.1.notified().await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.0.load(Ordering::SeqCst)
    }
}
