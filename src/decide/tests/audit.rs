//! The history: in the status, and from there in the audit log.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::world::{DesiredVersion, Event, Fate, Followed, Registers, World, version};
use crate::{
    api::{
        condition::{ConditionStatus, Reason, ReasonMessage},
        model_alias::{Outcome, Recorded},
    },
    decide::{Action, Desired, Lifecycle, Observed, Outbox, StrategyIntent, decide},
    status::{Applied, SubjectStatus, events, next},
};

fn world() -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 2);
    world.live(60);
    world
}

fn ask(world: &mut World, number: u32, by: Option<&str>, commit: Option<&str>) {
    world.intent.changed_by = by.map(str::to_owned);
    world.intent.commit = commit.map(str::to_owned);
    world.happen(&Event::Desired(DesiredVersion::Version(number)));
    world.live(60);
}

/// Who requested the last change.
fn asked(world: &World) -> (u32, &str, Option<&str>) {
    let entry = &world.status.history[0];
    (entry.version.to_string().parse().unwrap(), &entry.requested_by, entry.commit.as_deref())
}

fn recorded(world: &World) -> Vec<Recorded> {
    world.status.history.iter().map(|entry| entry.recorded).collect()
}

#[test]
fn the_history_names_the_requester_or_unknown() {
    let mut world = world();
    assert_eq!(asked(&world), (1, "unknown", None));
    ask(&mut world, 2, Some("ana"), Some("4f1c"));
    assert_eq!(asked(&world), (2, "ana", Some("4f1c")));
    ask(&mut world, 3, Some("bob"), Some("4f1c"));
    assert_eq!(asked(&world), (3, "bob", None), "that commit requested version 2");
    ask(&mut world, 2, Some("argocd"), Some("4f1c"));
    assert_eq!(asked(&world), (2, "argocd", Some("4f1c")), "that commit restores version 2");
    world.happen(&Event::Desired(DesiredVersion::REGISTRY));
    world.happen(&Event::Alias(Some(3)));
    world.live(60);
    assert_eq!(asked(&world), (3, "unknown", None), "MLflow does not report it");
    world.happen(&Event::Desired(DesiredVersion::Follow(Followed::Latest)));
    world.live(60);
    assert_eq!(asked(&world), (5, "laurel", None));
}

#[test]
fn a_failure_and_its_rollback_are_in_the_history_with_requester_and_reason() {
    let mut world = world();
    world.happen(&Event::Pods { of: 2, are: Fate::FailsSmokeTest });
    ask(&mut world, 2, Some("ana"), None);
    let entry = &world.status.history[0];
    assert_eq!((entry.outcome, entry.requested_by.as_str()), (Outcome::Rejected, "ana"));
    assert_eq!(entry.reason, Some(Reason::SmokeTestFailed));
    assert!(entry.message.as_ref().is_some_and(|why| why.contains("500")), "{:?}", entry.message);
    ask(&mut world, 3, Some("ana"), None);
    world.happen(&Event::Pods { of: 3, are: Fate::Crashes });
    world.live(60);
    let reported: Vec<_> = world
        .status
        .history
        .iter()
        .take(2)
        .map(|entry| (entry.outcome, entry.requested_by.as_str()))
        .collect();
    assert_eq!(reported, [(Outcome::RolledBack, "laurel"), (Outcome::Rejected, "laurel")]);
}

#[test]
fn the_audit_log_is_written_after_traffic_and_the_alias() {
    let mut world = world();
    world.intent.desired = Desired::Version(version(2));
    let mut writes = Vec::new();
    for _ in 0..60 {
        writes.extend(world.reconcile(None).actions);
        world.moment();
    }
    let place = |of: fn(&Action) -> bool| writes.iter().rposition(of).unwrap();
    let status = place(|action| matches!(action, Action::WriteAudit { .. }));
    assert!(status > place(|action| matches!(action, Action::Route(_))));
    assert!(status > place(|action| matches!(action, Action::SetAlias { .. })));
    let audit_writes = writes.iter().filter(|action| matches!(action, Action::WriteAudit { .. })).count();
    assert_eq!(audit_writes, 1, "it is written once");
}

#[test]
fn promise_3_an_unreachable_registry_delays_only_the_audit_log() {
    let mut world = world();
    ask(&mut world, 2, None, None);
    world.happen(&Event::Registry(Registers::Away));
    ask(&mut world, 1, None, None);
    ask(&mut world, 2, None, None);
    assert_eq!(world.answering_versions(), [2], "traffic does not wait");
    assert_eq!(recorded(&world)[..3], [Recorded::Pending, Recorded::Pending, Recorded::Written]);
    world.happen(&Event::Registry(Registers::Fine));
    world.settle();
    assert!(recorded(&world).iter().all(|it| *it == Recorded::Written), "{:?}", recorded(&world));
    world.promise_of_rest();
}

