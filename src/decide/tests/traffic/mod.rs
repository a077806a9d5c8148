//! Stories of a route: what is written, in which order, and what is waited for.
//!
//! ```text
//! mod        how traffic moves, and the route of Laurel's
//! canary     steps with shares
//! approvals  steps that somebody has to approve
//! copies     steps with copies
//! ```

use jiff::{SignedDuration, Timestamp};
use pretty_assertions::assert_eq;

use super::world::{DesiredVersion, Event, Fate, GatewayIs, Reconcile, Serves, Step, World, version};
use crate::{
    api::condition::Reason,
    decide::{Action, GRACE, Shares, StrategyIntent, Traffic, decide},
};

mod approvals;
mod canary;
mod copies;

/// A world that serves version 1 behind a route.
fn routed(replicas: u32) -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, replicas);
    world.serving().routed = true;
    world.settle();
    world.promise_of_rest();
    world.begin_story();
    world
}

pub(super) fn desired(world: &mut World, number: u32) {
    world.happen(&Event::Desired(DesiredVersion::Version(number)));
}

fn shares(world: &World) -> Option<Shares> {
    world.observe().cluster.route.map(|route| route.shares)
}

fn reason(world: &World, type_: &str) -> String {
    let known = world.status.conditions.iter().find(|condition| condition.type_ == type_);
    known.map_or_else(String::new, |condition| condition.reason.clone())
}

fn message(world: &World, type_: &str) -> String {
    let known = world.status.conditions.iter().find(|condition| condition.type_ == type_);
    known.map_or_else(String::new, |condition| condition.message.clone())
}

/// Lives for so many seconds. Returns every change of the shares and the selected version, with its time.
fn watch(world: &mut World, seconds: u32) -> Vec<(Timestamp, Option<Shares>, Traffic)> {
    let mut seen: Vec<(Timestamp, Option<Shares>, Traffic)> = Vec::new();
    for _ in 0..seconds {
        let now = (shares(world), world.cluster.traffic);
        if seen.last().is_none_or(|(_, shares, traffic)| (shares, traffic) != (&now.0, &now.1)) {
            seen.push((world.now, now.0, now.1));
        }
        world.live(1);
    }
    seen
}

fn beside(leader: u32, other: u32, per_cent: u32) -> Shares {
    let weight = if per_cent == 0 { Shares::LEAST } else { per_cent * 10_000 };
    Shares::beside(version(leader), [(version(other), weight)])
}

/// Returns the versions that the next decision lets the Service select, in order.
fn routes(world: &World) -> Vec<Traffic> {
    let actions = decide(&world.observe()).actions.into_iter();
    let routed = actions.filter_map(|action| match action {
        Action::Route(traffic) => Some(traffic),
        _ => None,
    });
    routed.collect()
}

/// Lets the operator work until version 2 has this share beside version 1.
fn live_until_share(world: &mut World, per_cent: u32) {
    while shares(world) != Some(beside(1, 2, per_cent)) {
        assert!(world.second_of_story() < 100, "no step of {per_cent} %");
        world.live(1);
    }
}

/// A world that serves version 1, where version 2 goes through these steps.
fn through(replicas: u32, steps: Vec<Step>) -> World {
    let mut world = routed(replicas);
    world.happen(&Event::Rules(true));
    world.happen(&Event::Steps(steps));
    desired(&mut world, 2);
    world
}

/// A world that serves version 1, where a version goes through 5 % and 50 %.
fn canary() -> World {
    let mut world = routed(1);
    world.happen(&Event::Steps(vec![Step::weight(5), Step::weight(50)]));
    world
}

#[test]
fn promise_1_a_version_enters_the_route_at_the_least_share_and_leaves_it_long_before_its_pods_go() {
    let mut world = routed(2);
    desired(&mut world, 2);
    let seen = watch(&mut world, 400);
    let (one, two) = (version(1), version(2));
    let steps: Vec<(Option<Shares>, Traffic)> =
        seen.iter().map(|(_, shares, traffic)| (shares.clone(), *traffic)).collect();
    let due = [
        (Shares::led_by(one, []), Traffic::One(one)),
        (Shares::led_by(one, [two]), Traffic::One(one)),
        (Shares::led_by(two, [one]), Traffic::One(two)),
        (Shares::led_by(two, []), Traffic::One(two)),
    ];
    assert_eq!(steps, due.map(|(shares, traffic)| (Some(shares), traffic)));
    let moved = seen[2].0.duration_since(seen[1].0);
    assert!(moved <= SignedDuration::from_secs(3), "traffic moved {moved:#} after the version entered");
    let left = seen[3].0;
    world.settle();
    world.promise_of_rest();
    // The world's own promise says that the Gateway sends nothing there any more.
    assert_eq!(world.desired(one), 0);
    assert!(
        world.now.duration_since(left) >= GRACE,
        "the pods went {:#} later",
        world.now.duration_since(left)
    );
}

