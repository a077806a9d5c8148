//! Single stories that need to see decisions. Those that can be seen from outside are in `scenarios/`.

use std::sync::Arc;

use jiff::SignedDuration;

use super::world::{Event, Fate, Reconcile, Registers, World, version};
use crate::{
    api::{
        condition::{ConditionStatus, ConditionType, Reason, ReasonMessage, condition},
        model_alias::{Cause, Drift, Outcome, PUT_BACK_MAX},
    },
    decide::{
        Action, AliasRole, Blocker, BlockerScope, Desired, FormerAlias, Lifecycle, Observed, OwnObject,
        Readiness, SmokeReport, SmokeTest, StrategyIntent, Traffic, decide,
    },
    status::{Applied, SubjectStatus, events, next},
};

fn serving(number: u32) -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 2);
    promote(&mut world, number);
    world
}

fn promote(world: &mut World, number: u32) {
    world.intent.desired = Desired::Version(version(number));
    world.live(40);
    assert_eq!(world.cluster.traffic, Traffic::One(version(number)));
}

#[test]
fn promise_5_a_rollback_to_a_warm_version_is_one_write_before_all_others() {
    let mut world = serving(1);
    promote(&mut world, 2);
    world.intent.desired = Desired::Version(version(1));
    world.registry.error = Some(Reason::RegistryUnreachable);
    let decision = world.reconcile(None);
    assert_eq!(decision.actions, [Action::Route(Traffic::One(version(1)))]);
    assert_eq!(world.status.history[0].outcome, Outcome::RolledBack);
    assert_eq!(world.status.previous_version, Some(version(2)));
}

#[test]
fn promise_5_a_rollback_switches_traffic_before_settings() {
    let mut world = serving(1);
    world.serving().settings = Some("b".into());
    promote(&mut world, 2);
    world.intent.desired = Desired::Version(version(1));
    let decision = world.reconcile(None);
    assert_eq!(decision.actions[0], Action::Route(Traffic::One(version(1))));
    world.live(40);
    assert_eq!(world.observe().cluster.workloads[&version(1)].settings, "b");
}

#[test]
fn promise_5_a_version_that_traffic_just_left_stays_warm_even_if_the_status_is_stale() {
    let mut world = serving(1);
    promote(&mut world, 2);
    let before = world.status.clone();
    promote(&mut world, 3);
    // As after a crash between the two writes: the Service is on version 3, the status says 2.
    world.status = before;
    let decision = decide(&world.observe());
    let rests = Action::Scale { version: version(2), replicas: 0 };
    assert!(!decision.actions.contains(&rests), "{:?}", decision.actions);
}

/// Version 2 serves, and the previous alias names version 1.
fn with_previous_alias() -> World {
    let mut world = serving(1);
    promote(&mut world, 2);
    assert_eq!(world.alias(AliasRole::Previous), 1);
    world
}

#[test]
fn a_previous_alias_that_is_not_asked_for_any_more_is_removed_from_the_registry() {
    let mut world = with_previous_alias();
    world.happen(&Event::PreviousAlias(false));
    let decision = world.reconcile(None);
    let removed = Action::DeleteAlias { role: AliasRole::Former, replaces: version(1) };
    assert_eq!(decision.actions, [removed]);
    world.live(10);
    assert_eq!((world.alias(AliasRole::Previous), &world.status.previous_alias), (0, &None));
    world.happen(&Event::PreviousAlias(true));
    world.live(10);
    assert_eq!(world.alias(AliasRole::Previous), 1);
}

#[test]
fn a_previous_alias_that_somebody_else_moved_or_claims_is_left_to_them() {
    let mut world = with_previous_alias();
    world.happen(&Event::PreviousAlias(false));
    let mut claimed = world.observe();
    claimed.registry.former_alias = Some(FormerAlias::Claimed);
    assert_eq!(decide(&claimed).actions, []);
    claimed.status = next(&claimed, &decide(&claimed), &Applied::default(), &SubjectStatus::default());
    assert_eq!(claimed.status.previous_alias, None, "it is theirs");
    world.happen(&Event::MovePreviousAlias(Some(3)));
    world.live(10);
    assert_eq!((world.alias(AliasRole::Previous), &world.status.previous_alias), (3, &None));
}

