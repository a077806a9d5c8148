//! Rate limits: failed reconciles, and writes that another client reverts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::ResourceExt;
use tokio::sync::Notify;

use crate::{
    api::{ModelAlias, RETRY_ANNOTATION, names::Version},
    decide::Action,
};

/// The least time between a failed reconcile and the next one with the same desired state, and between two writes of which
/// another client reverted the first. A failure changes the status, and a reverted write changes the cluster: either would
/// begin the next reconcile at once.
const PAUSE: Duration = Duration::from_secs(1);

/// For how long reverted writes count as one contention.
const CONTENTION: Duration = Duration::from_secs(10);

/// How often the same is written in one contention before a person hears of it.
const OFTEN: u32 = 4;

/// What was written or failed a moment ago, by the UID of the ModelAlias.
#[derive(Debug, Default)]
pub struct Throttle {
    failed: Mutex<HashMap<String, (Instant, Revision)>>,
    written: Mutex<HashMap<String, Writes>>,
}

/// The desired state, as far as one differs from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    generation: Option<i64>,
    retry: Option<String>,
    target: Option<Version>,
}

impl Revision {
    /// What `alias` asks for; `target` is the version that this leads to.
    #[must_use]
    pub fn of(alias: &ModelAlias, target: Option<Version>) -> Self {
        let retry = alias.annotations().get(RETRY_ANNOTATION).cloned();
        Self { generation: alias.metadata.generation, retry, target }
    }

    fn is_asked_by(&self, alias: &ModelAlias) -> bool {
        *self == Self::of(alias, self.target)
    }
}

/// What was written for one desired state.
#[derive(Debug, Default)]
struct Writes {
    revision: Revision,
    newest: Vec<RecentWrite>,
    /// Ends a pause when something else is desired.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct RecentWrite {
    action: Action,
    at: Instant,
    times: u32,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn uid(alias: &ModelAlias) -> String {
    alias.uid().unwrap_or_default()
}

fn left(since: Instant) -> Option<Duration> {
    PAUSE.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
}

/// Whether an action writes to the cluster, where another client may write the same object.
fn can_be_reverted(action: &Action) -> bool {
    match action {
        Action::SetFinalizer { .. }
        | Action::Apply { .. }
        | Action::Scale { .. }
        | Action::Route(_)
        | Action::Delete { .. }
        | Action::Adopt(_)
        | Action::Protect(_)
        | Action::DeleteBudget
        | Action::DeleteService => true,
        Action::FillInReplicas { .. }
        | Action::SmokeTest { .. }
        | Action::SetAlias { .. }
        | Action::DeleteAlias { .. }
        | Action::Record { .. } => false,
    }
}

/// Whether a write itself replaces an earlier one, so that writing the earlier one again does not mean that somebody reverted it.
fn replaces(action: &Action, earlier: &Action) -> bool {
    match (action, earlier) {
        (Action::Route(_) | Action::DeleteService, Action::Route(_) | Action::DeleteService)
        | (Action::SetFinalizer { .. }, Action::SetFinalizer { .. }) => action != earlier,
        (Action::Protect(_) | Action::DeleteBudget, Action::Protect(_) | Action::DeleteBudget) => {
            action != earlier
        }
        // A change of size leaves what was applied before as it is.
        (Action::Scale { .. }, Action::Apply { .. }) => false,
        (
            Action::Apply { version, .. } | Action::Scale { version, .. } | Action::Delete { version },
            Action::Apply { version: other, .. }
            | Action::Scale { version: other, .. }
            | Action::Delete { version: other },
        ) => version == other && action != earlier,
        _ => false,
    }
}

impl Throttle {
    /// Remembers that a reconcile failed.
    pub fn failed(&self, alias: &ModelAlias, revision: Revision) {
        locked(&self.failed).insert(uid(alias), (Instant::now(), revision));
    }

    /// How long the next reconcile has to wait, because the last one failed a moment ago with the same desired state.
    #[must_use]
    pub fn after_failure(&self, alias: &ModelAlias, revision: &Revision) -> Option<Duration> {
        let failed = locked(&self.failed);
        let (at, failed_with) = failed.get(&uid(alias))?;
        left(*at).filter(|_| failed_with == revision)
    }

    /// Begins to write for a desired state. What was written for another one was not reverted by anybody.
    pub fn begin(&self, uid: &str, revision: &Revision) {
        let mut written = locked(&self.written);
        let writes = written.entry(uid.to_owned()).or_default();
        if writes.revision != *revision {
            writes.revision = revision.clone();
            writes.newest.clear();
        }
    }

    /// Ends a pause of `alias` when it asks for something else by now.
    pub fn changed(&self, alias: &ModelAlias) {
        if let Some(writes) = locked(&self.written).get(&uid(alias))
            && !writes.revision.is_asked_by(alias)
        {
            writes.changed.notify_waiters();
        }
    }

    /// Waits before a write that another client reverted a moment ago. Returns false when something else is desired by then: what
    /// was decided before is not written any more.
    pub async fn may_write(&self, uid: &str, action: &Action) -> bool {
        let Some((pause, changed)) = self.pause(uid, action) else { return true };
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = changed.notified() => false,
        }
    }

