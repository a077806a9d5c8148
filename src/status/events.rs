//! Events: the differences between two statuses that people should see.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        APPROVE_ANNOTATION, ModelAliasStatus,
        condition::{ConditionType, Reason, condition, counted},
        model_alias::{Approval, CanaryStatus, Cause, HistoryEntry, Outcome, Recorded},
        names::Version,
    },
    decide::{Action, AliasRole},
};

use super::Applied;

/// An Event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Whether it is a warning.
    pub warning: bool,
    /// The reason, as `kubectl describe` shows it.
    pub reason: String,
    /// The action and its object, for instance `PromoteV2FromV1`. Events with equal reason and action are
    /// counted as one, with the message of the first; so the action distinguishes what must not be counted
    /// together.
    pub action: String,
    /// The message, one sentence.
    pub message: String,
}

/// Returns the Events of one reconcile of a ModelAlias.
#[must_use]
pub fn events(before: &ModelAliasStatus, after: &ModelAliasStatus, applied: &Applied) -> Vec<NewEvent> {
    let mut events = Vec::new();
    let fresh = after
        .history
        .iter()
        .take_while(|entry| before.history.first().map(|known| known.at) != Some(entry.at));
    for entry in fresh.collect::<Vec<_>>().into_iter().rev() {
        events.extend(history(entry, after));
    }
    events.extend(before.history.iter().filter_map(|entry| unrecorded(entry, after)));
    for action in applied.done.iter().chain(&applied.begun) {
        events.extend(write(action, before));
    }
    events.extend(alias_set(before, after));
    events.extend(let_in(before, after));
    events.extend(canary(before, after));
    events.extend(live_rules(before, after));
    events.extend(drift(before, after));
    events.extend(unprotected(before, applied));
    for type_ in [ConditionType::Ready, ConditionType::RegistrySynced] {
        events.extend(error(before, after, type_));
    }
    // Its other reasons are in `Ready`, too.
    let split = error(before, after, ConditionType::TrafficSplit);
    let is_about_challenger = |event: &NewEvent| event.reason == Reason::ChallengerUnavailable.to_string();
    events.extend(split.filter(is_about_challenger));
    events.extend(condition_events(
        ConditionType::Suspended,
        &before.conditions,
        &after.conditions,
        "Suspend",
    ));
    events
}

fn history(entry: &HistoryEntry, after: &ModelAliasStatus) -> Option<NewEvent> {
    let version = entry.version;
    let from = entry.from.map_or_else(String::new, |from| format!(", from version {from}"));
    let asked = match entry.cause {
        Cause::Spec => "requested by spec.version",
        Cause::Registry => "requested by the alias in the registry",
        Cause::Follower => "chosen by spec.follow",
        Cause::Failure => "because the serving version failed",
        Cause::Unknown => "for an unknown reason",
    };
    let (reason, warning, done, message) = match entry.outcome {
        Outcome::Promoted => {
            ("Promoted", false, "Promote", format!("version {version} serves now{from}; {asked}"))
        }
        Outcome::RolledBack => (
            "RolledBack",
            entry.cause == Cause::Failure,
            "RollBack",
            format!("version {version} serves again{from}; {asked}"),
        ),
        Outcome::Rejected => {
            let why = after.rejected.iter().find(|rejection| rejection.version == version);
            let why = why.map_or_else(String::new, |rejection| {
                format!(": {}: {}", rejection.reason, rejection.message)
            });
            ("Rejected", true, "Reject", format!("version {version} was rejected{why}"))
        }
        Outcome::Unknown => return None,
    };
    let origin = entry.from.map_or_else(String::new, |from| format!("FromV{from}"));
    Some(NewEvent {
        warning,
        reason: reason.to_owned(),
        action: format!("{done}V{version}{origin}"),
        message,
    })
}

/// Reports an entry that will be missing from the registry's tags.
fn unrecorded(entry: &HistoryEntry, after: &ModelAliasStatus) -> Option<NewEvent> {
    let why = match after.history.iter().find(|other| other.at == entry.at).map(|other| other.recorded) {
        _ if entry.recorded != Recorded::Pending => return None,
        None => "too many entries wait for the registry, and this was the oldest",
        Some(Recorded::Impossible) => "the version is gone from the registry, or the registry keeps no tags",
        Some(_) => return None,
    };
    let version = entry.version;
    let happened = match entry.outcome {
        Outcome::Promoted => "promoted",
        Outcome::RolledBack => "rolled back to",
        Outcome::Rejected => "rejected",
        Outcome::Unknown => "changed",
    };
    Some(NewEvent {
        warning: true,
        reason: "NotRecorded".to_owned(),
        action: format!("RecordV{version}"),
        message: format!("the audit log lacks that version {version} was {happened} at {}: {why}", entry.at),
    })
}

