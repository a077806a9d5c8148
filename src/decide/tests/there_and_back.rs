//! Promotions and rollbacks at every moment, killed after every write, and then once more: all cases, not
//! random ones.

use std::time::Duration;

use super::world::{DesiredVersion, Event, Reconcile, Step, Strategy, World, version};
use crate::decide::{Action, Shares, Traffic, decide};

/// How versions replace each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    BlueGreen,
    Rolling,
    /// `BlueGreen` behind an HTTPRoute.
    Routed,
    /// In two steps of five seconds.
    Canary,
    /// With copies of requests first.
    Mirrored,
}

const WAYS: [Way; 5] = [Way::BlueGreen, Way::Rolling, Way::Routed, Way::Canary, Way::Mirrored];
/// Longer than a promotion and its warm window.
const MOMENTS: i64 = 330;

fn desired(world: &mut World, number: u32) {
    world.happen(&Event::Desired(DesiredVersion::Version(number)));
}

/// Returns a world that serves version 1 and should serve version 2.
fn promoting(way: Way, replicas: u32) -> World {
    let strategy = if way == Way::Rolling { Strategy::Rolling } else { Strategy::BlueGreen };
    let mut world = World::new(strategy.into(), replicas);
    world.serving().routed = matches!(way, Way::Routed | Way::Canary | Way::Mirrored);
    match way {
        Way::Canary => world.happen(&Event::Steps(vec![Step::weight(5), Step::weight(50)])),
        Way::Mirrored => world.happen(&Event::Steps(vec![Step::mirror(100), Step::weight(50)])),
        Way::BlueGreen | Way::Rolling | Way::Routed => {}
    }
    world.settle();
    world.begin_story();
    desired(&mut world, 2);
    world
}

/// Returns every world on the way, with the operator running: before each reconcile, whenever anything has
/// changed.
fn along(mut world: World, moments: i64) -> Vec<World> {
    let mut worlds = Vec::new();
    for _ in 0..moments {
        while world.is_due() {
            worlds.push(world.clone());
            world.watched_reconcile(&Reconcile::default());
        }
        world.moment();
    }
    worlds
}

/// Returns the world after this reconcile in full, and cut short after each of its writes; after the last
/// one, the status is lost.
fn cut_everywhere(world: &World) -> impl Iterator<Item = World> {
    let writes = decide(&world.observe()).actions.len();
    let cuts = std::iter::once(None).chain((0..=writes).map(Some));
    cuts.map(|crash_after| {
        let mut world = world.clone();
        world.reconcile(crash_after);
        world
    })
}

fn each(mut check: impl FnMut(Way, u32)) {
    for way in WAYS {
        for replicas in 1..=3 {
            check(way, replicas);
        }
    }
}

#[test]
fn promise_5_a_rollback_at_any_moment_and_with_any_crash_restarts_nothing() {
    let mut stories = 0;
    each(|way, replicas| {
        let moments = along(promoting(way, replicas), MOMENTS);
        for mut before in moments.iter().flat_map(cut_everywhere).chain(moments.iter().cloned()) {
            let was_full = before.ready(version(1)) >= replicas && before.desired(version(1)) == replicas;
            let made = before.made(version(1));
            desired(&mut before, 1);
            for mut world in cut_everywhere(&before) {
                let at = world.second_of_story();
                world.settle();
                world.promise_of_rest();
                assert_eq!(world.cluster.traffic, Traffic::One(version(1)), "rolled back at {at}s");
                if was_full {
                    assert_eq!(
                        world.made(version(1)),
                        made,
                        "nothing that exists is restarted, rolled back at {at}s"
                    );
                }
                stories += 1;
            }
        }
    });
    println!("{stories} stories");
    assert!(stories > 900, "only {stories} stories");
}

#[test]
fn promise_5_a_rollback_to_a_warm_version_is_the_first_write_of_the_first_reconcile() {
    each(|way, replicas| {
        let back = |world: &World| {
            let moved = world.cluster.traffic == Traffic::One(version(2));
            let is_full = world.ready(version(1)) >= replicas && world.desired(version(1)) == replicas;
            // Behind a route, the pods outlast the warm window for as long as the data plane may lag.
            let is_warm =
                !matches!(way, Way::Routed | Way::Canary | Way::Mirrored) || world.route_names(version(1));
            moved && is_full && is_warm
        };
        for mut world in along(promoting(way, replicas), MOMENTS).into_iter().filter(back) {
            desired(&mut world, 1);
            let decision = decide(&world.observe());
            let service = Action::Route(Traffic::One(version(1)));
            let due = match way {
                Way::Routed | Way::Canary | Way::Mirrored => {
                    vec![Action::Share(Shares::led_by(version(1), [version(2)])), service]
                }
                Way::BlueGreen | Way::Rolling => vec![service],
            };
            assert!(decision.actions.starts_with(&due), "{:?}", decision.actions);
        }
    });
}

#[test]
fn promise_7_a_promotion_killed_after_any_write_switches_traffic_once_and_never_back() {
    let mut stories = 0;
    each(|way, replicas| {
        for before in along(promoting(way, replicas), MOMENTS) {
            for mut world in cut_everywhere(&before) {
                let mut has_moved = false;
                for _ in 0..60 {
                    let is_on_new = world.cluster.traffic == Traffic::One(version(2));
                    assert!(
                        is_on_new || !has_moved,
                        "work in progress is finished, killed at {}s",
                        before.second_of_story()
                    );
                    has_moved |= is_on_new;
                    world.live(1);
                }
                world.settle();
                world.promise_of_rest();
                assert_eq!(world.cluster.traffic, Traffic::One(version(2)));
                stories += 1;
            }
        }
    });
    println!("{stories} stories");
    assert!(stories > 200, "only {stories} stories");
}

/// Crashes, even repeated ones, lose nothing from the history: which version, and the time from its start
/// until traffic was switched.
#[test]
fn the_history_has_a_promotion_s_duration_whenever_the_operator_was_killed() {
    let mut stories = 0;
    each(|way, replicas| {
        let is_on_its_way = |world: &World| world.cluster.traffic != Traffic::One(version(2));
        let before = along(promoting(way, replicas), 60).into_iter().filter(is_on_its_way);
        for mut world in before.flat_map(|world| cut_everywhere(&world).collect::<Vec<_>>()) {
            let killed_at = world.second_of_story();
            // A second kill, right after traffic has moved.
            world.live(1);
            for mut world in cut_everywhere(&world) {
                world.live(60);
                let entry = &world.status.history[0];
                let started = world.observe().cluster.workloads[&version(2)].started_at.unwrap();
                let due = Duration::try_from(entry.at.duration_since(started)).unwrap();
                let reported = entry.duration.map(Duration::from);
                assert_eq!(entry.version, version(2));
                assert_eq!(reported, Some(due), "killed at {killed_at}s");
                stories += 1;
            }
        }
    });
    println!("{stories} stories");
    assert!(stories > 200, "only {stories} stories");
}
