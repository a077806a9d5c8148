//! Stories of live rules: what traffic shows of a version, and what becomes of the version.

use jiff::SignedDuration;
use pretty_assertions::assert_eq;

use super::world::{DesiredVersion, Event, Reconcile, Registers, Shows, Step, World, version};
use crate::{
    api::{
        condition::Reason,
        model_alias::{Cause, Outcome},
    },
    decide::{Action, Desired, Shares, StrategyIntent, Traffic, decide},
};

const RULE: &str = "{checks: [{name: failures, failures: {}}]}";

/// A world that serves version 1, judges by `rule`, and is asked for version 2 in these steps.
fn canary(rule: &str, steps: &[Step]) -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.serving().routed = true;
    world.serving().steps = steps.iter().map(|step| (*step).into()).collect();
    world.settle();
    world.judge_by(rule);
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world
}

/// A world that has promoted version 2, and watches it for 60 s.
fn promoted(rule: &str) -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.settle();
    world.judge_by(rule);
    world.serving().watch_for = Some(SignedDuration::from_secs(60));
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world.live(20);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    world
}

fn share(world: &World, number: u32) -> u32 {
    world.observe().cluster.route.map_or(0, |route| route.shares.per_cent(version(number)))
}

fn condition(world: &World, type_: &str) -> Option<(String, String)> {
    let found = world.status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone()))
}

fn live(status: &str, reason: Reason) -> (String, String) {
    (status.to_owned(), reason.to_string())
}

#[test]
fn a_step_ends_only_with_proof_that_the_version_is_no_worse() {
    let mut world = canary(RULE, &[Step::weight(5), Step::weight(50)]);
    world.live(200);
    assert_eq!(share(&world, 2), 5, "nothing is proven");
    assert_eq!(condition(&world, "LiveRulesPassed"), Some(live("Unknown", Reason::NotEnoughTraffic)));
    let watch = world.status.watch.clone().unwrap();
    assert_eq!((watch.version, watch.against, watch.step), (version(2), Some(version(1)), Some(1)));
    assert_eq!(watch.checks[0].verdict, "Undecided");
    world.shows(version(2), Shows::Fine);
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    assert_eq!(
        condition(&world, "LiveRulesPassed"),
        Some(live("True", Reason::NoWorse)),
        "what was proven stays"
    );
    assert_eq!(world.status.watch, None, "nothing is judged at rest");
    world.settle();
    world.promise_of_rest();
}

#[test]
fn promise_6_a_version_that_is_worse_loses_its_share_and_stays_rejected() {
    for steps in [vec![Step::weight(5), Step::weight(50)], vec![Step::mirror(100), Step::weight(5)]] {
        let mut world = canary(RULE, &steps);
        world.live(60);
        world.shows(version(2), Shows::Worse);
        world.live(20);
        assert_eq!((share(&world, 2), world.cluster.traffic), (0, Traffic::One(version(1))));
        let rejection = &world.status.rejected[0];
        assert_eq!((rejection.version, rejection.reason), (version(2), Reason::Regressed));
        assert_eq!(rejection.message, "version 2 is worse on live traffic: failures: as the story says");
        assert_eq!(condition(&world, "LiveRulesPassed"), Some(live("False", Reason::Regressed)));
        assert_eq!(condition(&world, "Stalled"), Some(live("True", Reason::Regressed)));
        world.shows(version(2), Shows::Fine);
        world.live(300);
        assert_eq!((share(&world, 2), world.cluster.traffic), (0, Traffic::One(version(1))));
        assert_eq!(world.status.watch, None);
        world.intent.retry = Some("again".into());
        world.live(120);
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)), "a retry begins at zero");
    }
}

#[test]
fn promise_3_without_data_traffic_stays_for_as_long_as_it_takes() {
    for shows in [Shows::NoData, Shows::OtherShares, Shows::Nothing] {
        let mut world = canary(RULE, &[Step::weight(5), Step::weight(50)]);
        world.shows(version(2), shows);
        world.live(60);
        let before = world.cost.events;
        world.live(4000);
        assert_eq!((share(&world, 2), world.status.rejected.len()), (5, 0), "{shows:?}");
        let events = u32::from(shows == Shows::NoData);
        assert_eq!(
            world.cost.events - before,
            usize::try_from(events).unwrap(),
            "{shows:?}: one Event, after unknownFor"
        );
    }
}