#[test]
fn promise_3_a_previous_alias_that_an_unreadable_model_alias_may_claim_is_kept_and_reported() {
    let mut world = with_previous_alias();
    let is_kept = world.status.previous_alias.clone();
    world.happen(&Event::PreviousAlias(false));
    let mut observed = world.observe();
    let by = "risk/other".to_owned();
    observed.registry.former_alias = Some(FormerAlias::MayBeClaimed { by });
    let decision = decide(&observed);
    assert_eq!(decision.actions, []);
    assert!(decision.wake.is_some(), "nobody wakes it when the other one is corrected");
    let Readiness::Progressing(cause) = &decision.report.readiness else { panic!("{decision:?}") };
    for part in ["\"previous\"", "risk/other", "cannot be parsed", "correct or delete"] {
        assert!(cause.message.contains(part), "{part:?} is missing: {}", cause.message);
    }
    let status = next(&observed, &decision, &Applied::default(), &SubjectStatus::default());
    assert_eq!(status.previous_alias, is_kept, "it is removed later");
    observed.intent.previous_alias = Some("before".parse().unwrap());
    let renamed = decide(&observed);
    assert_eq!((renamed.actions.len(), renamed.report.readiness), (0, decision.report.readiness));
    world.live(10);
    assert_eq!(world.alias(AliasRole::Previous), 0);
}

#[test]
fn nothing_is_reported_of_an_answer_that_comes_at_any_moment() {
    let mut world = serving(1);
    world.intent.desired = Desired::Version(version(2));
    let mut observed = world.observe();
    observed.status.observed_generation = Some(1);
    observed.registry.versions.remove(&version(2));
    let identity = SubjectStatus { generation: Some(2), ..SubjectStatus::default() };
    let status = |observed: &Observed| {
        let decision = decide(observed);
        assert_eq!(decision.actions, []);
        (next(observed, &decision, &Applied::default(), &identity), decision.wake)
    };
    let began = observed.now;
    observed.registry.reading_since = Some(began);
    assert_eq!(status(&observed), (observed.status.clone(), Some(began + SignedDuration::from_secs(1))));
    let reported = |observed: &Observed| {
        let status = status(observed).0;
        status.conditions.iter().any(|condition| condition.reason == "RegistryNotRead")
    };
    observed.now = began + SignedDuration::from_secs(1);
    assert!(reported(&observed), "it takes long");
    observed.now = began;
    assert!(!reported(&observed));
    observed.status.observed_generation = None;
    assert!(reported(&observed), "a new object has a status at once");
    observed.status.observed_generation = Some(1);
    observed.intent.desired = Desired::Registry;
    observed.registry.alias = Some(version(2));
    assert_eq!(status(&observed).0.target_version, Some(version(2)), "what was begun is written down first");
}

#[test]
fn a_disruption_budget_that_may_not_be_read_is_left_as_it_is_and_stops_nothing() {
    let mut world = serving(1);
    assert_eq!(world.cluster.budget, Some(Traffic::One(version(1))));
    for budget in [None, Some(Traffic::Nowhere), Some(Traffic::One(version(1)))] {
        world.cluster.budget = budget;
        let mut observed = world.observe();
        observed.cluster.budget_is_unknown = true;
        assert_eq!(decide(&observed).actions, []);
        observed.intent.serving = None;
        let removed = decide(&observed).actions;
        assert!(!removed.is_empty() && !removed.contains(&Action::DeleteBudget), "{removed:?}");
    }
}

#[test]
fn promise_3_a_previous_alias_is_not_forgotten_while_the_registry_is_unreachable() {
    let mut world = with_previous_alias();
    world.happen(&Event::Registry(Registers::Away));
    world.happen(&Event::PreviousAlias(false));
    world.live(30);
    assert_eq!(world.alias(AliasRole::Previous), 1);
    world.kill();
    world.happen(&Event::Registry(Registers::Fine));
    world.live(30);
    assert_eq!(world.alias(AliasRole::Previous), 0);
}

#[test]
fn a_previous_alias_that_is_renamed_is_removed_first_and_then_set_again() {
    let mut world = with_previous_alias();
    world.intent.previous_alias = Some("before".parse().unwrap());
    let mut observed = world.observe();
    observed.registry.previous_alias = None;
    observed.registry.former_alias = Some(FormerAlias::Names(Some(version(1))));
    let removed = Action::DeleteAlias { role: AliasRole::Former, replaces: version(1) };
    assert_eq!(decide(&observed).actions, [removed]);
    observed.registry.former_alias = Some(FormerAlias::Names(None));
    assert_eq!(decide(&observed).actions, [], "the new name is written down first");
    observed.status = next(&observed, &decide(&observed), &Applied::default(), &SubjectStatus::default());
    observed.registry.former_alias = None;
    let set =
        Action::SetAlias { role: AliasRole::Previous, version: version(1), replaces: None, corrects: false };
    let corrects =
        Action::SetAlias { role: AliasRole::Previous, version: version(1), replaces: None, corrects: true };
    let actions = decide(&observed).actions;
    assert!(actions == [set] || actions == [corrects], "{actions:?}");
}

