//! How many writes a creation, a promotion and a rollback take. At scale they are what everything else waits
//! for.

use jiff::SignedDuration;

use super::world::{Cost, DesiredVersion, Event, Pace, World};
use crate::decide::StrategyIntent;

fn world() -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 2);
    world.pace = Pace {
        step: SignedDuration::from_millis(100),
        start: SignedDuration::from_millis(1500),
        end: SignedDuration::from_millis(500),
        lag: 0,
    };
    world
}

/// What it costs until nothing is left to do but to scale down what is not warm any more.
fn cost(world: &mut World, number: u32) -> Cost {
    world.cost = Cost::default();
    world.happen(&Event::Desired(DesiredVersion::Version(number)));
    world.live(30);
    std::mem::take(&mut world.cost)
}

/// Each status is one write of the ModelAlias, each Event and each of these actions at least one request.
#[test]
fn a_rollout_takes_few_writes() {
    let mut world = world();
    for (what, number, statuses, events, actions) in
        [("a creation", 1, 5, 2, 7), ("a promotion", 2, 5, 2, 7), ("a rollback", 1, 3, 1, 5)]
    {
        let cost = cost(&mut world, number);
        println!("{what}: {cost:?}");
        assert!(cost.statuses <= statuses, "{what} writes {} statuses", cost.statuses);
        assert!(cost.events <= events, "{what} publishes {} Events", cost.events);
        assert!(cost.actions.values().sum::<usize>() <= actions, "{what} takes {:?}", cost.actions);
    }
}
