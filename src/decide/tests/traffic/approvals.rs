//! Stories of approvals: what they count for, and what happens without them.

use jiff::SignedDuration;
use pretty_assertions::assert_eq;

use super::super::world::{
    BlockedBy, DesiredVersion, Event, Fate, GatewayIs, Registers, Step, World, version,
};
use super::*;
use crate::{
    api::condition::Reason,
    decide::{Action, Shares, Traffic, decide},
};

fn approve(world: &mut World, value: &str) {
    world.happen(&Event::Approve(Some(value.into())));
}

fn approved_steps(world: &World) -> Vec<u32> {
    let canary = world.status.canary.as_ref();
    canary.map_or_else(Vec::new, |canary| canary.approvals.iter().map(|approval| approval.step).collect())
}

fn ignored(world: &World) -> Option<String> {
    world.status.approval.as_ref()?.ignored.clone()
}

#[test]
fn a_step_that_needs_an_approval_waits_for_it_and_the_history_has_who_gave_it() {
    let mut world = through(1, vec![Step::weight(5).approved(None), Step::weight(50)]);
    world.live(300);
    assert_eq!(shares(&world), Some(beside(1, 2, 5)));
    assert_eq!(reason(&world, "Ready"), Reason::AwaitingApproval.to_string());
    let due = "version 2 gets 5 % of the requests: step 1 of 2, which waits for an approval: set the annotation \
               laurel.dev/approve to \"2\"";
    assert_eq!(message(&world, "Ready"), due);
    world.promise_of_rest();
    approve(&mut world, "2");
    let at = world.now;
    world.live(1);
    assert_eq!((shares(&world), approved_steps(&world)), (Some(beside(1, 2, 50)), vec![1]));
    world.settle();
    world.promise_of_rest();
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    let entry = &world.status.history[0];
    let by: Vec<_> =
        entry.approvals.iter().map(|it| (it.step, it.weight, it.manager.as_str(), it.at)).collect();
    assert_eq!(by, [(1, Some(5), "kubectl-annotate", at)]);
    assert_eq!(world.status.canary, None);
}

#[test]
fn an_approval_is_for_the_version_and_the_step_that_it_names_and_others_are_reported() {
    for (value, why) in [
        ("3", "version 3 was in no step of a canary when it was set"),
        ("2/2", "version 2 was in step 1, not 2, when it was set"),
        ("yes", "it is neither a version nor a version and a step, as in \"5\" and \"5/2\""),
        ("2/one", "it is neither a version nor a version and a step, as in \"5\" and \"5/2\""),
    ] {
        let mut world = through(1, vec![Step::weight(5).approved(None)]);
        live_until_share(&mut world, 5);
        world.live(10);
        approve(&mut world, value);
        world.live(60);
        assert_eq!(shares(&world), Some(beside(1, 2, 5)), "{value:?}");
        assert_eq!(ignored(&world).as_deref(), Some(why));
        assert!(message(&world, "Ready").ends_with(&format!("to \"2\" (it is {value:?}: {why})")), "{value}");
        world.promise_of_rest();
        approve(&mut world, "2/1");
        world.live(20);
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)), "{value:?}");
    }
}

#[test]
fn an_approval_does_not_count_for_a_step_that_was_not_reached() {
    for value in ["2", "2/2"] {
        let mut world = through(1, vec![Step::weight(5), Step::weight(50).approved(None)]);
        live_until_share(&mut world, 5);
        world.live(2);
        approve(&mut world, value);
        world.live(60);
        assert_eq!((shares(&world), approved_steps(&world)), (Some(beside(1, 2, 50)), vec![]), "{value:?}");
        let other = if value == "2" { "2/2" } else { "2" };
        let asks = format!("set the annotation laurel.dev/approve to {other:?}");
        assert!(message(&world, "Ready").contains(&asks), "{}", message(&world, "Ready"));
        approve(&mut world, other);
        world.live(20);
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)), "{value:?}");
    }
}

