//! Registrations of webhooks in registries. They run beside the reconciles: a slow registry must not hold up
//! the status of its own object, or that of others.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use crate::{api::condition::ReasonMessage, registry::polled::RegistryKey};

/// The last registration of a registry's webhook, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRegistration {
    /// What was desired. When it changes, that is registered at once.
    pub fingerprint: String,
    /// The id of the webhook that the registry has now, if known.
    pub id: Option<String>,
    /// Whether it succeeded, or why it did not.
    pub outcome: Result<(), ReasonMessage>,
    /// The time when it ended.
    pub at: Instant,
}

impl LastRegistration {
    /// Whether the same need not be attempted again yet: what succeeded is checked every `check`, what failed
    /// is retried every `retry`.
    #[must_use]
    pub fn is_recent(&self, now: Instant, check: Duration, retry: Duration) -> bool {
        now.saturating_duration_since(self.at) < if self.outcome.is_ok() { check } else { retry }
    }
}

/// The registrations, by registry: at most one at a time for each. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registrations(Arc<Mutex<HashMap<RegistryKey, Entry>>>);

#[derive(Debug, Default)]
struct Entry {
    last: Option<LastRegistration>,
    running: Option<Arc<()>>,
    is_asked: bool,
}

impl Entry {
    fn is_run_by(&self, run: &Arc<()>) -> bool {
        self.running.as_ref().is_some_and(|running| Arc::ptr_eq(running, run))
    }
}

/// What has to follow the end of a registration.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing: all is as it was.
    Unchanged,
    /// The object of the registry has to be reconciled.
    Changed,
    /// The object was deleted in the meantime: the webhook with this id has no owner.
    Orphaned(Option<String>),
}

impl Registrations {
    fn lock(&self) -> MutexGuard<'_, HashMap<RegistryKey, Entry>> {
        self.0.lock()
    }

    /// Returns the last registration of this registry's webhook.
    #[must_use]
    pub fn last(&self, key: &RegistryKey) -> Option<LastRegistration> {
        self.lock().get(key).and_then(|entry| entry.last.clone())
    }

    /// Forgets a deleted registry. Returns the id of its webhook, if known.
    #[must_use]
    pub fn remove(&self, key: &RegistryKey) -> Option<String> {
        self.lock().remove(key)?.last?.id
    }

    /// Begins a registration, unless one is running. The end of that one is [`Ended::Changed`] then. None
    /// begins for an object that does not exist any more: a reconcile may have begun before it was deleted,
    /// and its registry may have been [forgotten](Self::remove) since.
    #[must_use]
    pub fn begin(&self, key: &RegistryKey, exists: impl FnOnce() -> bool) -> Option<Running> {
        let mut entries = self.lock();
        if !exists() {
            return None;
        }
        let entry = entries.entry(key.clone()).or_default();
        if entry.running.is_some() {
            entry.is_asked = true;
            return None;
        }
        let run = Arc::new(());
        entry.running = Some(run.clone());
        Some(Running { registrations: self.clone(), key: key.clone(), run })
    }
}

/// A registration that runs. However it ends, it does not run any more.
#[derive(Debug)]
pub struct Running {
    registrations: Registrations,
    key: RegistryKey,
    run: Arc<()>,
}

