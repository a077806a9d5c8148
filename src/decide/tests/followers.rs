//! Tests of followers, on decisions and statuses.

use super::world::{DesiredVersion, Event, Fate, Followed, Registers, World, version};
use crate::{
    api::{
        condition::Reason,
        model_alias::{Cause, Outcome},
    },
    decide::{AliasRole, StrategyIntent, Traffic},
};

/// A world with versions 1 to 5 for this follower to choose from.
fn following(who: Followed) -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 2);
    world.happen(&Event::Desired(DesiredVersion::Follow(who)));
    world
}

fn ready(world: &World) -> String {
    let mut conditions = world.status.conditions.iter();
    conditions
        .find(|condition| condition.type_ == "Ready")
        .map(|ready| ready.reason.clone())
        .unwrap_or_default()
}

#[test]
fn the_alias_follows_the_choice_after_traffic_and_the_history_names_the_follower() {
    let mut world = following(Followed::Latest);
    world.live(40);
    assert_eq!(world.cluster.traffic, Traffic::One(version(5)));
    assert_eq!(world.alias(AliasRole::Main), 5);
    world.happen(&Event::VersionRegistered(6));
    world.live(2);
    assert_eq!(world.alias(AliasRole::Main), 5, "the alias does not lead");
    world.live(40);
    assert_eq!((world.cluster.traffic, world.alias(AliasRole::Main)), (Traffic::One(version(6)), 6));
    assert_eq!(world.status.history[0].cause, Cause::Follower);
    // A manual move is put back: with a follower the alias requests nothing.
    world.happen(&Event::Alias(Some(2)));
    world.live(40);
    assert_eq!((world.cluster.traffic, world.alias(AliasRole::Main)), (Traffic::One(version(6)), 6));
}

#[test]
fn the_best_version_is_followed_and_kept_while_runs_cannot_be_read() {
    let mut world = following(Followed::Best);
    world.happen(&Event::Percent { of: 3, is: Some(99) });
    world.live(40);
    assert_eq!(world.cluster.traffic, Traffic::One(version(3)));
    world.happen(&Event::Registry(Registers::HidesRuns));
    world.happen(&Event::Percent { of: 3, is: None });
    world.live(40);
    assert_eq!(world.cluster.traffic, Traffic::One(version(3)));
    assert_eq!(ready(&world), "RegistryUnreachable", "the condition reports it");
    world.happen(&Event::Registry(Registers::Fine));
    world.live(40);
    assert_eq!(world.cluster.traffic, Traffic::One(version(5)), "ties go to the newest");
}

#[test]
fn promise_3_the_last_choice_is_kept_while_the_registry_is_unreachable() {
    let mut world = following(Followed::Latest);
    world.live(40);
    let before = world.status.target_version;
    world.happen(&Event::Registry(Registers::Away));
    world.live(40);
    assert_eq!((world.status.target_version, ready(&world)), (before, "Serving".to_owned()));
}

#[test]
fn promise_6_a_follower_does_not_retry_a_failed_version() {
    let mut world = following(Followed::Latest);
    world.live(40);
    world.happen(&Event::Pods { of: 6, are: Fate::NeverReady });
    world.happen(&Event::VersionRegistered(6));
    world.live(120);
    assert_eq!(world.status.history[0].outcome, Outcome::Rejected);
    assert_eq!((world.cluster.traffic, world.alias(AliasRole::Main)), (Traffic::One(version(5)), 5));
    let made = world.made(version(6));
    world.happen(&Event::Pods { of: 6, are: Fate::Good });
    world.live(300);
    assert_eq!(world.made(version(6)), made, "it is not retried by itself");
    assert_eq!(ready(&world), "ProgressDeadlineExceeded");
    world.happen(&Event::Retry("please".into()));
    world.live(60);
    assert_eq!(world.cluster.traffic, Traffic::One(version(6)));
}

#[test]
fn the_serving_version_is_kept_if_no_version_qualifies() {
    let mut world = following(Followed::Best);
    world.live(40);
    for of in 1..=5 {
        world.happen(&Event::Percent { of, is: None });
    }
    world.live(40);
    assert_eq!(world.cluster.traffic, Traffic::One(version(5)));
    assert_eq!(ready(&world), Reason::NoCandidate.to_string());
}

#[test]
fn a_chosen_version_waits_for_its_promotion_rules() {
    let mut world = following(Followed::Latest);
    world.live(40);
    world.happen(&Event::Rules(true));
    world.happen(&Event::Approved { of: 6, is: false });
    world.happen(&Event::VersionRegistered(6));
    world.live(40);
    assert_eq!((world.made(version(6)), ready(&world)), (0, "GatesFailed".to_owned()));
    assert_eq!(world.alias(AliasRole::Main), 5);
    world.happen(&Event::Approved { of: 6, is: true });
    world.live(40);
    assert_eq!(world.cluster.traffic, Traffic::One(version(6)));
}
