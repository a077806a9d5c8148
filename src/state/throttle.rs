//! Rate limits: failed reconciles, and writes that another client reverts.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kube::ResourceExt;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    api::{ModelAlias, RETRY_ANNOTATION, condition::ReasonMessage, names::Version},
    decide::Action,
};

/// Minimum time between a failed reconcile and the next one for the same desired state, and between two
/// writes of which another client reverted the first. A failure changes the status, and a reverted write
/// changes the cluster: either would trigger the next reconcile at once.
const PAUSE: Duration = Duration::from_secs(1);

/// How long reverted writes count as one contention.
const CONTENTION: Duration = Duration::from_secs(10);

/// How many times the same write is repeated in one contention before it is reported.
const OFTEN: u32 = 4;

/// The longest time between two times that the route of somebody else is taken over, because another client
/// keeps putting its manifest back.
const LONGEST: Duration = Duration::from_mins(10);

/// After this time without that, the next one counts as the first.
const FORGOTTEN: Duration = Duration::from_mins(30);

/// What was written or failed a moment ago, by the UID of the ModelAlias.
#[derive(Debug, Default)]
pub struct Throttle {
    failed: Mutex<HashMap<String, (Instant, Revision)>>,
    written: Mutex<HashMap<String, Writes>>,
    rejected: Mutex<HashMap<String, RejectedWrite>>,
}

/// A write of the PodDisruptionBudget that failed. Nothing depends on it, so it does not bring about another
/// reconcile soon, and reconciles for another reason do not repeat it each time.
#[derive(Debug)]
struct RejectedWrite {
    action: Action,
    cause: ReasonMessage,
    at: Instant,
}

/// Returns how long a failed write of the PodDisruptionBudget waits for the next attempt.
#[must_use]
pub fn retry_after(cause: &ReasonMessage) -> Duration {
    if cause.reason.is_transient() { Duration::from_secs(5) } else { Duration::from_mins(1) }
}

/// Identifies a desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    generation: Option<i64>,
    retry: Option<String>,
    target: Option<Version>,
}

impl Revision {
    /// Returns the desired state of `alias`; `target` is the version that it leads to.
    #[must_use]
    pub fn of(alias: &ModelAlias, target: Option<Version>) -> Self {
        let retry = alias.annotations().get(RETRY_ANNOTATION).cloned();
        Self { generation: alias.metadata.generation, retry, target }
    }
}

/// The writes for one desired state.
#[derive(Debug, Default)]
struct Writes {
    revision: Revision,
    newest: Vec<RecentWrite>,
    taken_over: Option<TakenOver>,
}

/// How often the route of somebody else was taken over, and when last. Each time costs several writes, so the
/// time between them doubles.
#[derive(Clone, Copy, Debug)]
struct TakenOver {
    at: Instant,
    times: u32,
}

impl TakenOver {
    fn pause(self) -> Duration {
        let doublings = self.times.saturating_sub(1).min(16);
        PAUSE.saturating_mul(1 << doublings).min(LONGEST)
    }

    fn left(self) -> Option<Duration> {
        self.pause().checked_sub(self.at.elapsed()).filter(|left| !left.is_zero())
    }
}