#[test]
fn at_the_end_of_a_step_in_which_nothing_was_proven_the_rules_say_what_happens() {
    let ends = [
        ("Hold", Traffic::One(version(1)), 5),
        ("Promote", Traffic::One(version(2)), 100),
        ("Reject", Traffic::One(version(1)), 0),
    ];
    for (when, traffic, gets) in ends {
        let rule = format!("{{checks: [{{name: failures, failures: {{}}}}], whenUndecided: {when}}}");
        let mut world = canary(&rule, &[Step::weight(5).within(30)]);
        world.live(25);
        assert_eq!(share(&world, 2), 5, "{when}");
        world.live(60);
        assert_eq!((world.cluster.traffic, share(&world, 2)), (traffic, gets), "{when}");
        let rejected: Vec<_> = world.status.rejected.iter().map(|rejection| rejection.reason).collect();
        assert_eq!(rejected, if when == "Reject" { vec![Reason::Undecided] } else { vec![] }, "{when}");
    }
}

#[test]
fn at_the_end_of_a_step_without_data_nothing_happens() {
    for when in ["Hold", "Promote", "Reject"] {
        let rule = format!("{{checks: [{{name: failures, failures: {{}}}}], whenUndecided: {when}}}");
        let mut world = canary(&rule, &[Step::weight(5).within(30)]);
        world.shows(version(2), Shows::NoData);
        world.live(300);
        assert_eq!((share(&world, 2), world.status.rejected.len()), (5, 0), "{when}");
    }
}

#[test]
fn data_that_return_after_the_end_of_a_step_decide_nothing_at_once() {
    for when in ["Promote", "Reject"] {
        let rule = format!("{{checks: [{{name: failures, failures: {{}}}}], whenUndecided: {when}}}");
        let mut world = canary(&rule, &[Step::weight(5).within(30)]);
        world.serving().steps[0].at_least = SignedDuration::from_secs(20);
        world.shows(version(2), Shows::NoData);
        world.live(300);
        world.shows(version(2), Shows::Nothing);
        world.live(15);
        assert_eq!((share(&world, 2), world.status.rejected.len()), (5, 0), "{when}");
        world.live(30);
        assert_ne!(share(&world, 2), 5, "{when}");
    }
}

#[test]
fn the_time_of_a_step_is_stopped_while_the_registry_is_away() {
    let rule = "{checks: [{name: failures, failures: {}}], whenUndecided: Reject}";
    let mut world = canary(rule, &[Step::weight(5).within(60)]);
    world.live(40);
    world.happen(&Event::Registry(Registers::Away));
    world.live(300);
    assert_eq!((share(&world, 2), world.status.rejected.len()), (5, 0));
    world.happen(&Event::Registry(Registers::Fine));
    world.live(120);
    assert_eq!(world.status.rejected[0].reason, Reason::Undecided);
}

#[test]
fn a_version_that_regressed_with_all_traffic_is_judged_again_after_a_retry() {
    let mut world = promoted("{checks: [{name: failures, failures: {}, max: 0.05}]}");
    world.live(20);
    world.shows(version(2), Shows::Worse);
    world.live(10);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    world.intent.retry = Some("again".into());
    world.live(20);
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world.live(30);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)), "it was still bad");
    assert_eq!(world.status.rejected.len(), 1);
}

#[test]
fn evidence_is_kept_while_work_is_suspended() {
    let mut world = canary(RULE, &[Step::weight(5)]);
    world.live(40);
    let covered = |world: &World| world.observe().live.map(|view| view.covered).unwrap_or_default();
    let before = covered(&world);
    world.happen(&Event::Suspend(true));
    world.live(30);
    world.happen(&Event::Suspend(false));
    world.live(5);
    assert!(covered(&world) >= before, "{:?}", covered(&world));
}

#[test]
fn rules_that_can_judge_nothing_say_so() {
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.judge_by(RULE);
    world.settle();
    assert_eq!(condition(&world, "LiveRulesPassed"), Some(live("Unknown", Reason::NotJudged)));
    world.promise_of_rest();
}

#[test]
fn when_many_become_worse_at_once_nothing_is_believed() {
    let mut world = canary(RULE, &[Step::weight(5)]);
    world.live(30);
    world.many_are_worse = true;
    world.shows(version(2), Shows::Worse);
    world.live(300);
    assert_eq!((share(&world, 2), world.status.rejected.len()), (5, 0));
    assert_eq!(condition(&world, "LiveRulesPassed"), Some(live("Unknown", Reason::ManyRegressed)));
}

#[test]
fn hold_and_report_move_nothing_back() {
    for (action, traffic) in [("Hold", version(1)), ("Report", version(2))] {
        let rule = format!("{{checks: [{{name: failures, failures: {{}}}}], onRegression: {action}}}");
        let mut world = canary(&rule, &[Step::weight(5)]);
        world.serving().steps[0].at_least = SignedDuration::from_secs(60);
        world.shows(version(2), Shows::Worse);
        world.live(40);
        assert_eq!(condition(&world, "LiveRulesPassed"), Some(live("False", Reason::Regressed)), "{action}");
        world.live(100);
        assert_eq!(world.cluster.traffic, Traffic::One(traffic), "{action}");
        assert!(world.status.rejected.is_empty(), "{action}");
    }
}