#[test]
fn an_approval_does_not_count_for_steps_that_begin_again_nor_for_a_later_attempt() {
    let again = [
        vec![Event::Pods { of: 2, are: Fate::NeverReady }, Event::Pods { of: 2, are: Fate::Good }],
        vec![Event::Settings("b".into())],
        vec![Event::Desired(DesiredVersion::Version(1)), Event::Desired(DesiredVersion::Version(2))],
    ];
    for events in again {
        let mut world = through(1, vec![Step::weight(5).approved(None), Step::weight(50)]);
        world.serving().steps[1].at_least = SignedDuration::from_secs(300);
        live_until_share(&mut world, 5);
        world.live(2);
        approve(&mut world, "2");
        world.live(20);
        assert_eq!(shares(&world), Some(beside(1, 2, 50)));
        for event in &events {
            world.happen(event);
            world.live(2);
        }
        world.live(60);
        assert_eq!((shares(&world), approved_steps(&world)), (Some(beside(1, 2, 5)), vec![]), "{events:?}");
        assert_eq!(reason(&world, "Ready"), Reason::AwaitingApproval.to_string(), "{events:?}");
        approve(&mut world, "2/1");
        world.live(20);
        assert_eq!(shares(&world), Some(beside(1, 2, 50)), "{events:?}");
    }
}

#[test]
fn promise_7_an_approval_counts_once_whenever_the_operator_is_killed() {
    let mut begin = through(1, vec![Step::weight(5).approved(None), Step::weight(50).approved(None)]);
    begin.live(60);
    approve(&mut begin, "2");
    for kills in 0..12 {
        let mut world = begin.clone();
        for _ in 0..kills {
            let writes = decide(&world.observe()).actions.len();
            world.reconcile(Some(writes));
            world.moment();
        }
        world.live(60);
        assert_eq!((shares(&world), approved_steps(&world)), (Some(beside(1, 2, 50)), vec![1]), "{kills}");
        assert_eq!(reason(&world, "Ready"), Reason::AwaitingApproval.to_string());
    }
}

