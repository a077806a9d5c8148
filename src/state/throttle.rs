//! What must not be done again and again as fast as it can be: a pass that fails, and a write that somebody else undoes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::ResourceExt;

use crate::{
    api::{ModelAlias, RETRY_ANNOTATION},
    decide::Action,
};

/// How long at least lies between a pass that failed and the next one with the same wish, and between two writes of the same.
/// A failure changes the status, and what somebody else undoes changes the cluster: either would begin the next pass at once.
const PAUSE: Duration = Duration::from_secs(1);

/// For how long a write counts as part of the same quarrel.
const CONTENTION: Duration = Duration::from_secs(10);

/// How often the same is written in a quarrel before a person is told.
const OFTEN: u32 = 4;

/// What was done or failed a moment ago, by the ModelAlias's UID.
#[derive(Debug, Default)]
pub struct Throttle {
    failed: Mutex<HashMap<String, (Instant, Revision)>>,
    written: Mutex<HashMap<String, Vec<RecentWrite>>>,
}

/// What tells one wish from another.
type Revision = (Option<i64>, Option<String>);

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

fn revision(alias: &ModelAlias) -> Revision {
    (alias.metadata.generation, alias.annotations().get(RETRY_ANNOTATION).cloned())
}

fn left(since: Instant) -> Option<Duration> {
    PAUSE.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
}

/// Whether an action writes to the cluster, where somebody else may write the same object.
fn is_undone_by_others(action: &Action) -> bool {
    match action {
        Action::SetFinalizer { .. }
        | Action::Apply { .. }
        | Action::Scale { .. }
        | Action::Route(_)
        | Action::Delete { .. }
        | Action::DeleteService => true,
        Action::SmokeTest { .. }
        | Action::SetAlias { .. }
        | Action::DeleteAlias { .. }
        | Action::Record { .. } => false,
    }
}

impl Throttle {
    /// Notes that a pass failed.
    pub fn failed(&self, alias: &ModelAlias) {
        locked(&self.failed).insert(uid(alias), (Instant::now(), revision(alias)));
    }

    /// How long the next pass has to wait, because the last one failed a moment ago with the same wish.
    #[must_use]
    pub fn after_failure(&self, alias: &ModelAlias) -> Option<Duration> {
        let failed = locked(&self.failed);
        let (at, failed_revision) = failed.get(&uid(alias))?;
        left(*at).filter(|_| *failed_revision == revision(alias))
    }

    /// How long an action has to wait, because the same was done a moment ago.
    #[must_use]
    pub fn before(&self, uid: &str, action: &Action) -> Option<Duration> {
        let written = locked(&self.written);
        left(written.get(uid)?.iter().find(|written| written.action == *action)?.at)
    }

    /// Notes that an action was done. Answers true when it is time to tell that somebody else goes on undoing it.
    pub fn done(&self, uid: &str, action: &Action) -> bool {
        if !is_undone_by_others(action) {
            return false;
        }
        let mut written = locked(&self.written);
        let written = written.entry(uid.to_owned()).or_default();
        written.retain(|written| written.at.elapsed() < CONTENTION);
        let before = written.iter().position(|written| written.action == *action);
        let times = before.map_or(0, |before| written.swap_remove(before).times) + 1;
        written.push(RecentWrite { action: action.clone(), at: Instant::now(), times });
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
    use crate::{api::names::Version, decide::Traffic};

    fn alias(generation: i64) -> ModelAlias {
        serde_yaml::from_str(&format!(
            "{{metadata: {{name: fraud, uid: u, generation: {generation}}}, spec: {{modelRef: {{name: fraud}}, alias: champion}}}}"
        ))
        .unwrap()
    }

    #[test]
    fn a_pass_that_failed_waits_but_another_wish_does_not() {
        let throttle = Throttle::default();
        assert_eq!(throttle.after_failure(&alias(1)), None);
        throttle.failed(&alias(1));
        assert!(throttle.after_failure(&alias(1)).is_some_and(|left| left <= PAUSE));
        assert_eq!(throttle.after_failure(&alias(2)), None);
    }

    #[test]
    fn the_same_write_waits_another_one_does_not_and_a_quarrel_is_told_once() {
        let throttle = Throttle::default();
        let route = |version| Action::Route(Traffic::One(Version::new(version).unwrap()));
        let reported: Vec<bool> = (0..6).map(|_| throttle.done("u", &route(2))).collect();
        assert_eq!(reported, [false, false, false, true, false, false]);
        assert!(throttle.before("u", &route(2)).is_some());
        assert_eq!(throttle.before("u", &route(1)), None);
        throttle.forget("u");
        assert_eq!(throttle.before("u", &route(2)), None);
    }
}
