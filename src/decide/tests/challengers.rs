//! Stories of challengers: what they get, and what becomes of it when they cannot take it.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use pretty_assertions::assert_eq;

use super::{
    traffic::desired,
    world::{Event, Fate, GatewayIs, RivalIs, Step, World, version},
};
use crate::{
    api::condition::Reason,
    decide::{
        Action, ChampionRoute, ChampionView, Decision, Lifecycle, Observed, Readiness, Shares,
        StrategyIntent, decide,
    },
};

/// A world that serves version 1 behind a route, beside challengers that serve version 1 of their own.
fn challenged(weights: &[u32]) -> World {
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.serving().routed = true;
    for of in 0..weights.len() {
        world.happen(&Event::Rival { of, is: RivalIs::Serving(1) });
    }
    world.happen(&Event::Challengers(weights.to_vec()));
    world.settle();
    world.promise_of_rest();
    world.begin_story();
    world
}

/// The weights of the versions and of the challengers, by name.
fn weights(world: &World) -> BTreeMap<String, u32> {
    let shares = world.observe().cluster.route.unwrap().shares;
    let own = shares.iter().map(|(version, weight)| (version.to_string(), weight)).collect::<Vec<_>>();
    let challengers = shares.challengers().iter().map(|(name, share)| (name.clone(), share.weight));
    challengers.chain(own).collect()
}

fn split<const N: usize>(weights: [(&str, u32); N]) -> BTreeMap<String, u32> {
    weights.into_iter().map(|(name, weight)| (name.to_owned(), weight)).collect()
}

/// Lives for so many seconds. Returns every change of the weights.
fn watch(world: &mut World, seconds: u32) -> Vec<BTreeMap<String, u32>> {
    let mut seen = vec![weights(world)];
    for _ in 0..seconds {
        world.live(1);
        seen.push(weights(world));
    }
    seen.dedup();
    seen
}

fn condition(world: &World, type_: &str) -> (String, String, String) {
    let known = world.status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    (known.status.clone(), known.reason.clone(), known.message.clone())
}

fn is_ready(world: &World) -> bool {
    condition(world, "Ready").0 == "True"
}

#[test]
fn a_challenger_enters_at_the_least_share_gets_what_is_asked_for_and_leaves_the_same_way() {
    let mut world = challenged(&[]);
    world.happen(&Event::Rival { of: 0, is: RivalIs::Serving(1) });
    world.happen(&Event::Challengers(vec![10]));
    let entered = watch(&mut world, 10);
    let steps = [
        split([("1", 1_000_000)]),
        split([("1", 999_999), ("rival-a", 1)]),
        split([("1", 900_000), ("rival-a", 100_000)]),
    ];
    assert_eq!(entered, steps);
    let (status, _, message) = condition(&world, "TrafficSplit");
    assert_eq!(status, "True", "{message}");
    assert!(message.contains("\"rival-a\" (version 1) gets 10 %"), "{message}");
    let listed: Vec<_> = world.status.traffic.iter().map(|it| (it.alias_ref.as_deref(), it.weight)).collect();
    assert_eq!(listed, [(None, 90), (Some("rival-a"), 10)]);

    world.happen(&Event::Challengers(vec![25]));
    world.live(5);
    assert_eq!(weights(&world), split([("1", 750_000), ("rival-a", 250_000)]));
    world.happen(&Event::Challengers(vec![]));
    let left = watch(&mut world, 10);
    let steps = [
        split([("1", 750_000), ("rival-a", 250_000)]),
        split([("1", 999_999), ("rival-a", 1)]),
        split([("1", 1_000_000)]),
    ];
    assert_eq!(left, steps);
    world.settle();
    world.promise_of_rest();
}

