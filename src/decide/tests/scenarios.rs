//! Single stories, each the least that shows one behaviour.

use jiff::SignedDuration;

use super::world::{Fate, World, version};
use crate::{
    api::{
        condition::{Note, Reason},
        model_alias::{Cause, Drift, Outcome},
    },
    decide::{Action, AliasRole, Lifecycle, Readiness, StrategyIntent, Traffic, Wish, decide},
};

fn serving(number: u32) -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 2);
    promote(&mut world, number);
    world
}

fn promote(world: &mut World, number: u32) {
    world.intent.wish = Wish::Version(version(number));
    settle_but_stay_warm(world);
    assert_eq!(world.traffic, Traffic::One(version(number)));
}

/// Works until nothing is left to do but to wait for the warm version's end.
fn settle_but_stay_warm(world: &mut World) {
    for _ in 0..40 {
        world.reconcile(None);
        world.pass(SignedDuration::from_secs(1));
    }
}

fn reason(world: &World) -> String {
    world.record.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().reason.clone()
}

#[test]
fn promise_5_a_rollback_to_a_warm_version_is_one_write_before_all_others() {
    let mut world = serving(1);
    promote(&mut world, 2);
    world.intent.wish = Wish::Version(version(1));
    world.reachable = false;
    let decision = world.reconcile(None);
    assert_eq!(decision.actions, [Action::Route(Traffic::One(version(1)))]);
    assert_eq!(world.record.history[0].outcome, Outcome::RolledBack);
    assert_eq!(world.record.previous_version, Some(version(2)));
}

#[test]
fn promise_5_a_rollback_moves_traffic_before_it_brings_other_settings() {
    let mut world = serving(1);
    world.serving().settings = "v1-b".into();
    promote(&mut world, 2);
    world.intent.wish = Wish::Version(version(1));
    let decision = world.reconcile(None);
    assert_eq!(decision.actions[0], Action::Route(Traffic::One(version(1))));
    settle_but_stay_warm(&mut world);
    assert_eq!(world.observe().cluster.workloads[&version(1)].settings, "v1-b");
}

#[test]
fn promise_5_what_traffic_just_left_stays_warm_also_when_the_status_does_not_know_yet() {
    let mut world = serving(1);
    promote(&mut world, 2);
    let before = world.record.clone();
    promote(&mut world, 3);
    // As after a crash between the two writes: the Service is on version 3, the status says 2.
    world.record = before;
    let decision = decide(&world.observe());
    let rests = Action::Scale { version: version(2), replicas: 0 };
    assert!(!decision.actions.contains(&rests), "{:?}", decision.actions);
}

#[test]
fn promise_4_the_registry_is_told_after_traffic_and_only_then() {
    let mut world = serving(1);
    assert_eq!(world.alias, Some(version(1)));
    world.intent.wish = Wish::Version(version(2));
    loop {
        assert_eq!(world.alias, Some(version(1)));
        let before = (world.traffic, world.record.version);
        let decision = world.reconcile(None);
        if decision.actions.iter().any(|action| matches!(action, Action::SetAlias { .. })) {
            assert_eq!(
                before,
                (Traffic::One(version(2)), Some(version(2))),
                "traffic, the status, the alias"
            );
            break;
        }
        world.pass(SignedDuration::from_secs(1));
    }
    assert_eq!((world.alias, world.previous_alias), (Some(version(2)), Some(version(1))));
}

#[test]
fn promise_6_a_follower_does_not_go_back_to_what_failed_until_somebody_asks() {
    let mut world = serving(1);
    world.intent.wish = Wish::Registry;
    world.fates.insert(version(2), Fate::NeverReady);
    world.alias = Some(version(2));
    world.settle();
    assert_eq!((world.traffic, world.alias), (Traffic::One(version(1)), Some(version(1))));
    assert_eq!(reason(&world), "Serving");
    let synced =
        world.record.conditions.iter().find(|condition| condition.type_ == "RegistrySynced").unwrap();
    assert_eq!(synced.reason, "AliasPutBack");

    world.fates.insert(version(2), Fate::Good);
    world.alias = Some(version(2));
    world.settle();
    assert_eq!(world.traffic, Traffic::One(version(2)), "setting it again asks again");
}