impl Running {
    /// Remembers how it ended.
    #[must_use]
    pub fn end(self, last: LastRegistration) -> Ended {
        let mut entries = self.registrations.lock();
        let entry = entries.get_mut(&self.key).filter(|entry| entry.is_run_by(&self.run));
        let Some(entry) = entry else { return Ended::Orphaned(last.id) };
        let known = |last: &LastRegistration| (last.outcome.clone(), last.id.clone());
        let is_same = entry.last.as_ref().map(known).as_ref() == Some(&known(&last));
        entry.last = Some(last);
        if is_same && !entry.is_asked { Ended::Unchanged } else { Ended::Changed }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut entries = self.registrations.lock();
        if let Some(entry) = entries.get_mut(&self.key).filter(|entry| entry.is_run_by(&self.run)) {
            entry.running = None;
            entry.is_asked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::api::condition::Reason;

    fn key(name: &str) -> RegistryKey {
        RegistryKey::Object { namespace: "risk".to_owned(), name: name.to_owned() }
    }

    fn begin(registrations: &Registrations, name: &str) -> Option<Running> {
        registrations.begin(&key(name), || true)
    }

    fn ended(id: &str, outcome: Result<(), ReasonMessage>) -> LastRegistration {
        LastRegistration {
            fingerprint: "desired".to_owned(),
            id: Some(id.to_owned()),
            outcome,
            at: Instant::now(),
        }
    }

    fn late() -> Result<(), ReasonMessage> {
        Err(ReasonMessage::new(Reason::WebhookWaiting, "not in time"))
    }

    #[test]
    fn one_runs_at_a_time_and_holds_up_no_other_registry() {
        let registrations = Registrations::default();
        let running = begin(&registrations, "a").unwrap();
        assert!(begin(&registrations, "a").is_none());
        assert!(begin(&registrations, "b").is_some());
        assert_eq!(running.end(ended("1", Ok(()))), Ended::Changed);
        assert_eq!(registrations.last(&key("a")).unwrap().id.as_deref(), Some("1"));
        assert!(begin(&registrations, "a").is_some(), "the first one has ended");
    }

    #[test]
    fn an_end_is_told_only_if_something_changed_or_was_asked_for() {
        let registrations = Registrations::default();
        let run = |last, asks: bool| {
            let running = begin(&registrations, "a").unwrap();
            assert!(!asks || begin(&registrations, "a").is_none());
            running.end(last)
        };
        assert_eq!(run(ended("1", Ok(())), false), Ended::Changed, "it is the first");
        assert_eq!(run(ended("1", Ok(())), false), Ended::Unchanged);
        assert_eq!(run(ended("1", Ok(())), true), Ended::Changed, "it was asked for");
        assert_eq!(run(ended("1", Ok(())), false), Ended::Unchanged, "the question was answered");
        assert_eq!(run(ended("1", late()), false), Ended::Changed);
        assert_eq!(run(ended("2", late()), false), Ended::Changed);
    }

    #[test]
    fn a_webhook_registered_for_an_object_that_was_deleted_meanwhile_has_no_owner() {
        let registrations = Registrations::default();
        let running = begin(&registrations, "a").unwrap();
        assert_eq!(registrations.remove(&key("a")), None);
        assert_eq!(running.end(ended("1", Ok(()))), Ended::Orphaned(Some("1".to_owned())));
        assert!(registrations.lock().is_empty(), "nothing is kept for a deleted registry");
    }

    #[test]
    fn one_for_an_object_that_was_deleted_is_not_taken_for_that_of_the_next_object() {
        let registrations = Registrations::default();
        let first = begin(&registrations, "a").unwrap();
        assert_eq!(registrations.remove(&key("a")), None);
        let second = begin(&registrations, "a").unwrap();
        assert_eq!(first.end(ended("1", Ok(()))), Ended::Orphaned(Some("1".to_owned())));
        assert!(begin(&registrations, "a").is_none(), "the second one still runs");
        assert_eq!(second.end(ended("2", Ok(()))), Ended::Changed);
        assert_eq!(registrations.remove(&key("a")).as_deref(), Some("2"));
    }

    #[test]
    fn none_begins_for_an_object_that_does_not_exist() {
        let registrations = Registrations::default();
        assert!(registrations.begin(&key("a"), || false).is_none());
        assert!(registrations.lock().is_empty(), "nothing is kept for it");
    }

    #[test]
    fn one_that_panics_does_not_block_the_next() {
        let registrations = Registrations::default();
        drop(begin(&registrations, "a"));
        assert!(begin(&registrations, "a").is_some());
    }

    #[test]
    fn a_failure_is_retried_sooner_than_a_success_is_checked() {
        const CHECK: Duration = Duration::from_mins(10);
        const RETRY: Duration = Duration::from_secs(30);
        for (outcome, recent) in [(Ok(()), true), (late(), false)] {
            let last = ended("1", outcome);
            assert!(last.is_recent(last.at + RETRY / 2, CHECK, RETRY));
            assert_eq!(last.is_recent(last.at + 2 * RETRY, CHECK, RETRY), recent);
            assert!(!last.is_recent(last.at + CHECK, CHECK, RETRY));
        }
    }
}