#[test]
fn promise_1_a_challenger_without_a_ready_pod_gets_nothing_and_the_champion_says_so() {
    for is in [RivalIs::Down, RivalIs::Gone] {
        let mut world = challenged(&[10, 40]);
        world.happen(&Event::Rival { of: 0, is });
        let actions = decide(&world.observe()).actions;
        assert!(matches!(actions[..], [Action::Share(_)]), "one write: {actions:?}");
        world.live(1);
        assert_eq!(weights(&world), split([("1", 600_000), ("rival-b", 400_000)]), "{is:?}");
        world.live(10);
        let (status, reason, message) = condition(&world, "TrafficSplit");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "ChallengerUnavailable"), "{message}");
        assert!(message.contains("\"rival-a\" cannot take its 10 %"), "{message}");
        assert!(message.contains("version 1 answers instead"), "{message}");
        assert!(is_ready(&world), "the champion does not depend on its challengers");
        world.happen(&Event::Rival { of: 0, is: RivalIs::Serving(2) });
        world.live(5);
        let whole = split([("1", 500_000), ("rival-a", 100_000), ("rival-b", 400_000)]);
        assert_eq!(weights(&world), whole);
        assert_eq!(condition(&world, "TrafficSplit").0, "True");
    }
}

#[test]
fn a_challenger_that_is_deleted_leaves_through_the_least_share() {
    let mut world = challenged(&[10]);
    world.happen(&Event::Rival { of: 0, is: RivalIs::Deleted });
    let steps = watch(&mut world, 10);
    let due = [
        split([("1", 900_000), ("rival-a", 100_000)]),
        split([("1", 999_999), ("rival-a", 1)]),
        split([("1", 1_000_000)]),
    ];
    assert_eq!(steps, due);
}

#[test]
fn another_version_of_a_challenger_needs_no_write_to_the_route() {
    let mut world = challenged(&[10]);
    world.happen(&Event::Rival { of: 0, is: RivalIs::Serving(3) });
    assert_eq!(decide(&world.observe()).actions, []);
    world.live(2);
    let versions: Vec<_> = world.status.traffic.iter().map(|share| share.version).collect();
    assert_eq!(versions, [version(1), version(3)]);
    assert_eq!(decide(&world.observe()).actions, []);
}

/// The copies that challengers get, by name.
fn shadows(world: &World) -> BTreeMap<String, u32> {
    let shares = world.observe().cluster.route.unwrap().shares;
    shares.shadows().iter().map(|(name, shadow)| (name.clone(), shadow.per_cent)).collect()
}

#[test]
fn promise_1_copies_go_to_a_challenger_while_it_can_take_them_and_change_no_share() {
    let mut world = challenged(&[40]);
    let whole = split([("1", 600_000), ("rival-a", 400_000)]);
    world.happen(&Event::Shadow { of: 1, copies: 30 });
    world.live(10);
    assert_eq!((weights(&world), shadows(&world)), (whole.clone(), BTreeMap::new()), "there is none");
    let (status, reason, message) = condition(&world, "TrafficSplit");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ChallengerUnavailable"), "{message}");
    assert!(
        message.contains("the challenger \"rival-b\" gets no copies of requests: there is none"),
        "{message}"
    );
    assert!(!message.contains("answers instead"), "nobody answers for a shadow: {message}");

    world.happen(&Event::Rival { of: 1, is: RivalIs::Serving(3) });
    world.live(5);
    assert_eq!((weights(&world), shadows(&world)), (whole.clone(), split([("rival-b", 30)])));
    let (status, _, message) = condition(&world, "TrafficSplit");
    assert_eq!(status, "True", "{message}");
    let words = "the challenger \"rival-b\" (version 3) gets copies of 30 % of the requests";
    assert!(message.contains(words), "{message}");
    assert_eq!(
        world.status.shares.as_deref(),
        Some("1: 60 %; rival-a 1: 40 %; rival-b 3: 0 %, copies of 30 %")
    );

    for is in [RivalIs::Down, RivalIs::Deleted] {
        world.happen(&Event::Rival { of: 1, is });
        let actions = decide(&world.observe()).actions;
        assert!(matches!(actions[..], [Action::Share(_)]), "one write: {actions:?}");
        world.live(1);
        assert_eq!((weights(&world), shadows(&world)), (whole.clone(), BTreeMap::new()), "{is:?}");
        world.happen(&Event::Rival { of: 1, is: RivalIs::Serving(3) });
        world.live(5);
        assert_eq!(shadows(&world), split([("rival-b", 30)]));
    }
    world.settle();
    world.promise_of_rest();
}