    fn pause(&self, uid: &str, action: &Action) -> Option<(Duration, Arc<Notify>)> {
        let written = locked(&self.written);
        let writes = written.get(uid)?;
        let before = writes.newest.iter().find(|written| written.action == *action)?;
        Some((left(before.at)?, writes.changed.clone()))
    }

    /// Remembers a write. Returns true when a person is to hear that another client keeps reverting it.
    pub fn done(&self, uid: &str, action: &Action) -> bool {
        if !can_be_reverted(action) {
            return false;
        }
        let mut written = locked(&self.written);
        let newest = &mut written.entry(uid.to_owned()).or_default().newest;
        newest.retain(|written| written.at.elapsed() < CONTENTION && !replaces(action, &written.action));
        let before = newest.iter().position(|written| written.action == *action);
        let times = before.map_or(0, |before| newest.swap_remove(before).times) + 1;
        newest.push(RecentWrite { action: action.clone(), at: Instant::now(), times });
        times == OFTEN
    }

    /// Forgets a ModelAlias that is gone.
    pub fn forget(&self, uid: &str) {
        locked(&self.failed).remove(uid);
        locked(&self.written).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Traffic;

    fn alias(generation: i64) -> ModelAlias {
        serde_yaml::from_str(&format!(
            "{{metadata: {{name: fraud, uid: u, generation: {generation}}}, spec: {{modelRef: {{name: fraud}}, alias: champion}}}}"
        ))
        .unwrap()
    }

    fn revision(generation: i64) -> Revision {
        Revision::of(&alias(generation), None)
    }

    fn version(number: u32) -> Version {
        Version::new(number).unwrap()
    }

    fn route(number: u32) -> Action {
        Action::Route(Traffic::One(version(number)))
    }

    fn is_paused(throttle: &Throttle, action: &Action) -> bool {
        throttle.pause("u", action).is_some()
    }

    #[test]
    fn a_failed_reconcile_waits_but_another_desired_state_does_not() {
        let throttle = Throttle::default();
        assert_eq!(throttle.after_failure(&alias(1), &revision(1)), None);
        throttle.failed(&alias(1), revision(1));
        assert!(throttle.after_failure(&alias(1), &revision(1)).is_some_and(|left| left <= PAUSE));
        assert_eq!(throttle.after_failure(&alias(2), &revision(2)), None);
        let chosen = Revision::of(&alias(1), Some(version(6)));
        assert_eq!(throttle.after_failure(&alias(1), &chosen), None, "a follower chose another version");
    }

    #[test]
    fn a_reverted_write_waits_and_is_reported_once() {
        let throttle = Throttle::default();
        throttle.begin("u", &revision(1));
        let reported: Vec<bool> = (0..6).map(|_| throttle.done("u", &route(2))).collect();
        assert_eq!(reported, [false, false, false, true, false, false]);
        assert!(is_paused(&throttle, &route(2)));
        assert!(!is_paused(&throttle, &route(1)));
        throttle.forget("u");
        assert!(!is_paused(&throttle, &route(2)));
    }

    #[test]
    fn moving_back_and_forth_at_somebodys_request_neither_waits_nor_is_reported() {
        let throttle = Throttle::default();
        for generation in 1..=20 {
            let action = route(1 + u32::try_from(generation % 2).unwrap());
            throttle.begin("u", &revision(generation));
            assert!(!is_paused(&throttle, &action), "generation {generation} waits");
            assert!(!throttle.done("u", &action), "generation {generation} is reported");
        }
    }

    #[test]
    fn a_follower_that_moves_back_and_forth_neither_waits_nor_is_reported() {
        let throttle = Throttle::default();
        for number in [1, 2].repeat(10) {
            throttle.begin("u", &Revision::of(&alias(1), Some(version(number))));
            assert!(!is_paused(&throttle, &route(number)));
            assert!(!throttle.done("u", &route(number)));
        }
    }

    #[test]
    fn our_own_way_there_and_back_was_reverted_by_nobody() {
        let throttle = Throttle::default();
        throttle.begin("u", &revision(1));
        for number in [1, 2].repeat(10) {
            assert!(!is_paused(&throttle, &route(number)), "a failover waits");
            assert!(!throttle.done("u", &route(number)));
        }
        let scale = |replicas| Action::Scale { version: version(1), replicas };
        for replicas in [1, 2].repeat(10) {
            assert!(!throttle.done("u", &scale(replicas)));
        }
        let reported: Vec<bool> = (0..4).map(|_| throttle.done("u", &scale(3))).collect();
        assert_eq!(reported, [false, false, false, true]);
    }

    #[tokio::test]
    async fn another_desired_state_ends_a_pause_at_once() {
        let throttle = Throttle::default();
        throttle.begin("u", &revision(1));
        throttle.done("u", &route(2));
        let paused = throttle.pause("u", &route(2)).unwrap();
        assert!(paused.0 <= PAUSE);
        let route = route(2);
        let waits = throttle.may_write("u", &route);
        let change = async {
            tokio::task::yield_now().await;
            throttle.changed(&alias(1));
            tokio::task::yield_now().await;
            throttle.changed(&alias(2));
        };
        let (may_write, ()) = tokio::join!(waits, change);
        assert!(!may_write, "the old decision is written");
    }
}
