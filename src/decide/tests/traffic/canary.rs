//! Stories of a canary: its steps, and what holds them up or begins them again.

use jiff::SignedDuration;
use pretty_assertions::assert_eq;

use super::super::world::{BlockedBy, Event, Fate, GatewayIs, Registers, Step, World, version};
use super::*;
use crate::{
    api::condition::Reason,
    decide::{Action, Shares, Traffic, decide},
};

#[test]
fn promise_1_a_canary_goes_from_step_to_step_and_then_gets_everything() {
    let mut world = canary();
    desired(&mut world, 2);
    let seen = watch(&mut world, 100);
    let steps: Vec<(Option<Shares>, Traffic)> =
        seen.iter().map(|(_, shares, traffic)| (shares.clone(), *traffic)).collect();
    let (one, two) = (Traffic::One(version(1)), Traffic::One(version(2)));
    let due = [
        (Shares::led_by(version(1), []), one),
        (beside(1, 2, 0), one),
        (beside(1, 2, 5), one),
        (beside(1, 2, 50), one),
        (beside(2, 1, 0), two),
    ];
    assert_eq!(steps, due.map(|(shares, traffic)| (Some(shares), traffic)));
    for pair in seen[2..].windows(2) {
        let held = pair[1].0.duration_since(pair[0].0);
        let due = SignedDuration::from_secs(5)..SignedDuration::from_secs(9);
        assert!(due.contains(&held), "a step took {held:#}");
    }
    world.settle();
    world.promise_of_rest();
}

#[test]
fn promise_5_a_canary_loses_its_share_with_the_first_write_when_another_version_is_requested() {
    for (number, per_cent) in [(1, 5), (1, 50), (3, 5), (3, 50)] {
        let mut world = canary();
        desired(&mut world, 2);
        live_until_share(&mut world, per_cent);
        desired(&mut world, number);
        let actions = decide(&world.observe()).actions;
        let first = actions.into_iter().find(|action| matches!(action, Action::Share(_)));
        assert_eq!(first, Some(Action::Share(beside(1, 2, 0))), "to version {number} at {per_cent} %");
        world.settle();
        world.promise_of_rest();
        assert_eq!(world.cluster.traffic, Traffic::One(version(number)));
    }
}

#[test]
fn a_canary_waits_for_the_gateway_api_and_a_rollback_does_not() {
    let mut world = canary();
    desired(&mut world, 2);
    world.live(60);
    world.happen(&Event::Gateway(GatewayIs::Hidden));
    desired(&mut world, 3);
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    assert_eq!(reason(&world, "Ready"), Reason::TrafficUnsupported.to_string());
    desired(&mut world, 1);
    world.live(1);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
}

#[test]
fn a_step_is_reported() {
    let mut world = canary();
    desired(&mut world, 2);
    live_until_share(&mut world, 5);
    world.live(2);
    let ready = world.status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    let until = world.status.canary.as_ref().unwrap().since + SignedDuration::from_secs(5);
    let due = format!(
        "version 2 gets 5 % of the requests for at least 5s, until {}: step 1 of 2",
        until.strftime("%Y-%m-%dT%H:%M:%SZ")
    );
    assert_eq!((ready.reason.as_str(), ready.message.as_str()), ("CanaryStep", due.as_str()));
    assert_eq!(message(&world, "TrafficSplit"), format!("version 1 gets 95 % of the requests; {due}"));
    assert_eq!(world.status.shares.as_deref(), Some("1: 95 %; 2: 5 %"));
    let shares = world.status.traffic.iter().map(|share| share.weight);
    assert_eq!(shares.collect::<Vec<_>>(), [95, 5]);
}

/// A world that serves version 1, where version 2 has this share, in a step that takes so many seconds.
fn in_a_step(replicas: u32, per_cent: u32, seconds: i64) -> World {
    let mut world = routed(replicas);
    world.happen(&Event::Rules(true));
    world.happen(&Event::Steps(vec![Step::weight(per_cent), Step::weight(50)]));
    world.serving().steps[0].at_least = SignedDuration::from_secs(seconds);
    desired(&mut world, 2);
    live_until_share(&mut world, per_cent);
    world
}

