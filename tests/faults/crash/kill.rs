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

/// A pause between two writes in which the world moves on by itself: pods become ready, a deadline passes.
const PAUSE: Duration = Duration::from_millis(100);

/// When the operator is killed, by the number of its write since the story began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    /// Right before the write is sent on.
    Before(usize),
    /// Right after the server has answered, before the operator hears it.
    After(usize),
}

impl Moment {
    pub(super) fn number(self) -> usize {
        match self {
            Self::Before(number) | Self::After(number) => number,
        }
    }
}

/// When to kill the operator in a story that had these writes: after each of them, after one more, and before
/// those that it had waited for.
pub(super) fn moments(writes: &[Exchange]) -> Vec<Moment> {
    let waited = |pair: &[Exchange]| {
        let before = pair[0].ended.unwrap_or(pair[0].arrived);
        pair[1].arrived.saturating_duration_since(before) >= PAUSE
    };
    let pauses = writes.windows(2).zip(2..).filter(|(pair, _)| waited(pair));
    let before = pauses.map(|(_, number)| Moment::Before(number));
    (1..=writes.len() + 1).map(Moment::After).chain(before).collect()
}

/// A crash that is to happen.
pub(super) struct Crash {
    over: Arc<(AtomicBool, Notify)>,
}

impl Crash {
    /// Lets the operator be killed at its n-th write after `base` of them. From that write on nothing of it
    /// reaches a server.
    pub(super) fn prepare(fixture: &Fixture, base: usize, moment: Moment) -> Self {
        let over = Arc::new((AtomicBool::new(false), Notify::new()));
        let (noted, operator) = (over.clone(), fixture.operator.clone());
        let proxies = [fixture.kubernetes.clone(), fixture.registry.clone()];
        let kill = move |_| {
            for proxy in &proxies {
                proxy.refuse();
            }
            let (noted, operator) = (noted.clone(), operator.clone());
            async move {
                spawn_blocking(move || operator.kill()).await.unwrap().unwrap();
                noted.0.store(true, Ordering::SeqCst);
                noted.1.notify_one();
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