#[derive(Debug)]
struct RecentWrite {
    action: Action,
    at: Instant,
    times: u32,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

fn uid(alias: &ModelAlias) -> String {
    alias.uid().unwrap_or_default()
}

fn left(since: Instant) -> Option<Duration> {
    PAUSE.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
}

/// Whether an action writes to an object in the cluster that another client may write as well.
fn can_be_reverted(action: &Action) -> bool {
    match action {
        Action::SetFinalizer { .. }
        | Action::Apply { .. }
        | Action::Scale { .. }
        | Action::Route(_)
        | Action::Share(_)
        | Action::DeleteRoute
        | Action::ApplyVersionService { .. }
        | Action::DeleteVersionService { .. }
        | Action::Delete { .. }
        | Action::Adopt(_)
        | Action::Protect(_)
        | Action::DeleteBudget
        | Action::DeleteService => true,
        Action::FillInReplicas { .. }
        | Action::SmokeTest { .. }
        | Action::SetAlias { .. }
        | Action::DeleteAlias { .. }
        | Action::WriteAudit { .. } => false,
    }
}

/// Whether a write replaces an earlier one, so that repeating the earlier one does not mean that somebody
/// reverted it.
fn replaces(action: &Action, earlier: &Action) -> bool {
    match (action, earlier) {
        (Action::Route(_) | Action::DeleteService, Action::Route(_) | Action::DeleteService)
        | (Action::SetFinalizer { .. }, Action::SetFinalizer { .. })
        | (Action::Protect(_) | Action::DeleteBudget, Action::Protect(_) | Action::DeleteBudget)
        | (Action::Share(_) | Action::DeleteRoute, Action::Share(_) | Action::DeleteRoute) => {
            action != earlier
        }
        // A change of size does not replace an applied object.
        (Action::Scale { .. }, Action::Apply { .. }) => false,
        (
            Action::Apply { version, .. } | Action::Scale { version, .. } | Action::Delete { version },
            Action::Apply { version: other, .. }
            | Action::Scale { version: other, .. }
            | Action::Delete { version: other },
        )
        | (
            Action::ApplyVersionService { version } | Action::DeleteVersionService { version },
            Action::ApplyVersionService { version: other } | Action::DeleteVersionService { version: other },
        ) => version == other && action != earlier,
        _ => false,
    }
}

impl Throttle {
    /// Remembers that a reconcile failed.
    pub fn failed(&self, alias: &ModelAlias, revision: Revision) {
        locked(&self.failed).insert(uid(alias), (Instant::now(), revision));
    }

    /// Returns how long the next reconcile has to wait because the last one for the same desired state failed
    /// a moment ago.
    #[must_use]
    pub fn after_failure(&self, alias: &ModelAlias, revision: &Revision) -> Option<Duration> {
        let failed = locked(&self.failed);
        let (at, failed_with) = failed.get(&uid(alias))?;
        left(*at).filter(|_| failed_with == revision)
    }

    /// Begins writes for a desired state, and drops those for another one: Laurel itself replaces them.
    pub fn begin(&self, uid: &str, revision: &Revision) {
        let mut written = locked(&self.written);
        let writes = written.entry(uid.to_owned()).or_default();
        if writes.revision != *revision {
            writes.revision = revision.clone();
            writes.newest.clear();
            writes.taken_over = None;
        }
    }

    /// How long a write has to wait, because another client reverted the same one a moment ago.
    #[must_use]
    pub fn pause(&self, uid: &str, action: &Action) -> Option<Duration> {
        let written = locked(&self.written);
        if action.takes_over_route() {
            return written.get(uid)?.taken_over?.left();
        }
        let before = written.get(uid)?.newest.iter().find(|written| written.action == *action)?;
        left(before.at)
    }

    /// Remembers a write. Returns true if it should be reported that another client keeps reverting it.
    pub fn done(&self, uid: &str, action: &Action) -> bool {
        if !can_be_reverted(action) {
            return false;
        }
        let mut written = locked(&self.written);
        let writes = written.entry(uid.to_owned()).or_default();
        if action.takes_over_route() {
            let known = writes.taken_over.filter(|known| known.at.elapsed() < FORGOTTEN);
            let times = known.map_or(0, |known| known.times).saturating_add(1);
            writes.taken_over = Some(TakenOver { at: Instant::now(), times });
            return times == OFTEN;
        }
        let newest = &mut writes.newest;
        newest.retain(|written| written.at.elapsed() < CONTENTION && !replaces(action, &written.action));
        let before = newest.iter().position(|written| written.action == *action);
        let times = before.map_or(0, |before| newest.swap_remove(before).times) + 1;
        newest.push(RecentWrite { action: action.clone(), at: Instant::now(), times });
        times == OFTEN
    }

