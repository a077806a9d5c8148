//! Tests of promotion rules, on decisions and statuses.

use super::world::{DesiredVersion, Event, Registers, World, version};
use crate::{
    api::{
        condition::Reason,
        model_alias::{Drift, Outcome},
    },
    decide::{AliasRole, Desired, StrategyIntent, Traffic, decide},
};

fn serving(strategy: StrategyIntent, numbers: &[u32]) -> World {
    let mut world = World::new(strategy, 2);
    for &number in numbers {
        world.intent.desired = Desired::Version(version(number));
        world.live(40);
        assert_eq!(world.cluster.traffic, Traffic::One(version(number)));
    }
    world.happen(&Event::Rules(true));
    world
}

fn condition(world: &World, type_: &str) -> Option<(String, String)> {
    let found = world.status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone()))
}

fn reported(status: &str, reason: Reason) -> (String, String) {
    (status.to_owned(), reason.to_string())
}

const STRATEGIES: [StrategyIntent; 2] = [StrategyIntent::BlueGreen, StrategyIntent::Rolling { max_surge: 1 }];

#[test]
fn a_version_waits_for_its_rules_and_continues_when_approved() {
    for strategy in STRATEGIES {
        let mut world = serving(strategy, &[1]);
        world.happen(&Event::Approved { of: 2, is: false });
        // The next poll sees it.
        world.live(1);
        world.happen(&Event::Desired(DesiredVersion::Version(2)));
        world.live(60);
        assert_eq!(world.made(version(2)), 0, "no pod is started for it");
        assert_eq!(condition(&world, "Ready"), Some(reported("False", Reason::GatesFailed)));
        assert_eq!(condition(&world, "Stalled"), Some(reported("True", Reason::GatesFailed)));
        assert_eq!(condition(&world, "GatesPassed"), Some(reported("False", Reason::GatesFailed)));
        assert!(world.status.rejected.is_empty(), "it is not rejected");
        world.happen(&Event::Approved { of: 2, is: true });
        world.live(60);
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
        assert_eq!(condition(&world, "GatesPassed"), Some(reported("True", Reason::GatesPassed)));
        // A serving version is not judged any more.
        world.happen(&Event::Approved { of: 2, is: false });
        world.live(60);
        assert_eq!(condition(&world, "GatesPassed"), Some(reported("True", Reason::GatesPassed)));
        world.happen(&Event::Rules(false));
        world.live(10);
        assert_eq!(condition(&world, "GatesPassed"), None);
    }
}

#[test]
fn promise_5_a_rollback_is_one_write_regardless_of_the_rules() {
    let mut world = serving(StrategyIntent::BlueGreen, &[1, 2]);
    for number in [1, 2] {
        world.happen(&Event::Approved { of: number, is: false });
    }
    world.happen(&Event::Registry(Registers::HidesRuns));
    world.intent.desired = Desired::Version(version(1));
    let decision = world.reconcile(None);
    assert_eq!(decision.actions, [crate::decide::Action::Route(Traffic::One(version(1)))]);
    assert_eq!(world.status.history[0].outcome, Outcome::RolledBack);
    assert_eq!(condition(&world, "GatesPassed"), Some(reported("True", Reason::ServedBefore)));
}

#[test]
fn promise_3_rules_that_cannot_be_evaluated_change_nothing_even_during_a_rollout() {
    for strategy in STRATEGIES {
        let mut world = serving(strategy, &[1]);
        world.happen(&Event::Desired(DesiredVersion::Version(2)));
        world.live(2);
        let pods = world.desired(version(2));
        assert!(pods > 0, "it was admitted");
        world.happen(&Event::Registry(Registers::HidesRuns));
        world.live(50);
        assert_eq!(decide(&world.observe()).actions, []);
        assert_eq!((world.cluster.traffic, world.desired(version(2))), (Traffic::One(version(1)), pods));
        assert_eq!(condition(&world, "GatesPassed"), Some(reported("Unknown", Reason::RegistryUnreachable)));
        assert_eq!(condition(&world, "Reconciling"), Some(reported("True", Reason::RegistryUnreachable)));
        world.happen(&Event::Registry(Registers::Fine));
        world.live(60);
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    }
}

