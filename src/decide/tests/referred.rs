//! Stories of a route of somebody else: it is taken over, put back, shared with others, and handed back.

use std::collections::BTreeMap;

use pretty_assertions::assert_eq;

use super::world::{DesiredVersion, Event, Fate, GatewayIs, Step, World, version};
use crate::{
    api::condition::Reason,
    decide::{Action, Shares, StrategyIntent, Traffic, decide},
};

fn handed_back() -> Shares {
    Shares::led_by_service([], BTreeMap::new())
}

fn entering(numbers: &[u32]) -> Shares {
    let versions = numbers.iter().map(|number| (version(*number), Shares::LEAST));
    Shares::led_by_service(versions, BTreeMap::new())
}

/// A world that serves version 1, with a route of somebody else, before the spec refers to it.
fn world() -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.happen(&Event::RouteApplied(true));
    world.settle();
    world.begin_story();
    world
}

/// The same, with the route taken over.
fn referred() -> World {
    let mut world = world();
    world.happen(&Event::Refer(true));
    world.happen(&Event::Traffic(true));
    world.settle();
    world.promise_of_rest();
    assert_eq!(shares(&world), Some(Shares::led_by(version(1), [])));
    world.begin_story();
    world
}

fn desired(world: &mut World, number: u32) {
    world.happen(&Event::Desired(DesiredVersion::Version(number)));
}

fn shares(world: &World) -> Option<Shares> {
    world.observe().cluster.route.map(|route| route.shares)
}

fn theirs(world: &World) -> Option<Shares> {
    world.cluster.gateway.their_shares()
}

fn condition(world: &World, type_: &str) -> (String, String) {
    let known = world.status.conditions.iter().find(|condition| condition.type_ == type_);
    known.map_or_else(Default::default, |condition| (condition.reason.clone(), condition.message.clone()))
}

/// Lives for so many seconds. Returns every change of the shares in their route.
fn watch(world: &mut World, seconds: u32) -> Vec<Option<Shares>> {
    let mut seen = vec![theirs(world)];
    for _ in 0..seconds {
        world.live(1);
        seen.push(theirs(world));
        seen.dedup();
    }
    seen
}

#[test]
fn promise_2_their_route_is_taken_over_and_handed_back_in_steps_that_lose_nothing() {
    let mut world = world();
    world.happen(&Event::Refer(true));
    world.happen(&Event::Traffic(true));
    let (one, entered) = (version(1), entering(&[1]));
    let leads = Shares::led_by(one, []);
    let leaves = leads.clone().beside_service(one);
    let seen = watch(&mut world, 60);
    let due = [handed_back(), entered.clone(), leaves.clone(), leads.clone()];
    assert_eq!(seen, due.map(Some));
    world.settle();
    world.promise_of_rest();
    assert!(world.intent.has_finalizer && world.status.route_ref.is_some());

    world.happen(&Event::Traffic(false));
    let seen = watch(&mut world, 120);
    assert_eq!(seen, [leads, leaves, entered, handed_back()].map(Some));
    world.settle();
    world.promise_of_rest();
    assert_eq!(world.status.route_ref, None);
}

#[test]
fn promise_7_a_manifest_that_is_applied_again_is_corrected_and_a_rollback_does_not_wait_for_that() {
    let mut world = referred();
    desired(&mut world, 2);
    world.live(60);
    assert_eq!(theirs(&world), Some(Shares::led_by(version(2), [version(1)])));
    world.happen(&Event::RouteApplied(true));
    // While the route names the Service, that moves at once, and the route with it.
    desired(&mut world, 1);
    let actions = decide(&world.observe()).actions;
    assert!(actions.contains(&Action::Route(Traffic::One(version(1)))), "{actions:?}");
    let seen = watch(&mut world, 30);
    assert_eq!(seen.first(), Some(&Some(handed_back())));
    assert_eq!(seen.last(), Some(&Some(Shares::led_by(version(1), [version(2)]))));
    world.settle();
    world.promise_of_rest();
}