#[test]
fn pending_history_entries_are_kept_beyond_the_newest_ten() {
    let mut world = world();
    ask(&mut world, 2, None, None);
    world.happen(&Event::Registry(Registers::Away));
    for _ in 0..8 {
        ask(&mut world, 1, None, None);
        ask(&mut world, 2, None, None);
    }
    assert_eq!(world.status.history.len(), 16, "written entries are dropped first");
    for _ in 0..50 {
        ask(&mut world, 1, None, None);
        ask(&mut world, 2, None, None);
    }
    assert_eq!(world.status.history.len(), 100, "the history is bounded");
    let times: BTreeSet<_> = world.status.history.iter().map(|entry| entry.at).collect();
    assert_eq!(times.len(), 100, "the time identifies an entry");
    let mut after = world.status.as_ref().clone();
    let dropped = after.history.pop().unwrap();
    let events = events(&world.status, &after, &Applied::default());
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        events[0].warning
            && events[0].reason == "NotRecorded"
            && events[0].message.contains(&dropped.at.to_string())
    );
}

#[test]
fn an_entry_of_a_deleted_version_is_reported_once_and_skipped() {
    let mut world = world();
    ask(&mut world, 2, None, None);
    world.happen(&Event::Registry(Registers::Away));
    ask(&mut world, 1, None, None);
    world.happen(&Event::VersionDeleted(1));
    let before = world.status.as_ref().clone();
    world.happen(&Event::Registry(Registers::Fine));
    ask(&mut world, 2, None, None);
    world.settle();
    assert_eq!(recorded(&world)[..2], [Recorded::Written, Recorded::Impossible]);
    let events = events(&before, &world.status, &Applied::default());
    let reported: Vec<_> = events.iter().filter(|events| events.reason == "NotRecorded").collect();
    assert_eq!(reported.len(), 1, "{events:?}");
    assert!(reported[0].message.contains("version 1 was rolled back to at 20"), "{reported:?}");
}

#[test]
fn a_written_entry_causes_no_event() {
    let mut world = world();
    ask(&mut world, 2, None, None);
    let mut before = world.status.as_ref().clone();
    before.history[0].recorded = Recorded::Pending;
    assert_eq!(events(&before, &world.status, &Applied::default()), []);
}

#[test]
fn promise_10_a_failed_audit_write_is_reported_and_retried() {
    let mut world = world();
    ask(&mut world, 2, None, None);
    let observed = world.observe();
    let mut status = observed.status.clone();
    status.history[0].recorded = Recorded::Pending;
    let error = Some(ReasonMessage::new(Reason::RegistryForbidden, "the credentials may not set tags"));
    let observed = Observed { status, outbox: Outbox { error, ..Outbox::default() }, ..observed };
    let decision = decide(&observed);
    assert!(matches!(decision.actions[..], [Action::WriteAudit { .. }]), "{:?}", decision.actions);
    let (status, cause) = &decision.report.registry;
    assert_eq!((*status, cause.reason), (ConditionStatus::False, Reason::RegistryForbidden));
    assert!(cause.message.contains("the credentials may not set tags"), "{}", cause.message);
    assert!(decision.report.readiness.is_settled(), "the serving version is as desired");
    assert!(decision.wake.is_some_and(|at| at <= observed.now + SignedDuration::from_secs(10)));
    let status = next(&observed, &decision, &Applied::default(), &SubjectStatus::default());
    let again = Observed { status: status.clone(), ..observed };
    assert_eq!(next(&again, &decide(&again), &Applied::default(), &SubjectStatus::default()), status);
}

#[test]
fn promise_9_a_deletion_waits_for_the_audit_log_with_a_deadline() {
    let mut world = world();
    ask(&mut world, 2, None, None);
    let mut observed = world.observe();
    observed.status.history[0].recorded = Recorded::Pending;
    observed.intent.lifecycle = Lifecycle::Deleting { since: world.now };
    let waits = decide(&observed);
    assert!(matches!(waits.actions.last(), Some(Action::WriteAudit { .. })), "{:?}", waits.actions);
    let error = Some(ReasonMessage::new(Reason::RegistryForbidden, "the credentials may not set tags"));
    observed.outbox = Outbox { error, ..Outbox::default() };
    observed.now += SignedDuration::from_secs(61);
    assert_eq!(decide(&observed).actions, [Action::SetFinalizer { present: false }]);
}