#[test]
fn a_challenger_that_answered_becomes_one_that_only_gets_copies_and_the_other_way_round() {
    let mut world = challenged(&[10]);
    world.happen(&Event::Shadow { of: 0, copies: 100 });
    world.live(10);
    assert_eq!((weights(&world), shadows(&world)), (split([("1", 1_000_000)]), split([("rival-a", 100)])));
    world.promise_of_rest();
    world.happen(&Event::Challengers(vec![10]));
    world.live(10);
    let whole = split([("1", 900_000), ("rival-a", 100_000)]);
    assert_eq!((weights(&world), shadows(&world)), (whole, BTreeMap::new()));
    world.promise_of_rest();
}

#[test]
fn copies_to_a_challenger_and_to_a_version_in_its_first_step_go_on_beside_each_other() {
    let mut world = challenged(&[]);
    world.happen(&Event::Rival { of: 0, is: RivalIs::Serving(1) });
    world.happen(&Event::Shadow { of: 0, copies: 100 });
    world.happen(&Event::Steps(vec![Step::mirror(50).approved(None)]));
    desired(&mut world, 2);
    world.live(40);
    let shares = world.observe().cluster.route.unwrap().shares;
    assert_eq!((shares.mirrored_to(version(2)), shadows(&world)), (Some(50), split([("rival-a", 100)])));
    desired(&mut world, 1);
    world.live(5);
    let shares = world.observe().cluster.route.unwrap().shares;
    assert_eq!((shares.mirror(), shadows(&world)), (None, split([("rival-a", 100)])));
}

#[test]
fn a_canary_shares_what_the_challengers_leave_and_a_lost_challenger_does_not_set_it_back() {
    let mut world = challenged(&[20]);
    world.happen(&Event::Steps(vec![Step::weight(10), Step::weight(50)]));
    desired(&mut world, 2);
    while weights(&world).get("2") != Some(&80_000) {
        world.live(1);
    }
    assert_eq!(weights(&world), split([("1", 720_000), ("2", 80_000), ("rival-a", 200_000)]));
    world.live(1);
    let message = condition(&world, "Ready").2;
    assert!(message.contains("10 % of the requests that are not for challengers"), "{message}");
    world.happen(&Event::Rival { of: 0, is: RivalIs::Down });
    world.live(1);
    assert_eq!(weights(&world), split([("1", 900_000), ("2", 100_000)]));
    world.happen(&Event::Rival { of: 0, is: RivalIs::Serving(1) });
    let seen = watch(&mut world, 30);
    let canary = |weights: &BTreeMap<String, u32>| weights.get("2").copied().unwrap_or_default();
    let shares: Vec<u32> = seen.iter().map(canary).collect();
    assert!(shares.contains(&400_000), "half of what is left: {shares:?}");
    assert!(shares.iter().all(|share| *share >= 80_000), "it is not set back: {shares:?}");
    assert_eq!(canary(seen.last().unwrap()), 799_999);
    world.settle();
    world.promise_of_rest();
}

#[test]
fn promise_5_a_rollback_beside_challengers_is_one_write_to_the_route() {
    let mut world = challenged(&[10, 5]);
    desired(&mut world, 2);
    world.live(30);
    let shares = [("1", 1), ("2", 849_999), ("rival-a", 100_000), ("rival-b", 50_000)];
    assert_eq!(weights(&world), split(shares));
    desired(&mut world, 1);
    let Decision { actions, .. } = decide(&world.observe());
    let Some(Action::Share(shares)) = actions.first() else { panic!("{actions:?}") };
    assert_eq!([1, 2].map(|number| shares.per_cent(version(number))), [85, 0]);
    assert!(matches!(actions.get(1), Some(Action::Route(_))), "{actions:?}");
}

#[test]
fn two_halves_are_equal_while_a_warm_version_or_an_entering_challenger_has_the_least_share() {
    let mut world = challenged(&[]);
    desired(&mut world, 2);
    world.live(30);
    world.happen(&Event::Steps(vec![Step::weight(50)]));
    desired(&mut world, 3);
    while weights(&world).get("3") != Some(&500_000) {
        world.live(1);
    }
    world.happen(&Event::Rival { of: 0, is: RivalIs::Serving(1) });
    world.happen(&Event::Challengers(vec![10]));
    let seen = watch(&mut world, 4);
    let halves = [(500_000, 499_999), (500_000, 499_998), (450_000, 449_999)];
    let halves = halves.map(|(canary, serves)| (Some(canary), Some(serves)));
    let of = |weights: &BTreeMap<String, u32>| (weights.get("3").copied(), weights.get("2").copied());
    assert_eq!(seen.iter().map(of).collect::<Vec<_>>(), halves);
}