/// As after a restore from a backup: the objects are back without their owner, and the status is empty.
#[test]
fn what_was_restored_from_a_backup_is_found_again_and_starts_no_pod() {
    let mut world = serving(1);
    promote(&mut world, 2);
    world.kill();
    world.status = std::sync::Arc::default();
    let deployments = [1, 2].map(|number| OwnObject::Deployment(version(number)));
    world.cluster.orphans = [OwnObject::Service].into_iter().chain(deployments).collect();
    let made = [1, 2].map(|number| world.made(version(number)));
    let decision = world.reconcile(None);
    let adopted = decision.actions.iter().take_while(|action| matches!(action, Action::Adopt(_))).count();
    assert_eq!(adopted, 3, "{:?}", decision.actions);
    world.live(40);
    assert!(world.cluster.orphans.is_empty());
    assert_eq!((world.cluster.traffic, world.status.version), (Traffic::One(version(2)), Some(version(2))));
    assert_eq!([1, 2].map(|number| world.made(version(number))), made);
    assert!(world.status.conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True"));
}

/// A policy that keeps Laurel from one Deployment keeps it from nothing else.
#[test]
fn an_adoption_that_is_refused_holds_up_neither_traffic_nor_other_versions() {
    let mut world = serving(1);
    promote(&mut world, 2);
    let orphan = OwnObject::Deployment(version(1));
    world.cluster.orphans = [orphan].into();
    world.cluster.unadoptable = [orphan].into();
    world.happen(&Event::Replicas(3));
    world.live(20);
    assert_eq!((world.desired(version(1)), world.desired(version(2))), (2, 3));
    world.intent.desired = Desired::Version(version(3));
    world.live(40);
    assert_eq!((world.cluster.traffic, world.alias(AliasRole::Main)), (Traffic::One(version(3)), 3));
    let ready = world.status.conditions.iter().find(|it| it.type_ == "Ready").unwrap();
    assert_eq!((&*ready.status, &*ready.message), ("False", "a policy rejects it"), "it is reported");
    world.cluster.unadoptable.clear();
    world.live(20);
    assert!(world.cluster.orphans.is_empty());
}

#[test]
fn a_service_that_cannot_be_adopted_keeps_the_alias_in_the_registry_where_traffic_is() {
    let mut world = serving(1);
    world.cluster.orphans = [OwnObject::Service].into();
    world.cluster.unadoptable = [OwnObject::Service].into();
    world.happen(&Event::Replicas(3));
    world.intent.desired = Desired::Version(version(2));
    world.live(60);
    assert_eq!(world.desired(version(2)), 3, "other objects are not held up");
    assert_eq!((world.cluster.traffic, world.alias(AliasRole::Main)), (Traffic::One(version(1)), 1));
    world.cluster.unadoptable.clear();
    world.live(40);
    assert_eq!((world.cluster.traffic, world.alias(AliasRole::Main)), (Traffic::One(version(2)), 2));
}

#[test]
fn a_budget_that_a_policy_refuses_is_reported_and_nothing_is_flagged_as_failed() {
    let mut world = serving(1);
    world.cluster.budget = None;
    let observed = world.observe();
    let decision = decide(&observed);
    assert!(matches!(decision.actions[..], [Action::Protect(_)]), "{:?}", decision.actions);
    let mut applied = Applied::default();
    let cause = ReasonMessage::new(Reason::ApplyRefused, "a policy rejects it");
    applied.failed(&decision.actions[0], cause);
    let status = next(&observed, &decision, &applied, &SubjectStatus::default());
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!((&*ready.status, &*ready.reason), ("True", "Serving"));
    assert!(
        ready.message.ends_with("not protected from disruption: a policy rejects it"),
        "{}",
        ready.message
    );
    let reported = events(&world.status, &status, &applied);
    assert!(reported.iter().any(|event| event.warning && event.reason == "ApplyRefused"), "{reported:?}");
    assert!(events(&status, &status, &applied).iter().all(|event| !event.warning), "once");
}

#[test]
fn what_somebody_changed_in_a_warm_version_is_taken_back_and_traffic_stays() {
    let mut world = serving(1);
    promote(&mut world, 2);
    world.happen(&Event::DeploymentEdited(1));
    let decision = world.reconcile(None);
    assert!(matches!(decision.actions[..], [Action::Apply { .. }]), "{:?}", decision.actions);
    world.live(10);
    assert!(!world.is_edited(1));
    assert_eq!((world.cluster.traffic, world.desired(version(1))), (Traffic::One(version(2)), 2));
}

/// Taking something back is two writes: the ownership of the fields, then the fields.
#[test]
fn what_somebody_changed_is_taken_back_although_the_operator_is_killed_between_the_two_writes() {
    for edited in [1, 2] {
        let mut world = serving(1);
        promote(&mut world, 2);
        world.happen(&Event::DeploymentEdited(edited));
        let cut = Reconcile { crash_after: Some(0), crash_within: true, ..Reconcile::default() };
        world.reconcile_once(&cut);
        assert!(world.is_edited(edited), "it was not cut short");
        world.live(10);
        assert!(!world.is_edited(edited), "version {edited}");
    }
}

#[test]
fn the_settings_that_a_warm_version_had_are_not_replaced_because_somebody_changed_it() {
    let mut world = serving(1);
    promote(&mut world, 2);
    world.serving().settings = Some("b".into());
    world.live(20);
    world.happen(&Event::DeploymentEdited(1));
    assert!(world.reconcile(None).actions.is_empty());
}

#[test]
fn a_version_at_rest_that_somebody_changed_is_rendered_anew_before_it_starts() {
    let mut world = serving(1);
    promote(&mut world, 2);
    let warm_for = world.serving().warm_for;
    world.now += warm_for;
    world.live(40);
    assert_eq!(world.desired(version(1)), 0);
    world.happen(&Event::DeploymentEdited(1));
    assert!(world.reconcile(None).actions.is_empty(), "it runs nothing");
    world.intent.desired = Desired::Version(version(1));
    let decision = world.reconcile(None);
    assert!(matches!(decision.actions[0], Action::Apply { .. }), "{:?}", decision.actions);
}

#[test]
fn promise_4_the_alias_is_set_only_after_traffic_was_switched() {
    let mut world = serving(1);
    assert_eq!(world.alias(AliasRole::Main), 1);
    world.intent.desired = Desired::Version(version(2));
    loop {
        assert_eq!(world.alias(AliasRole::Main), 1);
        let before = (world.cluster.traffic, world.status.version);
        let decision = world.reconcile(None);
        if decision.actions.iter().any(|action| matches!(action, Action::SetAlias { .. })) {
            let moved = (Traffic::One(version(2)), Some(version(2)));
            assert_eq!(before, moved, "traffic, the status, the alias");
            break;
        }
        world.moment();
    }
    world.moment();
    assert_eq!((world.alias(AliasRole::Main), world.alias(AliasRole::Previous)), (2, 1));
}

#[test]
fn a_serving_version_that_fails_is_replaced_by_the_warm_one_with_the_reason_in_the_history() {
    let mut world = serving(1);
    promote(&mut world, 2);
    world.happen(&Event::Pods { of: 2, are: Fate::NeverReady });
    world.live(10);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    assert_eq!(world.status.rejected[0].reason, Reason::BecameUnready);
    assert_eq!(world.status.history[0].cause, Cause::Failure);
}

/// The pods of the version still run then, with the result of their smoke test.
#[test]
fn promise_6_a_retry_right_after_the_rejection_sends_the_input_example_again() {
    let mut world = serving(1);
    world.happen(&Event::Pods { of: 2, are: Fate::FailsSmokeTest });
    world.intent.desired = Desired::Version(version(2));
    while world.reconcile(None).rejection.is_none() {
        world.moment();
    }
    assert_eq!((world.status.rejected[0].reason, world.desired(version(2))), (Reason::SmokeTestFailed, 2));
    world.happen(&Event::Pods { of: 2, are: Fate::Good });
    world.happen(&Event::Retry("1".into()));
    world.live(30);
    assert_eq!((world.cluster.traffic, world.requests(version(2))), (Traffic::One(version(2)), 2));
}

#[test]
fn a_version_that_gets_traffic_without_a_smoke_test_is_reported() {
    let mut world = serving(1);
    world.intent.desired = Desired::Version(version(2));
    while !world.reconcile(None).actions.iter().any(|action| matches!(action, Action::SmokeTest { .. })) {
        world.moment();
    }
    let mut observed = world.observe();
    let attempt = observed.attempt(version(2));
    let report = SmokeReport::Skipped("its input example is too large".into());
    observed.cluster.workloads.get_mut(&version(2)).unwrap().smoke = Some(SmokeTest { attempt, report });
    let decision = decide(&observed);
    assert!(decision.actions.contains(&Action::Route(Traffic::One(version(2)))), "{:?}", decision.actions);
    let cause = decision.report.readiness.cause();
    assert_eq!(cause.reason, Reason::SmokeTestUnavailable);
    assert!(cause.message.contains("its input example is too large"), "{}", cause.message);
}

/// The last attempt for one of two aliases says nothing of the other one.
#[test]
fn a_contested_alias_is_not_put_back_once_more_while_the_other_one_is_written() {
    let mut world = with_previous_alias();
    Arc::make_mut(&mut world.status).put_back_at = vec![world.now; PUT_BACK_MAX];
    world.registry.is_slow = true;
    world.write_alias(AliasRole::Previous, Some(version(1)), Some(version(3)));
    world.happen(&Event::Alias(Some(3)));
    world.live(3);
    assert!(world.registry.is_writing(AliasRole::Previous), "it is still being written");
    let decision = world.reconcile(None);
    assert_eq!(decision.actions, []);
    let ready = condition(&world.status.conditions, ConditionType::Ready).unwrap();
    assert_eq!((world.alias(AliasRole::Main), ready.reason.as_str()), (3, "Contested"));
}

#[test]
fn our_own_late_write_is_not_mistaken_for_drift() {
    let mut world = serving(1);
    world.intent.drift = Drift::Report;
    promote(&mut world, 2);
    promote(&mut world, 1);
    let mut observed = world.observe();
    observed.registry.alias = Some(version(2));
    observed.registry.written = Some(version(2));
    let put_back = Action::SetAlias {
        role: AliasRole::Main,
        version: version(1),
        replaces: Some(version(2)),
        corrects: false,
    };
    assert!(decide(&observed).actions.contains(&put_back));
    observed.registry.written = Some(version(1));
    assert!(!decide(&observed).actions.contains(&put_back), "with drift: Report a manual move stays");
}

#[test]
fn a_serving_version_is_not_overdue_because_it_started_long_ago() {
    let mut world = serving(1);
    world.jump(SignedDuration::from_hours(2));
    let mut observed = world.observe();
    let workload = observed.cluster.workloads.get_mut(&version(1)).unwrap();
    (workload.ready, workload.rolled_out) = (1, false);
    workload.error = Some(ReasonMessage::new(Reason::Unschedulable, "a node is gone"));
    let readiness = decide(&observed).report.readiness;
    assert!(matches!(readiness, Readiness::Progressing(_)), "{readiness:?}");
}

#[test]
fn the_status_counts_the_pods_that_an_autoscaler_measures() {
    let mut world = World::new(StrategyIntent::Rolling { max_surge: 1 }, 3);
    promote(&mut world, 1);
    assert_eq!(world.observe().counted_traffic(), Traffic::One(version(1)));
    world.intent.desired = Desired::Version(version(2));
    while world.cluster.traffic != Traffic::Shared {
        world.live(1);
    }
    assert_eq!(world.observe().counted_traffic(), Traffic::Shared);
    world.live(1);
    let both = world.desired(version(1)) + world.desired(version(2));
    assert_eq!(world.status.replicas, Some(both));
}

#[test]
fn a_service_deleted_by_hand_is_restored_at_once() {
    let mut world = serving(1);
    world.cluster.traffic = Traffic::Nowhere;
    let decision = world.reconcile(None);
    assert_eq!(decision.actions, [Action::Route(Traffic::One(version(1)))]);
}

#[test]
fn promise_9_a_deletion_waits_for_the_registry_with_a_deadline() {
    let mut world = serving(1);
    world.registry.error = Some(Reason::RegistryUnreachable);
    world.intent.lifecycle = Lifecycle::Deleting { since: world.now };
    assert!(world.intent.has_finalizer);
    let decision = world.reconcile(None);
    assert!(decision.actions.is_empty());
    world.advance(decision.wake.unwrap().duration_since(world.now));
    world.reconcile(None);
    assert!(world.is_gone);
}

#[test]
fn a_deletion_deletes_only_our_alias() {
    let mut world = serving(1);
    world.intent.lifecycle = Lifecycle::Deleting { since: world.now };
    let decision = world.reconcile(None);
    let removed = Action::DeleteAlias { role: AliasRole::Main, replaces: version(1) };
    assert_eq!(decision.actions, [removed]);
    assert!(!world.is_gone, "it was only begun");
    world.live(10);
    assert!(world.is_gone && world.alias(AliasRole::Main) == 0);
}

#[test]
fn promise_9_a_deletion_that_the_registry_does_not_answer_ends_at_its_deadline() {
    let mut world = serving(1);
    world.registry.is_slow = true;
    world.intent.lifecycle = Lifecycle::Deleting { since: world.now };
    let mut ends = None;
    for _ in 0..20 {
        let decision = world.reconcile(None);
        ends = ends.or(decision.wake);
        assert!(world.is_gone || decision.wake.is_some(), "a wait has an end");
        world.live(1);
    }
    assert!(world.is_gone && world.alias(AliasRole::Main) == 0);
}

#[test]
fn suspension_changes_nothing() {
    let mut world = serving(1);
    world.intent.desired = Desired::Version(version(2));
    world.intent.lifecycle = Lifecycle::Suspended;
    let decision = world.reconcile(None);
    assert!(decision.actions.is_empty());
    assert!(matches!(decision.report.readiness, Readiness::Suspended(_)));
}

/// Suspension is neither a failure nor a state of a rollout.
#[test]
fn suspension_keeps_ready_and_has_its_own_condition() {
    let mut world = serving(1);
    let condition = |world: &World, type_: &str| {
        let mut conditions = world.status.conditions.iter();
        conditions.find(|condition| condition.type_ == type_).cloned()
    };
    let ready = condition(&world, "Ready");
    assert_eq!(condition(&world, "Suspended"), None);
    world.intent.lifecycle = Lifecycle::Suspended;
    world.reconcile(None);
    assert_eq!(condition(&world, "Ready"), ready);
    assert_eq!(condition(&world, "Suspended").unwrap().status, "True");
    assert_eq!(condition(&world, "Stalled").unwrap().status, "False");
    world.intent.lifecycle = Lifecycle::Active;
    world.reconcile(None);
    assert_eq!(condition(&world, "Suspended"), None);
    assert_eq!(condition(&world, "Ready"), ready);
}

#[test]
fn a_new_object_that_is_suspended_is_neither_ready_nor_failed() {
    let mut world = World::new(StrategyIntent::BlueGreen, 2);
    world.intent.lifecycle = Lifecycle::Suspended;
    world.reconcile(None);
    let status = |type_: &str| {
        let mut conditions = world.status.conditions.iter();
        conditions.find(|condition| condition.type_ == type_).map(|condition| condition.status.clone())
    };
    assert_eq!(status("Ready").as_deref(), Some("Unknown"));
    assert_eq!(status("Stalled").as_deref(), Some("False"));
}

/// A manifest without `replicas` leaves the size to an autoscaler, which needs an initial one.
#[test]
fn a_removed_size_is_kept_and_filled_in() {
    for strategy in [StrategyIntent::BlueGreen, StrategyIntent::Rolling { max_surge: 1 }] {
        for seconds in 0..12 {
            let mut world = World::new(strategy, 3);
            world.settle();
            world.intent.desired = Desired::Version(version(2));
            world.live(seconds);
            world.happen(&Event::SizeTakenOut(true));
            let observed = world.observe();
            assert_eq!(
                observed.intent.serving.as_ref().unwrap().replicas,
                3,
                "{strategy:?} after {seconds}s"
            );
            let filled = decide(&observed).actions.contains(&Action::FillInReplicas { replicas: 3 });
            assert!(filled || observed.desired_is_new(), "{strategy:?} after {seconds}s");
        }
    }
}

#[test]
fn a_new_object_without_a_size_gets_one_pod() {
    let observed = World::new(StrategyIntent::BlueGreen, 3).observe();
    assert_eq!(observed.cluster.size(&observed.status), 1);
}

#[test]
fn while_blocked_no_condition_claims_that_serving_is_not_requested() {
    let mut observed = World::new(StrategyIntent::BlueGreen, 2).observe();
    observed.intent.serving = None;
    let cause = ReasonMessage::new(Reason::RegisteredModelNotFound, "create it");
    observed.intent.blocker = Some(Blocker { cause, scope: BlockerScope::Changes });
    let (status, cause) = decide(&observed).report.serving;
    assert_eq!((status, cause.reason), (ConditionStatus::False, Reason::WaitingForPods));
}
