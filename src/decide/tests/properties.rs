//! What holds for every story: wishes, faults and crashes in any order. The promises themselves are checked inside
//! [`World`], at each single write.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::world::{Fate, World, version};
use crate::decide::{Readiness, StrategyIntent, Traffic, Wish, decide};

/// Something that happens to the world from outside, or the operator's work, possibly cut short.
#[derive(Clone, Debug)]
enum Event {
    Wish(u32),
    FollowRegistry,
    MoveAlias(Option<u32>),
    Fate(u32, Fate),
    Registry(bool),
    Settings(u8),
    Strategy(bool),
    Retry(u8),
    LoseService,
    Reconcile(Option<usize>),
    Pass(u16),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![3 => Just(Fate::Good), 2 => Just(Fate::NeverReady), 1 => Just(Fate::FailsSmokeTest)]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1..=6u32).prop_map(Event::Wish),
        1 => Just(Event::FollowRegistry),
        1 => proptest::option::weighted(0.8, 1..=5u32).prop_map(Event::MoveAlias),
        1 => (2..=5u32, fate()).prop_map(|(number, fate)| Event::Fate(number, fate)),
        1 => any::<bool>().prop_map(Event::Registry),
        1 => (0..3u8).prop_map(Event::Settings),
        1 => any::<bool>().prop_map(Event::Strategy),
        1 => (0..3u8).prop_map(Event::Retry),
        1 => Just(Event::LoseService),
        8 => proptest::option::weighted(0.4, 0..4usize).prop_map(Event::Reconcile),
        6 => (0..90u16).prop_map(Event::Pass),
    ]
}

fn strategy(rolling: bool) -> StrategyIntent {
    if rolling { StrategyIntent::Rolling { max_surge: 1 } } else { StrategyIntent::BlueGreen }
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Wish(number) => world.intent.wish = Wish::Version(version(*number)),
        Event::FollowRegistry => world.intent.wish = Wish::Registry,
        Event::MoveAlias(number) => world.alias = number.map(version),
        Event::Fate(number, fate) => turn(world, *number, *fate),
        Event::Registry(reachable) => world.reachable = *reachable,
        Event::Settings(which) => world.serving().settings = format!("v1-{which}"),
        Event::Strategy(rolling) => world.serving().strategy = strategy(*rolling),
        Event::Retry(which) => world.intent.retry = Some(which.to_string()),
        Event::LoseService => {
            world.traffic = Traffic::Nowhere;
            world.update_endpoints();
        }
        Event::Reconcile(crash_after) => {
            world.reconcile(*crash_after);
        }
        Event::Pass(seconds) => world.pass(SignedDuration::from_secs(i64::from(*seconds))),
    }
}

/// What answers right now is not turned bad under the world's own assertions: losing it has its own story. And what was
/// proven once stays proven.
fn turn(world: &mut World, number: u32, fate: Fate) {
    let observed = world.observe();
    let proven = observed.remembered(version(number)).is_some();
    let answers = observed.cluster.endpoints.contains(&version(number));
    if !answers && (!proven || fate != Fate::FailsSmokeTest) {
        world.fates.insert(version(number), fate);
    }
}

/// A version that nothing has failed for yet serves when it is wished for and the registry answers.
fn must_serve(world: &World) -> bool {
    let Wish::Version(wished) = world.intent.wish else { return false };
    world.reachable
        && world.versions.contains_key(&wished)
        && world.fates.get(&wished).is_none_or(|fate| *fate == Fate::Good)
        && !world.record.rejected.iter().any(|rejection| rejection.version == wished)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Promise 7: from any state it reaches the wish or a stated refusal, and then writes nothing.
    #[test]
    fn promise_7_it_converges_and_then_stays_quiet(
        rolling in any::<bool>(), replicas in 1..4u32, events in proptest::collection::vec(event(), 0..40)
    ) {
        let mut world = World::new(strategy(rolling), replicas);
        for event in &events {
            happen(&mut world, event);
        }
        let must_serve = must_serve(&world);
        world.settle();
        let observed = world.observe();
        let decision = decide(&observed);
        prop_assert!(decision.actions.is_empty(), "quiet at rest: {:?}", decision.actions);
        if let (true, Wish::Version(wished)) = (must_serve, world.intent.wish) {
            prop_assert_eq!(world.traffic, Traffic::One(wished));
            prop_assert_eq!(world.alias, Some(wished));
            prop_assert_eq!(world.ready(wished), replicas);
        }
        if world.record.version.is_some_and(|version| world.ready(version) > 0) {
            prop_assert!(matches!(world.traffic, Traffic::One(_)), "what once served is still selected");
        }
        world.jump(SignedDuration::from_hours(24));
        let later = decide(&world.observe());
        prop_assert!(later.actions.is_empty(), "quiet a day later: {:?}", later.actions);
    }

    /// Promise 5: to B and back to A, at whatever moment, ends on A and starts no pod of A.
    #[test]
    fn promise_5_there_and_back_again_starts_nothing(rolling in any::<bool>(), seconds in 0..200i64, crash in proptest::option::of(0..4usize)) {
        let mut world = World::new(strategy(rolling), 2);
        world.settle();
        let pods_of_a = world.desired(version(1));
        world.intent.wish = Wish::Version(version(2));
        for _ in 0..seconds {
            world.reconcile(None);
            world.pass(SignedDuration::from_secs(1));
            if world.traffic == Traffic::One(version(2)) && !rolling {
                break;
            }
        }
        world.intent.wish = Wish::Version(version(1));
        world.reconcile(crash);
        if !rolling {
            prop_assert_eq!(world.desired(version(1)), pods_of_a, "A never left its size");
        }
        world.settle();
        prop_assert_eq!(world.traffic, Traffic::One(version(1)));
        prop_assert_eq!(world.alias, Some(version(1)));
    }

    /// Without room for two, there are never more pods than replicas + maxSurge.
    #[test]
    fn rolling_never_exceeds_its_room(replicas in 1..5u32, wishes in proptest::collection::vec((1..=5u32, 0..30i64, fate()), 1..8)) {
        let mut world = World::new(StrategyIntent::Rolling { max_surge: 1 }, replicas);
        world.settle();
        world.pod_limit = Some(replicas + 1);
        for (number, seconds, fate) in wishes {
            turn(&mut world, number, fate);
            world.intent.wish = Wish::Version(version(number));
            for _ in 0..seconds {
                world.reconcile(None);
                world.pass(SignedDuration::from_secs(1));
            }
        }
        world.settle();
    }

    /// Every decision that waits says for what: a time, or something that is watched.
    #[test]
    fn every_wait_has_a_wake_up(events in proptest::collection::vec(event(), 0..30)) {
        let mut world = World::new(StrategyIntent::BlueGreen, 2);
        for event in &events {
            happen(&mut world, event);
            let decision = decide(&world.observe());
            if let Some(at) = decision.wake {
                prop_assert!(at > world.now, "a wake-up lies ahead");
            }
            let readiness = &decision.report.readiness;
            let asks = matches!(readiness, Readiness::Progressing(note) if note.reason.passes_by_itself());
            prop_assert!(decision.wake.is_some() || !asks, "what the registry did not answer is asked again");
        }
    }
}
