//! Stories of drift: what a job has written about the inputs of a version, and what follows from it.

use jiff::SignedDuration;
use pretty_assertions::assert_eq;

use super::world::{DesiredVersion, Event, Registers, Step, World, version};
use crate::{
    api::condition::Reason,
    decide::{Desired, StrategyIntent, Traffic, decide},
};

const CHECKS: &str = "checks: [{name: failures, failures: {}}], whenUndecided: Promote";
const HOLD: &str = "{maxShare: 0.3, action: Hold}";

/// A world that serves version 1, with this rule about drift.
fn serving(drift: &str) -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.settle();
    world.judge_by(&format!("{{{CHECKS}, drift: {drift}}}"));
    world
}

/// A world that serves version 1, has this rule, and is asked for version 2 in one step.
fn canary(drift: &str) -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.serving().routed = true;
    world.serving().steps = vec![Step::weight(5).within(30).into()];
    world.settle();
    world.judge_by(&format!("{{{CHECKS}, drift: {drift}}}"));
    world
}

/// A job writes this about a version, now.
fn compared(world: &mut World, number: u32, share: &str, rows: u32) {
    let tags = [("share", share.to_owned()), ("rows", rows.to_string()), ("at", world.now.to_string())];
    let tags = tags.map(|(key, value)| (format!("laurel.drift.{key}"), value));
    world.drift.insert(version(number), tags.into());
}

fn condition(world: &World) -> Option<(String, String, String)> {
    let mut conditions = world.status.conditions.iter();
    let found = conditions.find(|condition| condition.type_ == "InputsAsTrained")?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// Asserts the status, the reason and the beginning of the message.
fn assert_reported(world: &World, status: &str, reason: Reason, begins: &str) {
    let found = condition(world).unwrap_or_else(|| panic!("no condition: {reason}"));
    assert_eq!((found.0.as_str(), found.1.as_str()), (status, reason.to_string().as_str()), "{}", found.2);
    assert!(found.2.starts_with(begins), "{begins:?}: {}", found.2);
}

#[test]
fn the_condition_says_what_the_tags_of_the_serving_version_mean() {
    let mut world = serving("{}");
    world.live(2);
    assert_reported(&world, "Unknown", Reason::DriftUnknown, "version 1: its tags have not been read");
    world.drift.insert(version(1), [].into());
    world.live(2);
    assert_reported(&world, "Unknown", Reason::DriftUnknown, "version 1: its inputs have not been compared");
    compared(&mut world, 1, "0.9", 30);
    world.live(2);
    assert_reported(&world, "Unknown", Reason::DriftUnknown, "version 1: too few rows: 30 of at least 1000");
    compared(&mut world, 1, "0.25", 5000);
    world.live(2);
    assert_reported(&world, "True", Reason::NoDrift, "version 1: in 5000 rows");
    compared(&mut world, 1, "0.5", 5000);
    world.live(2);
    assert_reported(&world, "False", Reason::InputsDrifted, "version 1: in 5000 rows");
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)), "the version before sees the same inputs");
    assert!(world.status.rejected.is_empty());
}

#[test]
fn without_a_rule_there_is_no_condition() {
    let mut world = serving("{}");
    world.live(2);
    assert!(condition(&world).is_some());
    world.judge_by(&format!("{{{CHECKS}}}"));
    world.live(2);
    assert_eq!(condition(&world), None);
    world.promise_of_rest();
}

#[test]
fn a_decision_wakes_when_a_result_becomes_too_old() {
    let mut world = serving("{maxAge: 1h}");
    world.settle();
    compared(&mut world, 1, "0.5", 5000);
    let ends = world.now + SignedDuration::from_hours(1);
    world.live(2);
    assert_eq!(decide(&world.observe()).wake, Some(ends));
    let mut observed = world.observe();
    observed.now = ends;
    let crate::decide::DriftReport::Reported(_, cause) = decide(&observed).report.drift else { panic!() };
    assert_eq!(cause.reason, Reason::DriftUnknown);
    assert_eq!(decide(&observed).wake, None, "nothing changes any more by itself");
}

