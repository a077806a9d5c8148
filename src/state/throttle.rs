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
const QUARREL: Duration = Duration::from_secs(10);

/// How often the same is written in a quarrel before a person is told.
const OFTEN: u32 = 4;

/// What was done or failed a moment ago, by the ModelAlias's UID.
#[derive(Debug, Default)]
pub struct Haste {
    failed: Mutex<HashMap<String, (Instant, Wish)>>,
    written: Mutex<HashMap<String, Vec<Written>>>,
}

/// What tells one wish from another.
type Wish = (Option<i64>, Option<String>);

#[derive(Debug)]
struct Written {
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

fn wish(alias: &ModelAlias) -> Wish {
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

impl Haste {
    /// Notes that a pass failed.
    pub fn failed(&self, alias: &ModelAlias) {
        locked(&self.failed).insert(uid(alias), (Instant::now(), wish(alias)));
    }

    /// How long the next pass has to wait, because the last one failed a moment ago with the same wish.
    #[must_use]
    pub fn after_failure(&self, alias: &ModelAlias) -> Option<Duration> {
        let failed = locked(&self.failed);
        let (at, failed_wish) = failed.get(&uid(alias))?;
        left(*at).filter(|_| *failed_wish == wish(alias))
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
        written.retain(|written| written.at.elapsed() < QUARREL);
        let before = written.iter().position(|written| written.action == *action);
        let times = before.map_or(0, |before| written.swap_remove(before).times) + 1;
        written.push(Written { action: action.clone(), at: Instant::now(), times });
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
        let haste = Haste::default();
        assert_eq!(haste.after_failure(&alias(1)), None);
        haste.failed(&alias(1));
        assert!(haste.after_failure(&alias(1)).is_some_and(|left| left <= PAUSE));
        assert_eq!(haste.after_failure(&alias(2)), None);
    }

    #[test]
    fn the_same_write_waits_another_one_does_not_and_a_quarrel_is_told_once() {
        let haste = Haste::default();
        let route = |version| Action::Route(Traffic::One(Version::new(version).unwrap()));
        let told: Vec<bool> = (0..6).map(|_| haste.done("u", &route(2))).collect();
        assert_eq!(told, [false, false, false, true, false, false]);
        assert!(haste.before("u", &route(2)).is_some());
        assert_eq!(haste.before("u", &route(1)), None);
        haste.forget("u");
        assert_eq!(haste.before("u", &route(2)), None);
    }
}
