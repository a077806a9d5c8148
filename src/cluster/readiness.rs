//! Whether enough of the cluster has been read to decide anything.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::api::condition::{Reason, ReasonMessage};
use parking_lot::{Mutex, MutexGuard};

/// A watch denied for this long is not just a role that is being replaced.
const LASTING: Duration = Duration::from_secs(10);
/// A watch not denied for this long is running again. A running watch may be silent, but a denied one is
/// retried far more often than this.
const RECOVERED: Duration = Duration::from_secs(20);

/// Which kinds have been read from the cluster, and which watches are denied.
///
/// Nothing is decided before everything has been read, nor while a watch is denied: the cache may be out of
/// date.
#[derive(Debug, Default)]
pub struct Readiness {
    watches: Mutex<BTreeMap<&'static str, Watch>>,
    all_read: tokio::sync::watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Watch {
    is_read: bool,
    /// The last error since the watch delivered something.
    error: Option<String>,
    denial: Option<Denial>,
}

#[derive(Debug)]
struct Denial {
    first: Instant,
    last: Instant,
    message: String,
    /// Whether it was reported as lasting.
    is_reported: bool,
}

impl Readiness {
    fn watches(&self) -> MutexGuard<'_, BTreeMap<&'static str, Watch>> {
        self.watches.lock()
    }

    /// Requires that `what` is read before anything is decided.
    pub fn expect(&self, what: &'static str) {
        self.watches().entry(what).or_default();
    }

    /// Marks `what` as read in full.
    pub fn read(&self, what: &'static str) {
        let mut watches = self.watches();
        *watches.entry(what).or_default() = Watch { is_read: true, ..Watch::default() };
        if watches.values().all(|watch| watch.is_read) {
            self.all_read.send_replace(true);
        }
    }

    /// Marks the watch of `what` as working: it delivered something.
    pub fn seen(&self, what: &'static str) {
        if let Some(watch) = self.watches().get_mut(what) {
            watch.error = None;
            watch.denial = None;
        }
    }

    /// Remembers that the watch of `what` failed; `is_denied` if the API server does not allow it. Returns
    /// true once, when a denial begins to count as lasting.
    pub fn failed(&self, what: &'static str, message: String, is_denied: bool) -> bool {
        let now = Instant::now();
        let mut watches = self.watches();
        let watch = watches.entry(what).or_default();
        watch.error = Some(message.clone());
        if !is_denied {
            return false;
        }
        let known = watch.denial.as_ref().filter(|known| now.duration_since(known.last) < RECOVERED);
        let (first, is_reported) = known.map_or((now, false), |known| (known.first, known.is_reported));
        let is_lasting = now.duration_since(first) >= LASTING;
        watch.denial = Some(Denial { first, last: now, message, is_reported: is_lasting });
        is_lasting && !is_reported
    }

    /// Returns what has not been read yet, with the error if there is one.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        let describe = |(what, watch): (&&str, &Watch)| match &watch.error {
            Some(error) => format!("{what} ({error})"),
            None => (*what).to_owned(),
        };
        self.watches().iter().filter(|(_, watch)| !watch.is_read).map(describe).collect()
    }

    /// Returns why the cache of the cluster may be out of date.
    #[must_use]
    pub fn blind(&self) -> Option<ReasonMessage> {
        let watches = self.watches();
        let (what, denial) = watches.iter().find_map(|(what, watch)| {
            let denial = watch.denial.as_ref()?;
            let is_lasting = denial.first.elapsed() >= LASTING && denial.last.elapsed() < RECOVERED;
            is_lasting.then_some((what, denial))
        })?;
        let message = format!(
            "Laurel is not allowed to watch {what}: {}; its view of them may be out of date, so nothing is \
             changed until access is restored; compare Laurel's role with the chart's",
            denial.message
        );
        Some(ReasonMessage::new(Reason::ApplyForbidden, message))
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        *self.all_read.borrow()
    }

    /// Resolves once everything has been read.
    pub async fn reached(&self) {
        let mut all_read = self.all_read.subscribe();
        // The sender lives as long as this object does.
        let _ = all_read.wait_for(|read| *read).await;
    }
}