    /// Remembers why a write of the PodDisruptionBudget failed.
    pub fn rejected(&self, uid: &str, action: &Action, cause: &ReasonMessage) {
        if action.is_about_budget() {
            let rejected = RejectedWrite { action: action.clone(), cause: cause.clone(), at: Instant::now() };
            locked(&self.rejected).insert(uid.to_owned(), rejected);
        }
    }

    /// Returns why a write failed, if it is too early to try it again.
    #[must_use]
    pub fn rejection(&self, uid: &str, action: &Action) -> Option<ReasonMessage> {
        let rejected = locked(&self.rejected);
        let known = rejected.get(uid).filter(|known| known.action == *action)?;
        (known.at.elapsed() < retry_after(&known.cause)).then(|| known.cause.clone())
    }

    /// Forgets a ModelAlias that is gone.
    pub fn forget(&self, uid: &str) {
        locked(&self.failed).remove(uid);
        locked(&self.written).remove(uid);
        locked(&self.rejected).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::{
        api::condition::Reason,
        decide::{Shares, Traffic},
    };

    fn alias(generation: i64) -> ModelAlias {
        serde_yaml::from_str(&format!(
            "{{metadata: {{name: fraud, uid: u, generation: {generation}}}, spec: {{modelRef: {{name: \
             fraud}}, alias: champion}}}}"
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
    fn a_route_that_is_put_back_again_and_again_is_taken_over_ever_more_rarely() {
        let throttle = Throttle::default();
        let entering = Action::Share(Shares::led_by_service([(version(1), Shares::LEAST)], BTreeMap::new()));
        let leading = Action::Share(Shares::led_by(version(1), []));
        throttle.begin("u", &revision(1));
        let mut pauses = Vec::new();
        let mut reported = Vec::new();
        for _ in 0..20 {
            reported.push(throttle.done("u", &entering));
            throttle.done("u", &leading);
            pauses.push(throttle.pause("u", &entering).unwrap());
            assert!(!is_paused(&throttle, &route(2)), "nothing else waits");
        }
        assert_eq!(reported.iter().position(|it| *it), Some(3));
        assert_eq!(reported.iter().filter(|it| **it).count(), 1);
        assert!(pauses.windows(2).all(|pair| pair[0] < pair[1] || pair[1] > LONGEST / 2), "{pauses:?}");
        assert!(pauses[0] <= PAUSE && pauses[19] <= LONGEST && pauses[19] > LONGEST / 2, "{pauses:?}");
        throttle.begin("u", &revision(2));
        assert!(!is_paused(&throttle, &entering), "another desired state is no contention");
    }

    #[test]
    fn a_rejected_budget_waits_and_nothing_else_does() {
        let throttle = Throttle::default();
        let cause = ReasonMessage::new(Reason::ApplyRefused, "a policy rejects it");
        let protect = |number| Action::Protect(Traffic::One(version(number)));
        throttle.rejected("u", &protect(1), &cause);
        throttle.rejected("u", &route(1), &cause);
        assert_eq!(throttle.rejection("u", &protect(1)), Some(cause));
        assert_eq!(throttle.rejection("u", &protect(2)), None, "traffic has moved");
        assert_eq!(throttle.rejection("u", &route(1)), None);
        throttle.forget("u");
        assert_eq!(throttle.rejection("u", &protect(1)), None);
    }

    #[test]
    fn requested_moves_back_and_forth_neither_wait_nor_are_reported() {
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
    fn our_own_failover_and_return_do_not_count_as_reverted() {
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

    #[test]
    fn another_desired_state_ends_a_pause_at_once() {
        let throttle = Throttle::default();
        throttle.begin("u", &revision(1));
        throttle.done("u", &route(2));
        assert!(throttle.pause("u", &route(2)).is_some_and(|pause| pause <= PAUSE));
        throttle.begin("u", &revision(2));
        assert!(!is_paused(&throttle, &route(2)));
    }
}