#[test]
fn promise_6_with_drift_report_the_alias_stays_and_the_version_stays_rejected() {
    let mut world = serving(1);
    world.intent.wish = Wish::Registry;
    world.intent.drift = Drift::Report;
    world.fates.insert(version(2), Fate::NeverReady);
    world.alias = Some(version(2));
    world.settle();
    assert_eq!((world.traffic, world.alias), (Traffic::One(version(1)), Some(version(2))));
    assert_eq!(reason(&world), "ProgressDeadlineExceeded");
    assert_eq!(world.desired(version(2)), 0);
    world.fates.insert(version(2), Fate::Good);
    world.settle();
    assert_eq!(world.traffic, Traffic::One(version(1)), "nobody asked");
    world.intent.retry = Some("now".into());
    world.settle();
    assert_eq!(world.traffic, Traffic::One(version(2)));
}

#[test]
fn two_bad_versions_in_a_row_leave_traffic_where_it_is() {
    let mut world = serving(1);
    for number in [2, 3] {
        world.fates.insert(version(number), Fate::NeverReady);
        world.intent.wish = Wish::Version(version(number));
        world.settle();
        assert_eq!((world.traffic, world.alias), (Traffic::One(version(1)), Some(version(1))));
        assert_eq!((world.desired(version(1)), world.desired(version(number))), (2, 0));
    }
    assert_eq!(world.record.rejected.len(), 2);
}

#[test]
fn a_failed_smoke_test_rejects_the_version() {
    let mut world = serving(1);
    world.fates.insert(version(2), Fate::FailsSmokeTest);
    world.intent.wish = Wish::Version(version(2));
    world.settle();
    assert_eq!(world.traffic, Traffic::One(version(1)));
    assert_eq!(world.record.rejected[0].reason, Reason::SmokeTestFailed);
}

#[test]
fn other_settings_are_another_try() {
    let mut world = serving(1);
    world.fates.insert(version(2), Fate::NeverReady);
    world.intent.wish = Wish::Version(version(2));
    world.settle();
    world.fates.insert(version(2), Fate::Good);
    world.serving().settings = "v1-fixed".into();
    world.settle();
    assert_eq!(world.traffic, Traffic::One(version(2)));
}

#[test]
fn settings_of_a_rejected_version_do_not_reach_the_one_that_serves() {
    let mut world = serving(1);
    world.fates.insert(version(2), Fate::NeverReady);
    world.serving().settings = "v1-bad-image".into();
    world.intent.wish = Wish::Version(version(2));
    world.settle();
    assert_eq!(world.observe().cluster.workloads[&version(1)].settings, "v1-a");
}

#[test]
fn a_version_that_loses_all_its_pods_gives_way_to_the_warm_one() {
    let mut world = serving(1);
    promote(&mut world, 2);
    world.fates.insert(version(2), Fate::NeverReady);
    settle_but_stay_warm(&mut world);
    assert_eq!((world.traffic, world.alias), (Traffic::One(version(1)), Some(version(1))));
    assert_eq!(world.record.rejected[0].reason, Reason::BecameUnready);
    assert_eq!(world.record.history[0].cause, Cause::Failure);
    world.fates.insert(version(2), Fate::Good);
    world.settle();
    assert_eq!(world.traffic, Traffic::One(version(1)), "it stays rejected");
}

#[test]
fn promise_3_nothing_is_touched_while_the_registry_is_away() {
    let mut world = serving(1);
    world.intent.wish = Wish::Registry;
    world.reachable = false;
    world.alias = None;
    world.settle();
    assert_eq!((world.traffic, world.desired(version(1))), (Traffic::One(version(1)), 2));
    assert_eq!(reason(&world), "Serving");
}

#[test]
fn a_new_version_waits_for_the_registry() {
    let mut world = serving(1);
    world.reachable = false;
    world.intent.wish = Wish::Version(version(2));
    world.settle();
    assert_eq!(reason(&world), "RegistryUnreachable");
    world.reachable = true;
    world.settle();
    assert_eq!(world.traffic, Traffic::One(version(2)));
}

#[test]
fn a_version_that_does_not_exist_is_refused_with_traffic_untouched() {
    let mut world = serving(1);
    world.intent.wish = Wish::Version(version(6));
    world.settle();
    assert_eq!((world.traffic, reason(&world)), (Traffic::One(version(1)), "VersionNotFound".into()));
    assert!(!world.has_deployment(version(6)));
}

#[test]
fn a_version_registered_anew_does_not_slip_in() {
    let mut world = serving(1);
    world.versions.insert(version(1), super::world::uri(99));
    world.settle();
    let synced =
        world.record.conditions.iter().find(|condition| condition.type_ == "RegistrySynced").unwrap();
    assert_eq!(synced.reason, "VersionReplaced");
    assert_eq!(world.observe().cluster.workloads[&version(1)].model_uri, super::world::uri(1));
}