fn write(action: &Action, before: &ModelAliasStatus) -> Option<NewEvent> {
    let publish_events = |reason: &str, done: &str, version: Version, message| {
        let action = format!("{done}V{version}");
        Some(NewEvent { warning: false, reason: reason.to_owned(), action, message })
    };
    match action {
        Action::Apply { version, replicas, .. }
            if before.versions.iter().all(|held| held.version != *version) =>
        {
            publish_events(
                "Starting",
                "Start",
                *version,
                format!("starting version {version} with {}", counted(*replicas, "pod")),
            )
        }
        Action::SetAlias { role: AliasRole::Main, version, replaces, corrects: true } => {
            let from = replaces.map_or_else(|| "nothing".to_owned(), |from| format!("version {from}"));
            let message =
                format!("the alias in the registry names {from} and is being put back on version {version}");
            publish_events("AliasPutBack", "PutAliasBackOn", *version, message)
        }
        Action::DeleteAlias { replaces, .. } => publish_events(
            "AliasDeleted",
            "DeleteAliasOf",
            *replaces,
            format!("the alias is being removed from version {replaces} in the registry"),
        ),
        _ => None,
    }
}

/// Reports that the alias names what serves, unless it has just followed a promotion without a problem: that
/// was reported.
fn alias_set(before: &ModelAliasStatus, after: &ModelAliasStatus) -> Option<NewEvent> {
    let version = after.registry_version.filter(|_| before.registry_version != after.registry_version)?;
    let newest = after.history.first();
    let is_promotion = newest.is_some_and(|entry| {
        entry.version == version && matches!(entry.outcome, Outcome::Promoted | Outcome::RolledBack)
    });
    let synced: &str = ConditionType::RegistrySynced.into();
    let mut conditions = before.conditions.iter().filter(|condition| condition.type_ == synced);
    let had_problem =
        conditions.any(|known| known.reason.parse::<Reason>().map_or(true, Reason::needs_attention));
    (!is_promotion || had_problem).then(|| NewEvent {
        warning: false,
        reason: "AliasSet".to_owned(),
        action: format!("SetAliasToV{version}"),
        message: format!("the alias in the registry names version {version} now"),
    })
}

/// Reports what live traffic shows of a version and rejects nothing, and that there have been no data for long.
fn live_rules(before: &ModelAliasStatus, after: &ModelAliasStatus) -> Vec<NewEvent> {
    let of =
        |status: &ModelAliasStatus| condition(&status.conditions, ConditionType::LiveRulesPassed).cloned();
    let Some(watch) = &after.watch else { return Vec::new() };
    let (known, now) = (of(before), of(after));
    let warning = |reason: String, message: String| NewEvent {
        warning: true,
        action: format!("JudgeV{}", watch.version),
        reason,
        message,
    };
    let is_reported = |reason: &Reason| {
        matches!(
            reason,
            Reason::Regressed | Reason::Undecided | Reason::ManyRegressed | Reason::SplitMismatch
        )
    };
    let is_new = |now: &Condition| {
        now.reason.parse().is_ok_and(|reason| is_reported(&reason))
            && known.as_ref().is_none_or(|known| known.reason != now.reason)
    };
    let mut events = Vec::new();
    events.extend(
        now.as_ref().filter(|now| is_new(now)).map(|now| warning(now.reason.clone(), now.message.clone())),
    );
    let was_long = before.watch.as_ref().is_some_and(|watch| watch.unknown_for_long);
    if let (true, Some(now)) = (watch.unknown_for_long && !was_long, now) {
        let since = watch
            .unknown_since
            .map_or_else(String::new, |since| format!(" since {}", since.strftime("%Y-%m-%dT%H:%M:%SZ")));
        let message = format!("there are no data about version {}{since}: {}", watch.version, now.message);
        events.push(warning(now.reason, message));
    }
    events
}