#[test]
fn promise_5_a_rollback_waits_for_no_gateway() {
    let mut world = routed(1);
    desired(&mut world, 2);
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    world.happen(&Event::Gateway(GatewayIs::Away));
    // Something else changes the route, so that the Gateway has not accepted it.
    world.happen(&Event::RouteEdited(None));
    world.live(5);
    desired(&mut world, 1);
    let actions = decide(&world.observe()).actions;
    let back = Action::Share(Shares::led_by(version(1), [version(2)]));
    assert_eq!(actions[..2], [back, Action::Route(Traffic::One(version(1)))]);
}

#[test]
fn a_rollback_to_a_version_that_left_the_route_does_not_leap_and_waits_a_moment_for_the_gateway() {
    for is in [GatewayIs::Fine, GatewayIs::Away] {
        let mut world = routed(1);
        for number in [2, 3] {
            desired(&mut world, number);
            world.live(400);
        }
        world.happen(&Event::Gateway(is));
        desired(&mut world, 1);
        let seen = watch(&mut world, 20);
        let (one, three) = (version(1), version(3));
        let steps: Vec<Option<Shares>> = seen.iter().map(|(_, shares, _)| shares.clone()).collect();
        let due = [Shares::led_by(three, []), Shares::led_by(three, [one]), Shares::led_by(one, [three])];
        assert_eq!(steps, due.map(Some), "{is:?}");
        let waited = seen[2].0.duration_since(seen[1].0);
        assert!(waited <= SignedDuration::from_secs(3), "{waited:#} while the Gateway is {is:?}");
    }
}

#[test]
fn promise_10_a_gateway_that_accepts_nothing_holds_a_promotion_and_is_reported() {
    let mut world = routed(1);
    world.happen(&Event::Gateway(GatewayIs::Away));
    desired(&mut world, 2);
    world.live(120);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    assert_eq!(shares(&world), Some(Shares::led_by(version(1), [version(2)])));
    assert_eq!(reason(&world, "Ready"), Reason::TrafficPending.to_string());
    assert_eq!(reason(&world, "TrafficSplit"), Reason::TrafficPending.to_string());
    assert!(world.status.rejected.is_empty(), "the version has not failed");
    world.happen(&Event::Gateway(GatewayIs::Fine));
    world.live(30);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    world.settle();
    world.promise_of_rest();
}

#[test]
fn without_the_gateway_api_a_version_serves_through_its_service_and_the_condition_says_why() {
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.serving().routed = true;
    world.happen(&Event::Gateway(GatewayIs::Hidden));
    for number in [1, 2] {
        desired(&mut world, number);
        world.settle();
        world.promise_of_rest();
        assert_eq!(world.cluster.traffic, Traffic::One(version(number)));
        assert_eq!(reason(&world, "Ready"), Reason::TrafficUnsupported.to_string());
        assert_eq!(reason(&world, "Serving"), Reason::Serving.to_string());
    }
    assert_eq!(world.desired(version(1)), 0, "no route was ever seen");
}

#[test]
fn promise_3_what_a_route_named_last_keeps_its_pods_while_routes_cannot_be_seen() {
    let mut world = routed(1);
    world.happen(&Event::Gateway(GatewayIs::Hidden));
    desired(&mut world, 2);
    world.settle();
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    assert_eq!(world.desired(version(1)), 1, "the route may still send requests there");
    world.happen(&Event::Gateway(GatewayIs::Fine));
    world.settle();
    world.promise_of_rest();
    assert_eq!(world.desired(version(1)), 0);
}

#[test]
fn promise_1_while_the_leading_version_has_no_ready_pod_the_warm_one_gets_its_share_at_once() {
    let mut world = routed(1);
    desired(&mut world, 2);
    world.live(60);
    world.happen(&Event::Pods { of: 2, are: Fate::NeverReady });
    world.live(1);
    assert_eq!(shares(&world), Some(Shares::led_by(version(1), [])));
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
}