#[test]
fn an_alias_moved_by_hand_is_put_back() {
    let mut world = serving(1);
    world.alias = Some(version(3));
    world.settle();
    assert_eq!((world.alias, world.traffic), (Some(version(1)), Traffic::One(version(1))));
}

#[test]
fn our_own_late_write_is_not_taken_for_somebody_s() {
    let mut world = serving(1);
    world.intent.drift = Drift::Report;
    promote(&mut world, 2);
    promote(&mut world, 1);
    world.alias = Some(version(2));
    let mut observed = world.observe();
    observed.registry.written = Some(version(2));
    let put_back = Action::SetAlias {
        role: AliasRole::Main,
        version: version(1),
        replaces: Some(version(2)),
        corrects: false,
    };
    assert!(decide(&observed).actions.contains(&put_back));
    observed.registry.written = Some(version(1));
    assert!(!decide(&observed).actions.contains(&put_back), "with drift: Report somebody's move stays");
}

#[test]
fn promise_4_our_own_write_is_told_from_somebody_s_also_by_an_operator_that_has_just_begun() {
    let mut world = serving(1);
    world.intent.drift = Drift::Report;
    world.intent.wish = Wish::Version(version(2));
    while world.alias != Some(version(2)) {
        world.reconcile(None);
        world.pass(SignedDuration::from_secs(1));
    }
    // The registry was written, and the operator was killed before it could read that back.
    world.intent.wish = Wish::Version(version(1));
    settle_but_stay_warm(&mut world);
    assert_eq!((world.traffic, world.alias), (Traffic::One(version(1)), Some(version(1))));
}

#[test]
fn what_serves_is_not_ready_before_the_alias_is_known_to_name_it() {
    let mut world = serving(1);
    promote(&mut world, 2);
    world.reachable = false;
    world.intent.wish = Wish::Version(version(1));
    settle_but_stay_warm(&mut world);
    assert_eq!(world.traffic, Traffic::One(version(1)));
    assert_eq!(reason(&world), "RegistryUnreachable");
    world.reachable = true;
    settle_but_stay_warm(&mut world);
    assert_eq!(reason(&world), "Serving");
    world.reachable = false;
    settle_but_stay_warm(&mut world);
    assert_eq!(reason(&world), "Serving", "what was in step is believed to be so");
}

#[test]
fn an_alias_that_somebody_keeps_moving_is_contested_and_left_alone_until_a_person_asks() {
    let mut world = serving(1);
    let quarrel = |world: &mut World| {
        for _ in 0..6 {
            world.alias = Some(version(3));
            for _ in 0..4 {
                world.reconcile(None);
                world.pass(SignedDuration::from_secs(5));
            }
        }
    };
    quarrel(&mut world);
    assert_eq!((world.alias, world.traffic), (Some(version(3)), Traffic::One(version(1))));
    assert_eq!(reason(&world), "Contested");
    world.jump(SignedDuration::from_hours(2));
    world.settle();
    assert_eq!(world.alias, Some(version(3)), "it does not begin again by itself");

    world.intent.retry = Some("the other writer is gone".into());
    world.settle();
    assert_eq!((world.alias, reason(&world).as_str()), (Some(version(1)), "Serving"));

    quarrel(&mut world);
    assert_eq!(reason(&world), "Contested");
    promote(&mut world, 2);
    assert_eq!(world.alias, Some(version(2)), "another wish is another beginning");
}

#[test]
fn an_alias_moved_now_and_then_is_put_back_each_time() {
    let mut world = serving(1);
    for _ in 0..6 {
        world.alias = Some(version(3));
        world.settle();
        assert_eq!((world.alias, reason(&world).as_str()), (Some(version(1)), "Serving"));
        world.jump(SignedDuration::from_mins(6));
        world.settle();
    }
}

#[test]
fn a_retry_that_cannot_be_tried_yet_is_not_forgotten() {
    let mut world = serving(1);
    world.fates.insert(version(2), Fate::NeverReady);
    world.intent.wish = Wish::Version(version(2));
    world.settle();
    world.fates.insert(version(2), Fate::Good);
    world.intent.retry = Some("please".into());
    world.reachable = false;
    world.intent.lifecycle = Lifecycle::Suspended;
    world.settle();
    assert_eq!(world.record.retried, None);
    world.reachable = true;
    world.intent.lifecycle = Lifecycle::Active;
    world.settle();
    assert_eq!(world.traffic, Traffic::One(version(2)));
}

