//! Stories of the copies that a version gets before it answers requests.

use jiff::SignedDuration;
use pretty_assertions::assert_eq;

use super::super::world::{BlockedBy, DesiredVersion, Event, Fate, Registers, Step, World, version};
use super::*;
use crate::decide::{Action, Mirror, Shares, Traffic, decide};

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