#[test]
fn the_weights_that_somebody_else_sets_are_put_back_without_a_leap() {
    let mut world = routed(1);
    desired(&mut world, 2);
    world.live(60);
    let before = shares(&world);
    world.happen(&Event::RouteEdited(Some(1)));
    world.live(5);
    assert_eq!(shares(&world), before);
    world.happen(&Event::RouteDeleted(true));
    world.live(5);
    assert_eq!(shares(&world), before);
}

#[test]
fn promise_1_a_service_changed_by_others_is_restored_while_another_version_waits_for_the_route() {
    let at_5_per_cent = || {
        let mut world = canary();
        desired(&mut world, 2);
        live_until_share(&mut world, 5);
        world
    };
    let pending = || {
        let mut world = routed(1);
        world.happen(&Event::Gateway(GatewayIs::Away));
        desired(&mut world, 2);
        world.live(60);
        world
    };
    let without_route = || {
        let mut world = canary();
        world.happen(&Event::Gateway(GatewayIs::Hidden));
        desired(&mut world, 2);
        world.live(60);
        world
    };
    let changes =
        [Event::Service(Serves::Deleted), Event::Service(Serves::Version(3)), Event::PortEdited(true)];
    for start in [at_5_per_cent(), pending(), without_route()] {
        for change in &changes {
            let mut world = start.clone();
            let before = shares(&world);
            world.happen(change);
            assert_eq!(routes(&world), [Traffic::One(version(1))], "after {change:?}");
            world.live(1);
            assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
            assert_eq!(shares(&world), before, "after {change:?}");
        }
    }
}

#[test]
fn promise_1_a_failover_does_not_wait_for_the_service_of_a_version() {
    let fails = vec![Event::Pods { of: 2, are: Fate::NeverReady }];
    let is_evicted = vec![Event::Pods { of: 2, are: Fate::NoRoom }, Event::PodsLost(2)];
    for losses in [fails, is_evicted] {
        let mut world = routed(1);
        desired(&mut world, 2);
        world.live(60);
        world.happen(&Event::VersionServicesRefused(true));
        world.happen(&Event::VersionServiceDeleted(1));
        for loss in &losses {
            world.happen(loss);
        }
        assert_eq!(routes(&world), [Traffic::One(version(1))], "{losses:?}");
        world.live(5);
        assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
        let leader = shares(&world).unwrap().leader();
        assert_eq!(leader, Some(version(2)), "a Service that does not exist leads to no pod");
        world.happen(&Event::VersionServicesRefused(false));
        world.live(10);
        assert_eq!(shares(&world).unwrap().leader(), Some(version(1)));
        world.happen(&Event::Pods { of: 2, are: Fate::Good });
        world.settle();
        world.promise_of_rest();
    }
}

#[test]
fn promise_5_a_rollback_does_not_wait_for_the_service_of_a_version() {
    let mut world = routed(1);
    desired(&mut world, 2);
    world.live(60);
    world.happen(&Event::VersionServicesRefused(true));
    world.happen(&Event::VersionServiceDeleted(1));
    world.live(5);
    let before = shares(&world);
    desired(&mut world, 1);
    assert_eq!(routes(&world), [Traffic::One(version(1))]);
    world.live(30);
    assert_eq!(shares(&world), before, "the Gateway finds no pod through a Service that does not exist");
    assert_eq!(world.ready(version(2)), 1);
    assert_eq!(reason(&world, "TrafficSplit"), Reason::TrafficPending.to_string());
    world.happen(&Event::VersionServicesRefused(false));
    world.live(10);
    assert_eq!(shares(&world).unwrap().leader(), Some(version(1)));
    world.settle();
    world.promise_of_rest();
}

/// Found by the model check: the operator was killed between the write of the route and that of the Service.
#[test]
fn promise_1_the_route_does_not_go_back_to_a_version_that_lost_its_pods() {
    let mut world = routed(1);
    desired(&mut world, 2);
    let flips = |world: &World| {
        let flip = Action::Share(Shares::led_by(version(2), [version(1)]));
        decide(&world.observe()).actions.first() == Some(&flip)
    };
    while !flips(&world) {
        assert!(world.second_of_story() < 100, "traffic never moves");
        if world.is_due() {
            world.watched_reconcile(&Reconcile::default());
        } else {
            world.moment();
        }
    }
    world.reconcile(Some(1));
    world.happen(&Event::StatusLost(true));
    world.happen(&Event::PodsLost(1));
    world.live(60);
    let route = shares(&world).unwrap();
    assert_eq!(route.leader(), Some(version(2)), "{route:?}");
    world.settle();
    world.promise_of_rest();
}