#[test]
fn promise_10_a_route_that_is_missing_or_shared_with_others_holds_a_canary_and_is_reported() {
    let mut world = referred();
    world.happen(&Event::Steps(vec![Step::weight(10)]));
    world.happen(&Event::RouteDeleted(true));
    desired(&mut world, 2);
    world.live(60);
    let (reason, message) = condition(&world, "TrafficSplit");
    assert_eq!(reason, Reason::RouteUnusable.to_string());
    assert!(
        message.contains("there is no HTTPRoute \"theirs\"") && message.contains("create it"),
        "{message}"
    );
    assert_eq!(condition(&world, "Stalled").0, Reason::RouteUnusable.to_string());
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    world.settle();
    world.promise_of_rest();

    world.happen(&Event::RouteApplied(true));
    world.happen(&Event::RouteShared(true));
    world.live(60);
    assert_eq!(theirs(&world), Some(handed_back()), "nothing is written beside the backend of somebody else");
    assert!(condition(&world, "TrafficSplit").1.contains("\"other\""));
    world.happen(&Event::RouteShared(false));
    world.settle();
    world.promise_of_rest();
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
}

#[test]
fn a_backend_that_somebody_adds_later_stops_a_promotion_but_no_rollback() {
    let mut world = referred();
    desired(&mut world, 2);
    world.live(60);
    world.happen(&Event::RouteShared(true));
    let before = theirs(&world);
    desired(&mut world, 3);
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)), "the route cannot follow");
    desired(&mut world, 1);
    world.live(5);
    assert_eq!((world.cluster.traffic, theirs(&world)), (Traffic::One(version(1)), before));
    world.happen(&Event::RouteShared(false));
    world.settle();
    world.promise_of_rest();
}

#[test]
fn promise_9_a_route_is_handed_back_with_one_write_before_the_modelalias_goes() {
    let mut world = referred();
    world.happen(&Event::Deleted(true));
    let actions = decide(&world.observe()).actions;
    assert_eq!(actions, [Action::Share(handed_back())]);
    world.live(5);
    assert!(world.is_gone);
    assert_eq!(theirs(&world), Some(handed_back()));
}

#[test]
fn promise_9_a_route_that_cannot_be_seen_does_not_hold_up_a_deletion() {
    let mut world = referred();
    world.happen(&Event::Gateway(GatewayIs::Hidden));
    world.happen(&Event::Deleted(true));
    world.live(60);
    assert!(world.is_gone);
}

#[test]
fn promise_1_a_route_is_handed_back_at_once_if_what_it_names_cannot_answer_or_nobody_accepts_it() {
    for event in [
        Event::Gateway(GatewayIs::Away),
        Event::VersionServiceDeleted(1),
        Event::Pods { of: 1, are: Fate::NeverReady },
    ] {
        let mut world = referred();
        world.happen(&event);
        // Something else changes the route, so that a Gateway that is away has not accepted it.
        world.happen(&Event::RouteEdited(None));
        world.live(3);
        world.happen(&event);
        world.happen(&Event::Traffic(false));
        let seen = watch(&mut world, 5);
        assert_eq!(seen, [Some(Shares::led_by(version(1), [])), Some(handed_back())], "{event:?}");
        world.settle();
        world.promise_of_rest();
    }
}

#[test]
fn a_route_is_exchanged_for_one_that_laurel_renders_and_back() {
    let mut world = referred();
    world.happen(&Event::Refer(false));
    world.live(120);
    assert_eq!(theirs(&world), Some(handed_back()));
    assert_eq!(shares(&world), Some(Shares::led_by(version(1), [])));
    world.settle();
    world.promise_of_rest();
    assert!(!decide(&world.observe()).actions.contains(&Action::DeleteRoute));
    world.happen(&Event::Refer(true));
    world.settle();
    world.promise_of_rest();
    assert_eq!(theirs(&world), Some(Shares::led_by(version(1), [])));
}

#[test]
fn promise_1_while_the_gateway_accepts_nothing_their_route_leads_where_the_service_does() {
    let mut world = world();
    world.happen(&Event::Gateway(GatewayIs::Away));
    world.happen(&Event::Refer(true));
    world.happen(&Event::Traffic(true));
    let seen = watch(&mut world, 30);
    assert_eq!(
        seen,
        [Some(handed_back()), Some(entering(&[1]))],
        "the next step waits until this one is accepted"
    );
    assert_eq!(condition(&world, "TrafficSplit").0, Reason::TrafficPending.to_string());
    desired(&mut world, 2);
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)), "a promotion needs no Gateway here");
    world.happen(&Event::Gateway(GatewayIs::Fine));
    world.settle();
    world.promise_of_rest();
}
