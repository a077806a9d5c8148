//! When a status is written: at once, unless it says nothing new but how far something has got.
//!
//! During a rollout such text changes several times a second, and writing it costs the API server more than
//! the rollout itself. What a decision reads from the status is never held back. So nothing is lost in a
//! crash: the next reconcile computes the same text again.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{
    ModelAliasStatus, RegisteredModelStatus,
    condition::{ConditionType, Reason},
    model_alias::{HistoryEntry, Recorded},
};

/// For how long a change that may wait is held back, so that others are written with it.
pub const HOLD: SignedDuration = SignedDuration::from_secs(1);

/// While so many statuses have such a change, each is held back for [`HOLD`]. More of them wait longer, so that
/// they take the API server about as many writes a second.
const AT_ONCE: usize = 50;

/// How many times as long they wait at most.
const LONGEST: usize = 15;

/// Returns for how long a change that may wait is held back, while so many statuses have one.
#[must_use]
pub fn hold_for(waiting: usize) -> SignedDuration {
    let times = (waiting / AT_ONCE).clamp(1, LONGEST);
    HOLD * i32::try_from(times).unwrap_or(1)
}

/// When a status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// There is nothing to write.
    Never,
    /// At once.
    Now,
    /// At this time, together with what has changed by then.
    At(Timestamp),
}

/// A status of which some changes may wait.
pub trait Held: PartialEq {
    /// Whether everything that `next` changes may wait.
    #[must_use]
    fn may_wait(&self, next: &Self) -> bool;
}

impl Held for ModelAliasStatus {
    fn may_wait(&self, next: &Self) -> bool {
        // Whether an entry is in the registry's tags is read there again after a crash.
        let unconfirmed = |entry: &HistoryEntry| match entry.recorded {
            Recorded::Written => HistoryEntry { recorded: Recorded::Pending, ..entry.clone() },
            Recorded::Pending | Recorded::Impossible | Recorded::Unknown => entry.clone(),
        };
        let urgent = |status: &Self| Self {
            conditions: Vec::new(),
            history: status.history.iter().map(unconfirmed).collect(),
            replicas: None,
            ready_replicas: None,
            watch: None,
            ..status.clone()
        };
        conditions_may_wait(&self.conditions, &next.conditions) && urgent(self) == urgent(next)
    }
}

impl Held for RegisteredModelStatus {
    fn may_wait(&self, next: &Self) -> bool {
        // Whether there was anything is urgent: a model that had versions is not created again.
        let had = |status: &Self| (status.versions.is_empty(), status.aliases.is_empty());
        let urgent = |status: &Self| Self {
            conditions: Vec::new(),
            latest_version: None,
            versions: Vec::new(),
            aliases: BTreeMap::new(),
            ..status.clone()
        };
        conditions_may_wait(&self.conditions, &next.conditions)
            && had(self) == had(next)
            && urgent(self) == urgent(next)
    }
}

fn conditions_may_wait(written: &[Condition], next: &[Condition]) -> bool {
    let may_wait = |(written, next): (&Condition, &Condition)| {
        written.type_ == next.type_ && (written == next || condition_may_wait(written, next))
    };
    written.len() == next.len() && written.iter().zip(next).all(may_wait)
}

/// Whether a condition says only how far something has got.
fn condition_may_wait(written: &Condition, next: &Condition) -> bool {
    let needs_attention = next.reason.parse::<Reason>().map_or(true, Reason::needs_attention);
    // These two become true on the way to `Ready`, and no decision depends on them.
    let is_on_the_way = [ConditionType::Serving, ConditionType::RegistrySynced].into_iter().any(|type_| {
        let type_: &str = type_.into();
        next.type_ == type_ && next.status == "True"
    });
    written.observed_generation == next.observed_generation
        && (written.status == next.status || is_on_the_way)
        && (written.reason == next.reason || !needs_attention)
}