/// Reports that inputs drifted, that they do no longer, and that this is not known any more. What is known of
/// another version is no change.
fn drift(before: &ModelAliasStatus, after: &ModelAliasStatus) -> Option<NewEvent> {
    let of = |status: &ModelAliasStatus| {
        let known = condition(&status.conditions, ConditionType::InputsAsTrained)?;
        let about = known.message.split_once(": ")?.0.to_owned();
        Some((about, known.reason.parse::<Reason>().ok()?, known.message.clone()))
    };
    let (about, reason, message) = of(after)?;
    let known = of(before).filter(|known| known.0 == about).map(|known| known.1);
    let is_new = match reason {
        Reason::InputsDrifted => known != Some(Reason::InputsDrifted),
        Reason::NoDrift => known == Some(Reason::InputsDrifted),
        Reason::DriftUnknown => matches!(known, Some(Reason::NoDrift | Reason::InputsDrifted)),
        _ => false,
    };
    let version = about.strip_prefix("version ").filter(|_| is_new)?;
    Some(NewEvent {
        warning: reason.needs_attention(),
        reason: reason.to_string(),
        action: format!("CompareInputsOfV{version}"),
        message,
    })
}

/// Reports the steps of a canary: where the version is, that it waits for an approval, and who gave it.
fn canary(before: &ModelAliasStatus, after: &ModelAliasStatus) -> Vec<NewEvent> {
    let mut events = Vec::new();
    let known = before.canary.as_ref();
    if let Some(now) = &after.canary {
        let is_same = |known: &&CanaryStatus| (known.version, known.step) == (now.version, now.step);
        let CanaryStatus { version, step, .. } = now;
        let normal = |reason: Reason, action: String, message: String| NewEvent {
            warning: false,
            reason: reason.to_string(),
            action,
            message,
        };
        if known.as_ref().is_none_or(|x| !is_same(x)) {
            let message = format!("version {version} is in step {step}: it gets {}", share_of(now));
            events.push(normal(Reason::CanaryStep, format!("Step{step}OfV{version}"), message));
        }
        let of_before = known.filter(|known| known.version == *version);
        let approved = of_before.map(|known| known.approvals.as_slice()).unwrap_or_default();
        for approval in now.approvals.iter().filter(|approval| !approved.contains(approval)) {
            let Approval { step, manager, at, .. } = approval;
            let message =
                format!("version {version} was approved in step {step} by the client {manager:?} at {at}");
            let action = format!("ApproveStep{step}OfV{version}");
            events.push(NewEvent { warning: false, reason: "Approved".to_owned(), action, message });
        }
        let waits = |status: &ModelAliasStatus| {
            let (type_, reason): (&str, &str) =
                (ConditionType::Ready.into(), Reason::AwaitingApproval.into());
            let mut conditions = status.conditions.iter();
            conditions.find(|it| it.type_ == type_ && it.reason == reason).map(|it| it.message.clone())
        };
        let waited = waits(before).is_some() && known.as_ref().is_some_and(is_same);
        if let Some(message) = waits(after).filter(|_| !waited) {
            let action = format!("AwaitApprovalOfStep{step}OfV{version}");
            events.push(normal(Reason::AwaitingApproval, action, message));
        }
    }
    let seen = after.approval.as_ref().filter(|_| before.approval != after.approval);
    if let Some((value, why)) = seen.and_then(|seen| Some((&seen.value, seen.ignored.as_ref()?))) {
        events.push(NewEvent {
            warning: true,
            reason: "ApprovalIgnored".to_owned(),
            action: "Approve".to_owned(),
            message: format!("the annotation {APPROVE_ANNOTATION} with {value:?} approves nothing: {why}"),
        });
    }
    events
}

fn share_of(canary: &CanaryStatus) -> String {
    match (canary.weight, canary.mirror) {
        (Some(weight), _) => format!("{weight} % of the requests"),
        (None, Some(mirror)) => format!("copies of {mirror} % of the requests"),
        (None, None) => "no requests".to_owned(),
    }
}

/// Reports that a version met the promotion rules. A version that does not is reported as a warning.
fn let_in(before: &ModelAliasStatus, after: &ModelAliasStatus) -> Option<NewEvent> {
    let find = |status: &ModelAliasStatus| {
        let (type_, reason): (&str, &str) = (ConditionType::GatesPassed.into(), Reason::GatesPassed.into());
        let mut conditions = status.conditions.iter();
        conditions.find(|condition| condition.type_ == type_ && condition.reason == reason).cloned()
    };
    let now = find(after)?;
    let is_new = find(before).is_none_or(|before| before.message != now.message);
    let target = after.target_version.filter(|_| is_new)?;
    Some(NewEvent {
        warning: false,
        reason: now.reason,
        action: format!("JudgeV{target}"),
        message: now.message,
    })
}

/// Reports that the PodDisruptionBudget could not be written, unless the status says so already.
fn unprotected(before: &ModelAliasStatus, applied: &Applied) -> Option<NewEvent> {
    let cause = applied.unprotected.as_ref()?;
    let is_known = before.conditions.iter().any(|condition| condition.message.contains(&cause.message));
    (!is_known).then(|| NewEvent {
        warning: true,
        reason: cause.reason.to_string(),
        action: "Protect".to_owned(),
        message: cause.message.clone(),
    })
}

