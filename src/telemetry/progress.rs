//! The reconciles in progress: one that never ends is a bug, and the operator has to be restarted.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long a reconcile may take. Nothing in it waits for longer than a request to the API server.
const LONGEST: Duration = Duration::from_mins(3);

/// The reconciles in progress.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Running>);

#[derive(Debug, Default)]
struct Running {
    next: u64,
    /// In the order in which they began.
    reconciles: BTreeMap<u64, (Instant, String)>,
}

/// Marks the end of a reconcile when it is dropped.
#[must_use]
pub struct InProgress<'a>(&'a Progress, u64);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.0.lock().reconciles.remove(&self.1);
    }
}

impl Progress {
    /// Marks the beginning of a reconcile of `object`.
    pub fn begin(&self, object: impl FnOnce() -> String) -> InProgress<'_> {
        let began = (Instant::now(), object());
        let mut running = self.0.lock();
        running.next += 1;
        let number = running.next;
        running.reconciles.insert(number, began);
        InProgress(self, number)
    }

    /// Returns what does not end.
    #[must_use]
    pub fn hanging(&self) -> Option<String> {
        self.hanging_after(LONGEST)
    }

    fn hanging_after(&self, longest: Duration) -> Option<String> {
        let running = self.0.lock();
        let (began, object) = running.reconciles.values().next()?;
        let since = began.elapsed();
        (since >= longest)
            .then(|| format!("the reconcile of {object} has not ended for {} s", since.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reconcile_that_does_not_end_is_named() {
        let progress = Progress::default();
        let short = progress.begin(|| "ModelAlias \"a\"".to_owned());
        let long = progress.begin(|| "ModelAlias \"b\"".to_owned());
        drop(short);
        assert_eq!(progress.hanging(), None);
        let hanging = progress.hanging_after(Duration::ZERO);
        assert_eq!(hanging.as_deref(), Some("the reconcile of ModelAlias \"b\" has not ended for 0 s"));
        drop(long);
        assert_eq!(progress.hanging_after(Duration::ZERO), None);
    }
}