#[test]
fn a_version_that_stops_meeting_the_rules_before_serving_is_held_back_and_scaled_down() {
    for strategy in STRATEGIES {
        let mut world = serving(strategy, &[1]);
        world.happen(&Event::Desired(DesiredVersion::Version(2)));
        world.live(2);
        assert!(world.desired(version(2)) > 0);
        world.happen(&Event::Percent { of: 2, is: None });
        world.live(60);
        assert_eq!((world.cluster.traffic, world.desired(version(2))), (Traffic::One(version(1)), 0));
        assert_eq!(condition(&world, "Ready"), Some(reported("False", Reason::GatesFailed)));
        world.happen(&Event::Percent { of: 2, is: Some(90) });
        world.live(60);
        assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
    }
}

#[test]
fn an_alias_on_a_version_that_the_rules_reject_is_put_back_and_reported() {
    let mut world = serving(StrategyIntent::BlueGreen, &[1]);
    world.happen(&Event::Desired(DesiredVersion::REGISTRY));
    world.happen(&Event::Approved { of: 2, is: false });
    world.happen(&Event::Alias(Some(2)));
    world.live(60);
    assert_eq!(world.alias(AliasRole::Main), 1);
    assert_eq!(condition(&world, "RegistrySynced"), Some(reported("True", Reason::AliasPutBack)));
    assert_eq!(world.status.history[0].outcome, Outcome::Rejected);
    assert_eq!(world.status.history.iter().filter(|entry| entry.version == version(2)).count(), 1);
    // An approval alone requests nothing: somebody moves the alias again.
    world.happen(&Event::Approved { of: 2, is: true });
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    world.happen(&Event::Alias(Some(2)));
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
}

#[test]
fn with_drift_report_an_alias_on_a_rejected_version_stays_and_waits_for_the_rules() {
    let mut world = serving(StrategyIntent::BlueGreen, &[1]);
    world.happen(&Event::Desired(DesiredVersion::REGISTRY));
    world.happen(&Event::Drift(Drift::Report));
    world.happen(&Event::Approved { of: 2, is: false });
    world.happen(&Event::Alias(Some(2)));
    world.live(60);
    assert_eq!(world.alias(AliasRole::Main), 2);
    assert_eq!(world.cluster.traffic, Traffic::One(version(1)));
    assert_eq!(condition(&world, "RegistrySynced"), Some(reported("False", Reason::AliasDrifted)));
    assert_eq!(condition(&world, "Ready"), Some(reported("False", Reason::GatesFailed)));
    world.happen(&Event::Approved { of: 2, is: true });
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
}

#[test]
fn an_alias_ahead_of_rules_that_cannot_be_evaluated_is_not_moved() {
    let mut world = serving(StrategyIntent::BlueGreen, &[1]);
    world.happen(&Event::Desired(DesiredVersion::REGISTRY));
    world.happen(&Event::Registry(Registers::HidesRuns));
    world.happen(&Event::Alias(Some(2)));
    world.live(60);
    assert_eq!((world.alias(AliasRole::Main), world.made(version(2))), (2, 0));
    world.happen(&Event::Registry(Registers::Fine));
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
}

#[test]
fn without_serving_the_alias_itself_waits_for_the_rules() {
    let mut world = serving(StrategyIntent::BlueGreen, &[1]);
    world.happen(&Event::Serving(false));
    world.live(20);
    world.happen(&Event::Percent { of: 2, is: Some(50) });
    world.happen(&Event::Desired(DesiredVersion::Version(2)));
    world.live(20);
    assert_eq!(world.alias(AliasRole::Main), 1);
    assert_eq!(condition(&world, "Ready"), Some(reported("False", Reason::GatesFailed)));
    // Somebody sets the alias anyway; it is put back.
    world.happen(&Event::Alias(Some(2)));
    world.live(20);
    assert_eq!((world.alias(AliasRole::Main), world.status.version), (1, Some(version(1))));
    world.happen(&Event::Percent { of: 2, is: Some(95) });
    world.live(20);
    assert_eq!((world.alias(AliasRole::Main), world.status.version), (2, Some(version(2))));
}
