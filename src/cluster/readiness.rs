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
/// date. Without what is only useful, everything else goes on.
#[derive(Debug, Default)]
pub struct Readiness {
    watches: Mutex<BTreeMap<&'static str, Watch>>,
    all_read: tokio::sync::watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Watch {
    is_read: bool,
    /// Whether nothing depends on it.
    is_optional: bool,
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

impl Denial {
    fn is_lasting(&self) -> bool {
        self.first.elapsed() >= LASTING && self.last.elapsed() < RECOVERED
    }
}

impl Watch {
    /// Whether it is denied, so that what was read may be out of date. One that has delivered something
    /// before may only be about to get a new role.
    fn is_denied(&self) -> bool {
        self.denial.as_ref().is_some_and(|denial| !self.is_read || denial.is_lasting())
    }

    fn is_done_without(&self) -> bool {
        self.is_optional && self.is_denied()
    }
}

impl Readiness {
    fn watches(&self) -> MutexGuard<'_, BTreeMap<&'static str, Watch>> {
        self.watches.lock()
    }

    /// Requires that `what` is read before anything is decided.
    pub fn expect(&self, what: &'static str) {
        self.watches().entry(what).or_default();
    }

    /// Requires that `what` is read before anything is decided, unless the API server denies it.
    pub fn expect_if_allowed(&self, what: &'static str) {
        self.watches().entry(what).or_default().is_optional = true;
    }

    /// Marks `what` as read in full. Returns whether everything else was decided without it until now.
    pub fn read(&self, what: &'static str) -> bool {
        let mut watches = self.watches();
        let watch = watches.entry(what).or_default();
        let is_late = watch.is_optional && (!watch.is_read || watch.is_denied()) && *self.all_read.borrow();
        *watch = Watch { is_read: true, is_optional: watch.is_optional, ..Watch::default() };
        self.look_around(&watches);
        is_late
    }

    fn look_around(&self, watches: &BTreeMap<&'static str, Watch>) {
        if watches.values().all(|watch| watch.is_read || watch.is_done_without()) {
            self.all_read.send_replace(true);
        }
    }

    /// Whether `what` has been read, and its watch is not denied.
    #[must_use]
    pub fn knows(&self, what: &'static str) -> bool {
        self.watches().get(what).is_some_and(|watch| watch.is_read && !watch.is_denied())
    }

    /// Returns the last error of the watch of `what`.
    #[must_use]
    pub fn error_of(&self, what: &'static str) -> Option<String> {
        let watches = self.watches();
        let watch = watches.get(what)?;
        watch.denial.as_ref().map(|denial| denial.message.clone()).or_else(|| watch.error.clone())
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
        self.look_around(&watches);
        is_lasting && !is_reported
    }

    /// Returns what has not been read yet, with the error if there is one.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        let describe = |(what, watch): (&&str, &Watch)| match &watch.error {
            Some(error) => format!("{what} ({error})"),
            None => (*what).to_owned(),
        };
        let waits = |(_, watch): &(&&str, &Watch)| !watch.is_read && !watch.is_done_without();
        self.watches().iter().filter(waits).map(describe).collect()
    }

    /// Returns what Laurel does without, with the next step.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let describe = |(what, watch): (&&'static str, &Watch)| {
            let denial = watch.denial.as_ref().filter(|_| watch.is_done_without())?;
            Some(format!(
                "{what} are not managed, because Laurel cannot watch them ({}); everything else goes on. Where the API \
                 server has them, grant its role get, list, watch, create, patch and delete for them, as the chart of \
                 this release does; where it has not, install their CRD",
                denial.message
            ))
        };
        self.watches().iter().filter_map(describe).collect()
    }

    /// Returns why the cache of the cluster may be out of date.
    #[must_use]
    pub fn blind(&self) -> Option<ReasonMessage> {
        let watches = self.watches();
        let (what, denial) = watches.iter().find_map(|(what, watch)| {
            let denial = watch.denial.as_ref().filter(|_| !watch.is_optional)?;
            denial.is_lasting().then_some((what, denial))
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

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    /// Longer ago than a role that is being replaced takes.
    fn age(readiness: &Readiness, what: &str) {
        let mut watches = readiness.watches();
        let denial = watches.get_mut(what).unwrap().denial.as_mut().unwrap();
        denial.first = Instant::now().checked_sub(LASTING).unwrap();
    }

    fn is_reached(readiness: &Readiness) -> bool {
        *readiness.all_read.borrow()
    }

    #[test]
    fn what_may_not_be_read_is_done_without_if_nothing_depends_on_it() {
        let readiness = Readiness::default();
        readiness.expect("Pods");
        readiness.expect_if_allowed("Budgets");
        assert!(!readiness.read("Pods") && !is_reached(&readiness), "it may be allowed");
        readiness.failed("Budgets", "not now".to_owned(), false);
        assert_eq!(readiness.waiting_for(), ["Budgets (not now)"], "it may be allowed");
        readiness.failed("Budgets", "forbidden".to_owned(), true);
        assert!(is_reached(&readiness) && !readiness.knows("Budgets"));
        assert_eq!(readiness.waiting_for(), [] as [String; 0]);
        age(&readiness, "Budgets");
        assert_eq!(readiness.blind(), None, "nothing depends on it");
        let [missing] = &readiness.missing()[..] else { panic!("{:?}", readiness.missing()) };
        for part in ["Budgets", "forbidden", "list, watch"] {
            assert!(missing.contains(part), "{part:?} is missing: {missing}");
        }
        assert!(readiness.read("Budgets"), "what was decided without it is decided again");
        assert!(readiness.knows("Budgets") && readiness.missing().is_empty());
        assert!(!readiness.read("Budgets"), "it was known");
    }

    #[test]
    fn a_permission_that_is_taken_away_makes_what_was_read_unknown_after_a_while() {
        let readiness = Readiness::default();
        readiness.expect("Pods");
        readiness.expect_if_allowed("Budgets");
        for what in ["Pods", "Budgets"] {
            assert!(!readiness.read(what));
            readiness.failed(what, "forbidden".to_owned(), true);
        }
        assert!(
            readiness.knows("Budgets") && readiness.blind().is_none(),
            "a role may be about to be replaced"
        );
        age(&readiness, "Budgets");
        assert!(!readiness.knows("Budgets") && readiness.blind().is_none());
        age(&readiness, "Pods");
        let cause = readiness.blind().expect("pods decide where traffic goes");
        assert!(cause.message.contains("Pods"), "{}", cause.message);
        assert!(readiness.read("Budgets"));
    }
}