/// Reports a new problem.
fn error(before: &ModelAliasStatus, after: &ModelAliasStatus, type_: ConditionType) -> Option<NewEvent> {
    let find = |status: &ModelAliasStatus| condition(&status.conditions, type_).cloned();
    let now = find(after)?;
    let reason: Reason = now.reason.parse().ok()?;
    let known =
        find(before).is_some_and(|before| before.reason == now.reason && before.message == now.message);
    let told_twice = type_ == ConditionType::RegistrySynced
        && find(before).is_some_and(|before| before.reason == now.reason);
    (reason.needs_attention() && !known && !told_twice && now.status != "True").then_some(NewEvent {
        warning: true,
        reason: now.reason,
        action: after
            .target_version
            .map_or_else(|| "Reconcile".to_owned(), |target| format!("ReconcileV{target}")),
        message: now.message,
    })
}

/// Returns the Events for a change of `Ready`: a new problem, or the end of one.
#[must_use]
pub fn readiness_events(before: &[Condition], after: &[Condition], action: &'static str) -> Vec<NewEvent> {
    condition_events(ConditionType::Ready, before, after, action).into_iter().collect()
}

/// Returns the Event for a change of one condition.
#[must_use]
pub fn condition_events(
    type_: ConditionType,
    before: &[Condition],
    after: &[Condition],
    action: &'static str,
) -> Option<NewEvent> {
    let known = condition(before, type_).map(|known| &known.reason);
    let condition = condition(after, type_).filter(|now| Some(&now.reason) != known)?.clone();
    let warning = condition.reason.parse::<Reason>().ok()?.needs_attention();
    let is_new = warning || condition.status == "True";
    is_new.then_some(NewEvent {
        warning,
        reason: condition.reason,
        action: action.to_owned(),
        message: condition.message,
    })
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn status(canary: &str, ready: &str, approval: &str) -> ModelAliasStatus {
        let ready = format!(
            "[{{type: Ready, status: 'False', reason: {ready}, message: 'waits', lastTransitionTime: \
             '2026-01-01T00:00:00Z'}}]"
        );
        serde_yaml::from_str(&format!("{{canary: {canary}, conditions: {ready}, approval: {approval}}}"))
            .unwrap()
    }

    fn reported(before: &ModelAliasStatus, after: &ModelAliasStatus) -> Vec<(bool, String, String)> {
        let events = canary(before, after).into_iter();
        events.map(|event| (event.warning, event.reason, event.message)).collect()
    }

    #[test]
    fn each_step_and_each_approval_of_a_canary_is_reported_once() {
        let step = |number: u32, approvals: &str| {
            format!(
                "{{version: '5', step: {number}, weight: 5, since: '2026-01-01T00:00:00Z', approvals: [{approvals}]}}"
            )
        };
        let approval = "{step: 1, weight: 5, manager: kubectl-annotate, at: '2026-01-01T00:00:09Z'}";
        let begun = status(&step(1, ""), "CanaryStep", "null");
        let waits = status(&step(1, ""), "AwaitingApproval", "null");
        let approved = status(&step(1, approval), "AwaitingApproval", "{value: '5'}");
        let next = status(&step(2, approval), "CanaryStep", "{value: '5'}");
        let again = status(&step(2, approval), "CanaryStep", "{value: '6', ignored: no such version}");
        let normal = |reason: &str, message: &str| vec![(false, reason.to_owned(), message.to_owned())];
        let steps = |number: u32| format!("version 5 is in step {number}: it gets 5 % of the requests");
        assert_eq!(reported(&ModelAliasStatus::default(), &begun), normal("CanaryStep", &steps(1)));
        assert_eq!(reported(&begun, &waits), normal("AwaitingApproval", "waits"));
        let message =
            "version 5 was approved in step 1 by the client \"kubectl-annotate\" at 2026-01-01T00:00:09Z";
        assert_eq!(reported(&waits, &approved), normal("Approved", message));
        assert_eq!(reported(&approved, &next), normal("CanaryStep", &steps(2)));
        let message = "the annotation laurel.dev/approve with \"6\" approves nothing: no such version";
        let ignored = (true, "ApprovalIgnored".to_owned(), message.to_owned());
        assert_eq!(reported(&next, &again), [ignored]);
        for status in [begun, waits, approved, next, again] {
            assert_eq!(reported(&status, &status), []);
        }
    }
}