#[test]
fn promise_6_a_version_that_nobody_approves_in_time_loses_its_share_and_is_rejected() {
    for step in [Step::weight(5), Step::mirror(100)] {
        let mut world = through(1, vec![step.approved(Some(60)), Step::weight(50)]);
        while world.status.canary.is_none() {
            assert!(world.second_of_story() < 100, "no step");
            world.live(1);
        }
        let since = world.status.canary.as_ref().unwrap().since;
        world.live(20);
        let until = (since + SignedDuration::from_secs(60)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        assert!(message(&world, "Ready").contains(&format!("waits for an approval until {until}")));
        while world.status.rejected.is_empty() {
            assert!(world.second_of_story() < 200, "not rejected");
            if decide(&world.observe()).rejection.is_some() {
                let actions = decide(&world.observe()).actions;
                let due =
                    if step == Step::weight(5) { beside(1, 2, 0) } else { Shares::led_by(version(1), []) };
                assert_eq!(actions.first(), Some(&Action::Share(due)));
                // Killed before the status has it.
                let mut killed = world.clone();
                killed.reconcile(Some(actions.len()));
                killed.live(30);
                assert_eq!(killed.status.rejected.len(), 1);
            }
            world.live(1);
        }
        let rejected = &world.status.rejected[0];
        assert_eq!((rejected.version, rejected.reason), (version(2), Reason::NotApproved));
        assert!(
            rejected.message.contains("within spec.rollout.steps[0].atMost (1m)"),
            "{}",
            rejected.message
        );
        world.settle();
        world.promise_of_rest();
        assert_eq!(reason(&world, "Ready"), Reason::NotApproved.to_string());
        assert_eq!(shares(&world), Some(Shares::led_by(version(1), [])));
        approve(&mut world, "2");
        world.live(60);
        assert_eq!(shares(&world), Some(Shares::led_by(version(1), [])), "it stays rejected");
        world.happen(&Event::Retry("1".into()));
        world.live(20);
        assert!(world.status.canary.is_some() && approved_steps(&world).is_empty(), "it is tried again");
    }
}

#[test]
fn promise_7_nothing_changes_in_the_status_while_a_canary_is_suspended_in_mid_step() {
    let mut world = through(1, vec![Step::weight(5).approved(Some(60))]);
    live_until_share(&mut world, 5);
    world.live(2);
    world.happen(&Event::Suspend(true));
    world.live(1);
    world.promise_of_rest();
    let due = "version 1 gets 95 % of the requests; version 2 gets 5 % of the requests: step 1 of 1";
    assert_eq!(message(&world, "TrafficSplit"), due);
}

#[test]
fn an_approval_that_is_there_when_the_time_is_over_counts() {
    let mut world = through(1, vec![Step::weight(5).approved(Some(60)), Step::weight(50)]);
    live_until_share(&mut world, 5);
    world.live(30);
    world.happen(&Event::Up(false));
    world.live(100);
    approve(&mut world, "2");
    world.happen(&Event::Up(true));
    world.live(2);
    assert_eq!((shares(&world), approved_steps(&world)), (Some(beside(1, 2, 50)), vec![1]));
    assert!(world.status.rejected.is_empty());
}

#[test]
fn promise_6_the_time_of_a_step_is_stopped_while_nobody_could_approve() {
    let outages = [
        (Event::Registry(Registers::Away), Event::Registry(Registers::Fine)),
        (Event::Suspend(true), Event::Suspend(false)),
        (Event::Blocked(BlockedBy::InvalidTemplate), Event::Blocked(BlockedBy::Nothing)),
        (Event::Gateway(GatewayIs::Hidden), Event::Gateway(GatewayIs::Fine)),
    ];
    for has_rules in [true, false] {
        for (begins, ends) in &outages {
            let mut world = through(1, vec![Step::weight(5).approved(Some(60))]);
            world.happen(&Event::Rules(has_rules));
            live_until_share(&mut world, 5);
            world.live(20);
            world.happen(begins);
            world.live(500);
            assert!(world.status.rejected.is_empty(), "{begins:?}");
            world.promise_of_rest();
            assert_eq!(shares_of_the_cluster(&world), Some(beside(1, 2, 5)), "{begins:?}");
            world.happen(ends);
            world.live(20);
            assert!(world.status.rejected.is_empty(), "{begins:?}");
            assert_eq!(shares(&world), Some(beside(1, 2, 5)), "{begins:?}");
            world.live(40);
            let reason = world.status.rejected.first().map(|rejection| rejection.reason);
            assert_eq!(reason, Some(Reason::NotApproved), "{begins:?}");
        }
    }
}

/// What the route has, even if the operator cannot see it.
fn shares_of_the_cluster(world: &World) -> Option<Shares> {
    let mut world = world.clone();
    world.happen(&Event::Gateway(GatewayIs::Fine));
    shares(&world)
}

#[test]
fn an_approval_that_comes_while_the_registry_is_away_or_while_suspended_counts() {
    let outages = [
        (Event::Registry(Registers::Away), Event::Registry(Registers::Fine)),
        (Event::Suspend(true), Event::Suspend(false)),
        (Event::Blocked(BlockedBy::InvalidTemplate), Event::Blocked(BlockedBy::Nothing)),
    ];
    for (begins, ends) in outages {
        let mut world = through(1, vec![Step::weight(5).approved(Some(60)), Step::weight(50)]);
        live_until_share(&mut world, 5);
        world.live(20);
        world.happen(&begins);
        world.live(10);
        approve(&mut world, "2");
        world.live(10);
        assert_eq!((shares(&world), approved_steps(&world)), (Some(beside(1, 2, 5)), vec![1]), "{begins:?}");
        world.happen(&ends);
        world.settle();
        world.promise_of_rest();
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    }
}

#[test]
fn a_version_that_lacks_an_approval_does_not_take_over() {
    let mut world = through(1, vec![Step::weight(5).approved(None)]);
    live_until_share(&mut world, 5);
    world.live(20);
    world.happen(&Event::Pods { of: 1, are: Fate::NeverReady });
    world.live(60);
    assert_eq!((shares(&world), world.cluster.traffic), (Some(beside(1, 2, 5)), Traffic::One(version(1))));
    approve(&mut world, "2");
    world.live(10);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    world.settle();
    world.promise_of_rest();
}

/// Found by the random stories: nobody could approve a version that was in no step.
#[test]
fn a_version_can_be_approved_although_the_one_that_served_is_gone() {
    for steps in [
        vec![Step::weight(5), Step::weight(50).approved(None)],
        vec![Step::mirror(100).approved(None), Step::weight(5)],
    ] {
        let mut world = through(1, steps);
        world.happen(&Event::DeploymentDeleted(1));
        world.live(120);
        assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
        assert_eq!(reason(&world, "Ready"), Reason::AwaitingApproval.to_string());
        world.promise_of_rest();
        approve(&mut world, "2");
        world.live(30);
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
        world.settle();
        world.promise_of_rest();
    }
}

#[test]
fn a_route_that_somebody_else_gives_to_a_version_that_lacks_an_approval_is_put_back() {
    let mut world = through(1, vec![Step::weight(5).approved(None), Step::weight(50)]);
    live_until_share(&mut world, 5);
    world.live(20);
    world.happen(&Event::RouteEdited(Some(2)));
    world.live(20);
    assert_eq!(shares(&world), Some(beside(1, 2, 5)));
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
}