#[test]
fn what_serves_is_not_late_because_it_started_long_ago() {
    let mut world = serving(1);
    world.pass(SignedDuration::from_hours(2));
    let mut observed = world.observe();
    let workload = observed.cluster.workloads.get_mut(&version(1)).unwrap();
    (workload.ready, workload.rolled_out) = (1, false);
    workload.trouble = Some(Note::new(Reason::Unschedulable, "a node went"));
    let readiness = decide(&observed).report.readiness;
    assert!(matches!(readiness, Readiness::Progressing(_)), "{readiness:?}");
}

#[test]
fn what_serves_grows_while_another_version_comes_up_and_does_not_shrink() {
    let mut world = serving(1);
    world.fates.insert(version(2), Fate::NeverReady);
    world.intent.wish = Wish::Version(version(2));
    world.reconcile(None);
    for (replicas, size) in [(4, 4), (3, 4)] {
        world.serving().replicas = replicas;
        for _ in 0..3 {
            world.reconcile(None);
            world.pass(SignedDuration::from_secs(1));
        }
        let cluster = world.observe().cluster;
        assert_eq!(cluster.traffic, Traffic::One(version(1)));
        assert_eq!(cluster.workloads[&version(1)].desired, size);
        assert_eq!(cluster.workloads[&version(2)].desired, replicas);
    }
}

#[test]
fn the_warm_version_rests_when_its_time_is_over_and_history_is_kept() {
    let mut world = serving(1);
    for number in [2, 3, 4, 5] {
        promote(&mut world, number);
        assert_eq!(world.desired(version(number - 1)), 2, "the previous version is warm");
    }
    world.settle();
    let desired: Vec<u32> = (1..=5).map(|number| world.desired(version(number))).collect();
    assert_eq!(desired, [0, 0, 0, 0, 2]);
    let kept: Vec<bool> = (1..=5).map(|number| world.has_deployment(version(number))).collect();
    assert_eq!(kept, [false, false, true, true, true], "history: 2");
}

#[test]
fn a_service_deleted_by_hand_comes_back_at_once() {
    let mut world = serving(1);
    world.traffic = Traffic::Nowhere;
    let decision = world.reconcile(None);
    assert_eq!(decision.actions, [Action::Route(Traffic::One(version(1)))]);
}

#[test]
fn promise_9_a_deletion_waits_for_the_registry_only_so_long() {
    let mut world = serving(1);
    world.reachable = false;
    world.intent.lifecycle = Lifecycle::Deleting { since: world.now };
    assert!(world.intent.has_finalizer);
    let decision = world.reconcile(None);
    assert!(decision.actions.is_empty());
    world.pass(decision.wake.unwrap().duration_since(world.now));
    world.reconcile(None);
    assert!(!world.intent.has_finalizer);
}

#[test]
fn a_deletion_removes_the_alias_that_is_ours() {
    let mut world = serving(1);
    world.intent.lifecycle = Lifecycle::Deleting { since: world.now };
    let decision = world.reconcile(None);
    assert_eq!(
        decision.actions,
        [
            Action::DeleteAlias { role: AliasRole::Main, replaces: version(1) },
            Action::SetFinalizer { present: false },
        ]
    );
}

#[test]
fn rolling_exchanges_pods_and_goes_back_the_same_way() {
    let mut world = World::new(StrategyIntent::Rolling { max_surge: 1 }, 3);
    world.pod_limit = Some(4);
    world.settle();
    world.intent.wish = Wish::Version(version(2));
    world.settle();
    assert_eq!(
        (world.traffic, world.desired(version(1)), world.desired(version(2))),
        (Traffic::One(version(2)), 0, 3)
    );
    world.fates.insert(version(3), Fate::NeverReady);
    world.intent.wish = Wish::Version(version(3));
    world.settle();
    assert_eq!(
        (world.traffic, world.desired(version(2)), world.desired(version(3))),
        (Traffic::One(version(2)), 3, 0)
    );
}

#[test]
fn suspension_changes_nothing() {
    let mut world = serving(1);
    world.intent.wish = Wish::Version(version(2));
    world.intent.lifecycle = Lifecycle::Suspended;
    let decision = world.reconcile(None);
    assert!(decision.actions.is_empty());
    assert!(matches!(decision.report.readiness, Readiness::Stalled(_)));
}

#[test]
fn promise_7_what_is_held_because_the_wish_cannot_be_met_is_not_given_up_again_and_again() {
    let mut world = serving(5);
    world.traffic = Traffic::Nowhere;
    world.update_endpoints();
    world.fates.insert(version(5), Fate::NeverReady);
    world.intent.wish = Wish::Version(version(6));
    world.settle();
    assert_eq!(reason(&world), "VersionNotFound");
    assert_eq!(world.record.rejected, []);
}