/// Returns when to write `next` over `written`. `must` is whether there is more to report with it: an Event,
/// or an action that failed. `since` is when the first change was held back, if one is, and `hold` for how long.
#[must_use]
pub fn due<S: Held>(
    written: &S,
    next: &S,
    must: bool,
    since: Option<Timestamp>,
    hold: SignedDuration,
    now: Timestamp,
) -> Due {
    if written == next {
        return Due::Never;
    }
    if must || !written.may_wait(next) {
        return Due::Now;
    }
    let since = since.unwrap_or(now);
    let at = since.checked_add(hold).unwrap_or(now);
    // A clock that was set back must not hold it back for longer.
    if at <= now || since > now { Due::Now } else { Due::At(at) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn status(change: impl FnOnce(&mut Value)) -> ModelAliasStatus {
        let condition = |type_: &str, status: &str, reason: &str| {
            json!({
                "type": type_, "status": status, "reason": reason, "message": "why", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let mut status = json!({
            "observedGeneration": 1, "version": "1", "targetVersion": "2", "replicas": 2, "readyReplicas": 2,
            "versions": [{ "version": "2", "startedAt": "2026-01-01T00:00:00Z", "settings": "a" }],
            "history": [{
                "version": "1", "at": "2026-01-01T00:00:00Z", "cause": "Spec", "outcome": "Promoted",
            }],
            "conditions": [
                condition("Ready", "False", "WaitingForPods"),
                condition("Serving", "False", "WaitingForPods"),
                condition("GatesPassed", "Unknown", "RegistryNotRead"),
            ],
        });
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    #[test]
    fn only_what_says_how_far_something_has_got_may_wait() {
        let waits = |change: fn(&mut Value)| status(|_| {}).may_wait(&status(change));
        assert!(waits(|it| it["conditions"][0]["message"] = "1 of 2 pods".into()));
        assert!(waits(|it| it["conditions"][0]["reason"] = "SmokeTesting".into()));
        assert!(waits(|it| it["conditions"][1]["status"] = "True".into()));
        assert!(waits(|it| it["readyReplicas"] = 1.into()));
        assert!(waits(|it| it["history"][0]["recorded"] = "Written".into()));
        for change in [
            |it: &mut Value| it["conditions"][0]["reason"] = "Unschedulable".into(),
            |it: &mut Value| it["conditions"][0]["status"] = "True".into(),
            |it: &mut Value| it["conditions"][2]["status"] = "True".into(),
            |it: &mut Value| it["conditions"][0]["observedGeneration"] = 2.into(),
            |it: &mut Value| drop(it["conditions"].as_array_mut().unwrap().pop()),
            |it: &mut Value| it["observedGeneration"] = 2.into(),
            |it: &mut Value| it["version"] = "2".into(),
            |it: &mut Value| it["traffic"] = json!([{ "version": "1", "weight": 100 }]),
            |it: &mut Value| it["versions"][0]["smokeTest"] = "Passed".into(),
            |it: &mut Value| it["versions"][0]["servedAt"] = "2026-01-01T00:00:00Z".into(),
            |it: &mut Value| it["history"][0]["recorded"] = "Impossible".into(),
            |it: &mut Value| it["retried"] = "now".into(),
        ] {
            assert!(!waits(change), "{:?}", status(change));
        }
        // The other way round it is news.
        let serves = status(|it| it["conditions"][1]["status"] = "True".into());
        assert!(!serves.may_wait(&status(|_| {})), "nothing answers any more");
    }

    #[test]
    fn of_a_model_only_what_describes_its_versions_may_wait() {
        let model = |change: fn(&mut Value)| {
            let mut status = json!({ "observedGeneration": 1, "aliases": { "champion": "1" } });
            change(&mut status);
            serde_json::from_value::<RegisteredModelStatus>(status).unwrap()
        };
        let waits = |change| model(|_| {}).may_wait(&model(change));
        assert!(waits(|it| it["aliases"] = json!({ "champion": "2", "previous": "1" })));
        assert!(!waits(|it| it["aliases"] = json!({})));
        assert!(!waits(|it| it["ownedTags"] = json!(["team"])));
        assert!(!waits(|it| it["observedGeneration"] = 2.into()));
    }

    #[test]
    fn an_event_a_failure_and_a_clock_that_was_set_back_end_the_wait() {
        let (before, after) = (status(|_| {}), status(|it| it["replicas"] = 1.into()));
        assert_eq!(due(&before, &after, false, None, HOLD, at(0)), Due::At(at(1000)));
        assert_eq!(due(&before, &after, false, Some(at(0)), HOLD, at(300)), Due::At(at(1000)));
        assert_eq!(due(&before, &after, false, Some(at(0)), HOLD, at(1000)), Due::Now);
        assert_eq!(due(&before, &after, true, None, HOLD, at(0)), Due::Now);
        assert_eq!(due(&before, &after, false, Some(at(5000)), HOLD, at(0)), Due::Now);
        assert_eq!(due(&before, &before, true, Some(at(0)), HOLD, at(5000)), Due::Never);
    }

    #[test]
    fn the_more_statuses_wait_the_longer_each_does() {
        let seconds = |waiting| hold_for(waiting).as_secs();
        assert_eq!([0, 1, 99, 100, 500, 10_000].map(seconds), [1, 1, 1, 2, 10, 15]);
        let (before, after) = (status(|_| {}), status(|it| it["replicas"] = 1.into()));
        assert_eq!(due(&before, &after, false, Some(at(0)), hold_for(500), at(1000)), Due::At(at(10_000)));
        assert_eq!(due(&before, &after, false, Some(at(0)), hold_for(10), at(1000)), Due::Now);
    }

    proptest! {
        /// However often it changes: it is written at most once a second beside what is urgent, nothing waits
        /// for longer than that, and the last change is written in the end.
        #[test]
        fn changes_that_wait_are_written_together_and_none_is_lost(
            changes in prop::collection::vec((0..700i64, 0..4u32, 0..8u32), 1..60),
        ) {
            let make = |replicas: u32, version: u32| status(|it| {
                it["replicas"] = replicas.into();
                it["version"] = if version == 0 { "2" } else { "1" }.into();
            });
            let (mut now, mut since, mut writes, mut urgent) = (0, None, 0, 0);
            let mut written = make(0, 1);
            let mut last = written.clone();
            let wake = |written: &mut ModelAliasStatus, last: &ModelAliasStatus, since: &mut Option<Timestamp>| {
                if let Some(held) = since.take() {
                    assert_eq!(due(written, last, false, Some(held), HOLD, held + HOLD), Due::Now);
                    *written = last.clone();
                    return 1;
                }
                0
            };
            for (pause, replicas, version) in changes {
                now += pause;
                if since.is_some_and(|since: Timestamp| since + HOLD <= at(now)) {
                    writes += wake(&mut written, &last, &mut since);
                }
                last = make(replicas, version);
                match due(&written, &last, false, since, HOLD, at(now)) {
                    Due::Never => since = None,
                    Due::At(due) => {
                        prop_assert_eq!(&written.version, &last.version);
                        since = since.or_else(|| Some(at(now)));
                        prop_assert_eq!(due, since.unwrap() + HOLD);
                    }
                    Due::Now => {
                        urgent += usize::from(written.version != last.version);
                        writes += 1;
                        written = last.clone();
                        since = None;
                    }
                }
            }
            writes += wake(&mut written, &last, &mut since);
            prop_assert_eq!(written, last);
            prop_assert!(writes <= urgent + usize::try_from(now / 1000).unwrap() + 1, "{} writes", writes);
        }
    }
}
