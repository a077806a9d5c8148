//! Whether enough is known of the cluster to decide anything.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::api::condition::{Reason, ReasonMessage};

/// A watch that has been refused for so long is not just a role that is being replaced.
const PATIENCE: Duration = Duration::from_secs(10);
/// A watch that was not refused for so long runs again. It says nothing when it does; it is tried far more often than this.
const RECOVERED: Duration = Duration::from_secs(20);

/// What has been read from the cluster, and what Laurel is not let see.
///
/// Nothing is decided before everything has been read, nor while a watch is refused: what is known may be out of date.
#[derive(Debug, Default)]
pub struct Readiness {
    watches: Mutex<BTreeMap<&'static str, Watch>>,
    all_read: tokio::sync::watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Watch {
    is_read: bool,
    /// Why it failed last, since something was seen of it.
    failure: Option<String>,
    error_message: Option<Denial>,
}

#[derive(Debug)]
struct Denial {
    first: Instant,
    last: Instant,
    said: String,
    /// Whether it was told that it lasts.
    is_reported: bool,
}

impl Readiness {
    fn watches(&self) -> MutexGuard<'_, BTreeMap<&'static str, Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is decided until `what` has been read.
    pub fn expect(&self, what: &'static str) {
        self.watches().entry(what).or_default();
    }

    /// `what` has been read in full.
    pub fn read(&self, what: &'static str) {
        let mut watches = self.watches();
        *watches.entry(what).or_default() = Watch { is_read: true, ..Watch::default() };
        if watches.values().all(|watch| watch.is_read) {
            self.all_read.send_replace(true);
        }
    }

    /// Something of `what` was seen.
    pub fn seen(&self, what: &'static str) {
        if let Some(watch) = self.watches().get_mut(what) {
            watch.failure = None;
            watch.error_message = None;
        }
    }

    /// The watch of `what` failed; `is_refused` when the API server does not let Laurel watch it. Answers true once, when a
    /// refusal begins to count as lasting.
    pub fn failed(&self, what: &'static str, said: String, is_refused: bool) -> bool {
        let now = Instant::now();
        let mut watches = self.watches();
        let watch = watches.entry(what).or_default();
        watch.failure = Some(said.clone());
        if !is_refused {
            return false;
        }
        let known = watch.error_message.as_ref().filter(|known| now.duration_since(known.last) < RECOVERED);
        let (first, is_reported) = known.map_or((now, false), |known| (known.first, known.is_reported));
        let is_lasting = now.duration_since(first) >= PATIENCE;
        watch.error_message = Some(Denial { first, last: now, said, is_reported: is_lasting });
        is_lasting && !is_reported
    }

    /// What has not been read yet, and why where that is known.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        let tell = |(what, watch): (&&str, &Watch)| match &watch.failure {
            Some(said) => format!("{what} ({said})"),
            None => (*what).to_owned(),
        };
        self.watches().iter().filter(|(_, watch)| !watch.is_read).map(tell).collect()
    }

    /// Why what is known of the cluster may be out of date.
    #[must_use]
    pub fn blind(&self) -> Option<ReasonMessage> {
        let watches = self.watches();
        let (what, error_message) = watches.iter().find_map(|(what, watch)| {
            let error_message = watch.error_message.as_ref()?;
            let is_lasting =
                error_message.first.elapsed() >= PATIENCE && error_message.last.elapsed() < RECOVERED;
            is_lasting.then_some((what, error_message))
        })?;
        let message = format!(
            "Laurel may not watch {what}: {}; what it knows of them may be out of date, so nothing is changed until it may: \
             compare Laurel's role with the chart's",
            error_message.said
        );
        Some(ReasonMessage::new(Reason::ApplyForbidden, message))
    }

    /// Resolves once everything has been read.
    pub async fn reached(&self) {
        let mut all_read = self.all_read.subscribe();
        // The sender lives as long as this object does.
        let _ = all_read.wait_for(|read| *read).await;
    }
}