#[test]
fn with_hold_a_canary_stays_in_its_step_until_its_inputs_are_as_in_the_training() {
    let mut world = canary(HOLD);
    compared(&mut world, 1, "0", 5000);
    compared(&mut world, 2, "0.5", 5000);
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world.live(600);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    assert_reported(&world, "False", Reason::InputsDrifted, "version 2: in 5000 rows");
    assert!(condition(&world).unwrap().2.ends_with("its canary stays in its step (action: Hold)"));
    let ready = world.status.conditions.iter().find(|condition| condition.type_ == "Reconciling").unwrap();
    assert!(ready.message.contains("while its inputs differ from its training data"), "{}", ready.message);
    assert!(world.status.rejected.is_empty());
    compared(&mut world, 2, "0.1", 5000);
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    assert_reported(&world, "True", Reason::NoDrift, "version 2: ");
}

#[test]
fn with_report_a_canary_goes_on() {
    let mut world = canary("{}");
    compared(&mut world, 2, "0.5", 5000);
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world.live(120);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    assert_reported(&world, "False", Reason::InputsDrifted, "version 2: ");
}

#[test]
fn promise_3_drift_that_is_unknown_holds_nothing() {
    let unknown = |write: fn(&mut World)| {
        let mut world = canary(HOLD);
        write(&mut world);
        world.happen(&Event::Desired(DesiredVersion::Version(2)));
        world.live(120);
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)), "{:?}", condition(&world));
        assert_reported(&world, "Unknown", Reason::DriftUnknown, "version 2: ");
    };
    unknown(|_| ());
    unknown(|world| compared(world, 2, "0.9", 30));
    unknown(|world| compared(world, 2, "much", 5000));
    unknown(|world| {
        world.now -= SignedDuration::from_hours(27);
        compared(world, 2, "0.9", 5000);
        world.now += SignedDuration::from_hours(27);
    });
}

#[test]
fn a_hold_ends_when_its_result_becomes_too_old() {
    let mut world = canary("{maxAge: 10m, action: Hold}");
    compared(&mut world, 2, "0.9", 5000);
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world.live(500);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    world.live(200);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
}

#[test]
fn what_was_seen_holds_while_the_registry_is_away() {
    let mut world = canary(HOLD);
    compared(&mut world, 2, "0.9", 5000);
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world.live(60);
    assert_reported(&world, "False", Reason::InputsDrifted, "version 2: ");
    world.happen(&Event::Registry(Registers::Away));
    world.live(300);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    assert_reported(&world, "False", Reason::InputsDrifted, "version 2: ");
}

#[test]
fn promise_5_drift_holds_no_rollback() {
    let mut world = canary(HOLD);
    compared(&mut world, 2, "0", 5000);
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world.live(120);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    compared(&mut world, 1, "0.9", 5000);
    compared(&mut world, 2, "0.9", 5000);
    world.live(2);
    world.intent.desired = Desired::Version(version(1));
    world.live(10);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
}

#[test]
fn events_say_when_drift_begins_ends_or_is_no_longer_known() {
    let mut world = serving("{}");
    world.drift.insert(version(1), [].into());
    world.live(2);
    let before = world.cost.events;
    let mut events = Vec::new();
    for (share, rows) in
        [("0.1", 5000), ("0.9", 5000), ("0.8", 6000), ("0.1", 5000), ("0.1", 5), ("0.1", 5000)]
    {
        compared(&mut world, 1, share, rows);
        world.live(3);
        events.push(world.cost.events - before);
    }
    assert_eq!(events, [0, 1, 1, 2, 3, 3]);
}

#[test]
fn another_limit_for_drift_does_not_restart_the_counting_of_requests() {
    let mut world = canary(HOLD);
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world.live(10);
    let key = |world: &World| decide(&world.observe()).live.map(|watch| watch.key);
    let before = key(&world);
    assert!(before.is_some());
    world.judge_by(&format!("{{{CHECKS}, drift: {{maxShare: 0.4}}}}"));
    assert_eq!(key(&world), before);
}