#[test]
fn a_rollback_under_a_gateway_that_accepts_nothing_does_not_wait_longer_because_of_a_challenger() {
    let mut world = challenged(&[10]);
    world.happen(&Event::Rival { of: 0, is: RivalIs::Down });
    world.live(60);
    desired(&mut world, 2);
    world.live(30);
    world.happen(&Event::Gateway(GatewayIs::Away));
    desired(&mut world, 1);
    world.live(5);
    assert_eq!(weights(&world), split([("1", 999_999), ("2", 1)]));
}

#[test]
fn a_champion_without_a_ready_pod_leaves_its_challengers_alone() {
    let mut world = challenged(&[10]);
    world.happen(&Event::Pods { of: 1, are: Fate::NeverReady });
    world.happen(&Event::PodsLost(1));
    world.live(10);
    assert_eq!(weights(&world), split([("1", 900_000), ("rival-a", 100_000)]));
    world.happen(&Event::Pods { of: 1, are: Fate::Good });
    world.settle();
    world.promise_of_rest();
}

/// What a challenger sees of its champion.
fn champion(observed: &Observed, names_it: bool, seconds_ago: i64) -> BTreeMap<String, ChampionView> {
    let accepted_at = observed.now.checked_sub(SignedDuration::from_secs(seconds_ago)).ok();
    let route = Some(ChampionRoute { names_it, accepted_at });
    BTreeMap::from([("fraud".to_owned(), ChampionView { route })])
}

#[test]
fn promise_9_the_deletion_of_a_challenger_waits_for_its_champion_with_a_deadline() {
    let mut world = challenged(&[]);
    let mut observed = world.observe();
    observed.intent.deletes_alias = false;
    observed.intent.has_finalizer = false;
    observed.cluster.champions = champion(&observed, true, 60);
    let set = |present| Action::SetFinalizer { present };
    assert_eq!(decide(&observed).actions, [set(true)], "before a champion may name it");
    observed.intent.has_finalizer = true;
    assert_eq!(decide(&observed).actions, []);

    let since = observed.now;
    observed.intent.lifecycle = Lifecycle::Deleting { since };
    for (names_it, seconds_ago, waits) in
        [(true, 60, true), (false, 1, true), (false, 60, false), (true, 0, true)]
    {
        observed.cluster.champions = champion(&observed, names_it, seconds_ago);
        let Decision { actions, report, wake, .. } = decide(&observed);
        let Readiness::Progressing(cause) = report.readiness else { panic!("{:?}", report.readiness) };
        assert_eq!(actions.is_empty(), waits, "{actions:?}");
        assert_eq!(cause.message.contains("\"fraud\""), waits, "{}", cause.message);
        assert_eq!(cause.reason, Reason::Deleting);
        assert!(!waits || wake.is_some_and(|at| at > observed.now));
    }
    observed.now = since.checked_add(SignedDuration::from_secs(31)).unwrap();
    assert_eq!(decide(&observed).actions, [set(false)], "not for ever");

    observed.intent.lifecycle = Lifecycle::Active;
    observed.cluster.champions.clear();
    assert_eq!(decide(&observed).actions, [set(false)], "it is not named any more");
    world.settle();
}

#[test]
fn what_a_champion_sends_requests_to_is_not_removed_with_spec_serving() {
    let world = challenged(&[]);
    let mut observed = world.observe();
    observed.intent.serving = None;
    observed.cluster.champions = champion(&observed, true, 60);
    let removes = |action: &Action| matches!(action, Action::DeleteService | Action::Delete { .. });
    let Decision { actions, report, wake, .. } = decide(&observed);
    assert!(!actions.iter().any(removes), "{actions:?}");
    assert!(report.readiness.cause().message.contains("\"fraud\""), "{:?}", report.readiness);
    assert!(wake.is_some());
    observed.cluster.champions = champion(&observed, false, 60);
    assert!(decide(&observed).actions.iter().any(removes));
}

#[test]
fn shares_survive_a_bug_report() {
    let shares = challenged(&[10]).observe().cluster.route.unwrap().shares;
    let text = serde_json::to_string(&shares).unwrap();
    assert_eq!(serde_json::from_str::<Shares>(&text).unwrap(), shares);
}