#[test]
fn promise_3_a_canary_keeps_its_share_while_it_is_not_known_whether_it_may_go_on() {
    let away = Event::Registry(Registers::Away);
    let blocked = |by| vec![Event::Blocked(by)];
    let outages = [
        (vec![away.clone()], vec![Event::Registry(Registers::Fine)]),
        (vec![away, Event::Up(false), Event::Up(true)], vec![Event::Registry(Registers::Fine)]),
        (vec![Event::Registry(Registers::HidesRuns)], vec![Event::Registry(Registers::Fine)]),
        (blocked(BlockedBy::InvalidTemplate), blocked(BlockedBy::Nothing)),
        (blocked(BlockedBy::NoRegisteredModel), blocked(BlockedBy::Nothing)),
        (blocked(BlockedBy::Conflict), blocked(BlockedBy::Nothing)),
    ];
    for (begins, ends) in outages {
        let mut world = in_a_step(1, 30, 5);
        for event in &begins {
            world.happen(event);
        }
        for (_, shares, _) in watch(&mut world, 60) {
            assert_eq!(shares, Some(beside(1, 2, 30)), "{begins:?}");
        }
        for event in &ends {
            world.happen(event);
        }
        world.live(1);
        assert_eq!(shares(&world), Some(beside(1, 2, 50)), "it goes on after {begins:?}");
        world.settle();
        world.promise_of_rest();
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    }
}

#[test]
fn a_canary_that_fails_the_rules_loses_its_share() {
    let mut world = in_a_step(1, 30, 300);
    world.happen(&Event::Approved { of: 2, is: false });
    world.live(1);
    assert_eq!(shares(&world).unwrap().per_cent(version(2)), 0);
}

#[test]
fn a_canary_keeps_its_share_while_its_size_changes_and_does_not_go_on() {
    for replicas in [1, 4] {
        let mut world = in_a_step(2, 30, 5);
        world.happen(&Event::Pods { of: 2, are: Fate::NoRoom });
        world.happen(&Event::Replicas(replicas));
        for (_, shares, _) in watch(&mut world, if replicas > 2 { 100 } else { 4 }) {
            assert_eq!(shares, Some(beside(1, 2, 30)), "with {replicas} replicas");
        }
        world.happen(&Event::Pods { of: 2, are: Fate::Good });
        let seen = watch(&mut world, 30).into_iter().map(|(_, shares, _)| shares);
        let due = [beside(1, 2, 30), beside(1, 2, 50), beside(2, 1, 0)];
        assert_eq!(seen.collect::<Vec<_>>(), due.map(Some), "with {replicas} replicas");
        world.settle();
        world.promise_of_rest();
    }
}

#[test]
fn a_canary_with_other_settings_or_a_failing_pod_begins_again() {
    for change in [Event::Settings("b".into()), Event::Pods { of: 2, are: Fate::OneDown }] {
        let mut world = in_a_step(2, 30, 300);
        world.happen(&change);
        world.live(1);
        assert_eq!(shares(&world), Some(beside(1, 2, 0)), "{change:?}");
        world.happen(&Event::Pods { of: 2, are: Fate::Good });
        world.live(20);
        assert_eq!(shares(&world), Some(beside(1, 2, 30)), "{change:?}");
    }
}

#[test]
fn promise_6_a_canary_that_is_not_ready_for_a_moment_long_after_its_start_is_not_rejected() {
    let mut world = in_a_step(1, 30, 600);
    world.live(200);
    world.happen(&Event::Pods { of: 2, are: Fate::NeverReady });
    world.live(50);
    assert!(!shares(&world).unwrap().names(version(2)));
    assert!(world.status.rejected.is_empty(), "within the deadline");
    world.happen(&Event::Pods { of: 2, are: Fate::Good });
    world.live(20);
    assert_eq!(shares(&world), Some(beside(1, 2, 30)));
    world.happen(&Event::Pods { of: 2, are: Fate::NeverReady });
    world.live(65);
    let rejected = world.status.rejected.first().map(|rejection| (rejection.version, rejection.reason));
    assert_eq!(rejected, Some((version(2), Reason::ProgressDeadlineExceeded)));
}