#[test]
fn promise_5_a_version_that_turns_bad_with_all_traffic_goes_back_at_once() {
    let mut world = promoted("{checks: [{name: failures, failures: {}, max: 0.05}]}");
    world.live(20);
    assert_eq!(
        world.status.watch.as_ref().map(|watch| (watch.version, watch.against)),
        Some((version(2), None))
    );
    world.shows(version(2), Shows::Worse);
    world.live(5);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    let newest = &world.status.history[0];
    assert_eq!(
        (newest.version, newest.outcome, newest.cause),
        (version(1), Outcome::RolledBack, Cause::Failure)
    );
    assert_eq!(world.status.rejected[0].reason, Reason::Regressed);
    world.live(400);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)), "it stays there");
}

#[test]
fn after_its_time_a_version_is_judged_no_longer() {
    let mut world = promoted("{checks: [{name: failures, failures: {}, max: 0.05}]}");
    world.shows(version(2), Shows::Fine);
    world.live(70);
    assert_eq!(world.status.watch, None);
    world.live(300);
    world.shows(version(2), Shows::Worse);
    world.live(300);
    assert_eq!((world.cluster.traffic, world.status.rejected.len()), (Traffic::One(version(2)), 0));
    assert_eq!(condition(&world, "LiveRulesPassed"), Some(live("True", Reason::NoWorse)));
    world.settle();
    world.promise_of_rest();
}

#[test]
fn time_without_data_does_not_count_as_watched() {
    let mut world = promoted("{checks: [{name: failures, failures: {}, max: 0.05}]}");
    world.shows(version(2), Shows::NoData);
    world.live(150);
    assert!(world.status.watch.is_some());
    world.shows(version(2), Shows::Worse);
    world.live(10);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
}

#[test]
fn promise_5_a_rollback_waits_for_no_live_rule_and_is_not_judged() {
    let mut world = canary(RULE, &[Step::weight(5)]);
    world.shows(version(2), Shows::Fine);
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    world.shows(version(1), Shows::Worse);
    world.intent.desired = Desired::Version(version(1));
    world.live(10);
    assert_eq!((world.cluster.traffic, world.status.rejected.len()), (Traffic::One(version(1)), 0));
    assert_eq!(decide(&world.observe()).live, None);
}

#[test]
fn promise_7_a_killed_operator_reaches_the_same_verdict_later() {
    let begin = {
        let mut world = canary(RULE, &[Step::weight(5), Step::weight(50)]);
        world.live(30);
        world.shows(version(2), Shows::Worse);
        world
    };
    for after in 0..4 {
        let mut world = begin.clone();
        for crash_after in 0..after {
            world.moment();
            world.reconcile_once(&Reconcile { crash_after: Some(crash_after), ..Reconcile::default() });
        }
        world.live(60);
        assert_eq!((share(&world, 2), world.status.rejected[0].reason), (0, Reason::Regressed), "{after}");
    }
}

#[test]
fn other_rules_or_other_settings_begin_at_zero() {
    let mut world = canary(RULE, &[Step::weight(5)]);
    world.live(30);
    let key = |world: &World| decide(&world.observe()).live.unwrap().key;
    let before = key(&world);
    world.judge_by("{checks: [{name: failures, failures: {}, margin: 3}]}");
    assert_ne!(key(&world), before);
    world.happen(&Event::Settings("b".into()));
    world.live(40);
    assert_ne!(key(&world).fingerprint, before.fingerprint);
}

#[test]
fn a_version_is_given_up_before_anything_else_is_done() {
    let mut world = canary(RULE, &[Step::weight(5)]);
    world.live(30);
    world.shows(version(2), Shows::Worse);
    world.moment();
    let decision = decide(&world.observe());
    assert_eq!(decision.rejection.map(|rejection| rejection.version), Some(version(2)));
    let [Action::Share(shares), ..] = decision.actions.as_slice() else { panic!("{:?}", decision.actions) };
    assert!(shares.of(version(2)) <= Shares::LEAST);
}

#[test]
fn a_rule_with_live_checks_alone_holds_no_version_back_before_its_traffic() {
    let mut world = canary(RULE, &[Step::weight(5)]);
    world.live(30);
    assert_eq!(condition(&world, "GatesPassed"), None);
}

#[test]
fn a_server_that_counts_nothing_is_not_judged_and_the_condition_says_what_to_set() {
    let mut world = canary(RULE, &[Step::weight(5)]);
    world.serving().counts_requests = false;
    world.shows(version(2), Shows::Fine);
    world.live(120);
    assert_eq!(share(&world, 2), 5);
    assert_eq!(condition(&world, "LiveRulesPassed"), Some(live("Unknown", Reason::MetricsMissing)));
}
