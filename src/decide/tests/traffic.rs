//! Stories of a route: what is written, in which order, and what is waited for.

use jiff::{SignedDuration, Timestamp};
use pretty_assertions::assert_eq;

use super::world::{
    BlockedBy, DesiredVersion, Event, Fate, GatewayIs, Reconcile, Registers, Serves, Step, World, version,
};
use crate::{
    api::condition::Reason,
    decide::{Action, GRACE, Mirror, Shares, StrategyIntent, Traffic, decide},
};

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

/// A world that serves version 1, where a version goes through 5 % and 50 %.
fn canary() -> World {
    let mut world = routed(1);
    world.happen(&Event::Steps(vec![Step::weight(5), Step::weight(50)]));
    world
}

fn beside(leader: u32, other: u32, per_cent: u32) -> Shares {
    let weight = if per_cent == 0 { Shares::LEAST } else { per_cent * 10_000 };
    Shares::beside(version(leader), [(version(other), weight)])
}

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

/// A world that serves version 1, where version 2 goes through these steps.
fn through(replicas: u32, steps: Vec<Step>) -> World {
    let mut world = routed(replicas);
    world.happen(&Event::Rules(true));
    world.happen(&Event::Steps(steps));
    desired(&mut world, 2);
    world
}

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

#[test]
fn promise_1_copies_come_first_and_end_when_the_version_gets_a_share() {
    let mut world = through(1, vec![Step::mirror(10), Step::mirror(100), Step::weight(5)]);
    let seen = watch(&mut world, 60);
    let copied =
        |shares: Shares, per_cent| shares.with_mirror(Some(Mirror { version: version(2), per_cent }));
    let due = [
        Shares::led_by(version(1), []),
        copied(Shares::led_by(version(1), []), 10),
        copied(Shares::led_by(version(1), []), 100),
        copied(beside(1, 2, 0), 100),
        beside(1, 2, 5),
        beside(2, 1, 0),
    ];
    let steps: Vec<Option<Shares>> = seen.iter().map(|(_, shares, _)| shares.clone()).collect();
    assert_eq!(steps, due.map(Some));
    for (index, seconds) in [(1, 5), (2, 5), (3, 1), (4, 5)] {
        let held = seen[index + 1].0.duration_since(seen[index].0);
        let due = SignedDuration::from_secs(seconds)..SignedDuration::from_secs(seconds + 4);
        assert!(due.contains(&held), "{index} took {held:#}");
    }
    world.settle();
    world.promise_of_rest();
}

/// Found by the random stories: the version went on with the copies of a step that was gone.
#[test]
fn a_version_gets_only_copies_that_one_of_the_present_steps_has() {
    let copied = |world: &World| shares(world).and_then(|shares| shares.mirrored_to(version(2)));
    let mut world = through(1, vec![Step::mirror(100).approved(None), Step::weight(5)]);
    world.live(20);
    assert_eq!(copied(&world), Some(100));
    world.happen(&Event::Steps(vec![Step::mirror(50)]));
    world.live(1);
    assert!(copied(&world).is_none_or(|copies| copies == 50), "{:?}", copied(&world));
    world.settle();
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    world.promise_of_rest();
}

#[test]
fn copies_are_reported_and_end_at_once_when_another_version_is_requested_or_the_pods_fail() {
    let changes = [
        Event::Desired(DesiredVersion::Version(1)),
        Event::Desired(DesiredVersion::Version(3)),
        Event::Pods { of: 2, are: Fate::NeverReady },
        Event::VersionServiceDeleted(2),
        Event::Steps(vec![]),
    ];
    for change in changes {
        let mut world = through(1, vec![Step::mirror(100).approved(None), Step::weight(5)]);
        world.live(60);
        let copied = |world: &World| shares(world).and_then(|shares| shares.mirrored_to(version(2)));
        assert_eq!(copied(&world), Some(100));
        let words = "version 2 gets a copy of each request: step 1 of 2, which waits for an approval";
        assert!(message(&world, "Ready").starts_with(words), "{}", message(&world, "Ready"));
        let split = format!("version 1 gets 100 % of the requests; {}", message(&world, "Ready"));
        assert_eq!(message(&world, "TrafficSplit"), split);
        assert_eq!(world.status.shares.as_deref(), Some("1: 100 %; 2: 0 %, copies of 100 %"));
        world.happen(&change);
        let actions = decide(&world.observe()).actions;
        let first = actions.iter().find_map(|action| match action {
            Action::Share(shares) => Some(shares.clone()),
            _ => None,
        });
        assert_eq!(first.map(|shares| shares.mirror()), Some(None), "{change:?}: {actions:?}");
        let index = actions.iter().position(|action| matches!(action, Action::Share(_)));
        assert_eq!(index, Some(0), "{change:?}: {actions:?}");
        world.settle();
        world.promise_of_rest();
    }
}

#[test]
fn promise_3_copies_go_on_while_it_is_not_known_whether_the_version_may_go_on() {
    for (begins, ends) in [
        (Event::Registry(Registers::Away), Event::Registry(Registers::Fine)),
        (Event::Blocked(BlockedBy::NoRegisteredModel), Event::Blocked(BlockedBy::Nothing)),
    ] {
        let mut world = through(1, vec![Step::mirror(30), Step::weight(50)]);
        while shares(&world).is_none_or(|shares| shares.mirror().is_none()) {
            assert!(world.second_of_story() < 100, "no copies");
            world.live(1);
        }
        world.happen(&begins);
        for (_, shares, _) in watch(&mut world, 60) {
            assert_eq!(shares.and_then(|shares| shares.mirrored_to(version(2))), Some(30), "{begins:?}");
        }
        world.happen(&ends);
        world.settle();
        world.promise_of_rest();
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    }
}
