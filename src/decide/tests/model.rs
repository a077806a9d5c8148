//! Exhaustive check of every story of a small world.
//!
//! A state is a [`World`] in coarse time, identified by whatever can still make a difference
//! ([`World::digest`]). Its successors: a moment of time, a whole reconcile, a reconcile cut short after any
//! of its writes, a kill, and an event from outside if the story may have more of them. The space is finite
//! and searched in full, so the result holds for *every* such story, however long the operator waits and
//! wherever it is killed.
//!
//! In every state each promise was kept at each write. From every state, left alone, the operator comes to
//! rest with the desired state reached, or blocked for a reason.
//!
//! `LAUREL_MODEL_EVENTS=3 cargo test --release --lib decide::tests::model -- --nocapture` searches deeper;
//! run it by hand.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::Mutex,
};

use stateright::{Checker, Model, Property};

use super::{
    scenario::{Moment, Scenario, Start, What},
    world::{
        BlockedBy, DesiredVersion, Event, Fate, GatewayIs, Reconcile, Registers, RivalIs, Serves, Step,
        Strategy, World,
    },
};
use crate::decide::decide;

/// A world, and how many more events from outside it may have.
#[derive(Clone, Debug)]
struct State {
    world: Box<World>,
    events_left: usize,
    digest: u64,
}

impl State {
    fn new(world: World, events_left: usize) -> Self {
        let digest = world.digest();
        Self { world: Box::new(world), events_left, digest }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (self.digest, self.events_left) == (other.digest, other.events_left)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.digest, self.events_left).hash(hasher);
    }
}

/// A transition between states.
#[derive(Clone, Debug, PartialEq)]
enum RolloutStep {
    Moment,
    Reconcile(Reconcile),
    Happens(Event),
}

/// All stories with this start and at most this many of these events.
struct Stories {
    start: Start,
    events: Vec<Event>,
    events_max: usize,
    /// Worlds that are known to come to rest as they should.
    rests: Mutex<HashSet<u64>>,
}

impl Model for Stories {
    type State = State;
    type Action = RolloutStep;

    fn init_states(&self) -> Vec<State> {
        let mut world = self.start.world();
        world.collects = true;
        vec![State::new(world, self.events_max)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<RolloutStep>) {
        let world = &state.world;
        if !world.broken.is_empty() || world.is_gone {
            return;
        }
        steps.push(RolloutStep::Reconcile(Reconcile::default()));
        let writes = decide(&world.observe()).actions.len();
        steps.extend((0..=writes).map(|count| {
            RolloutStep::Reconcile(Reconcile { crash_after: Some(count), ..Reconcile::default() })
        }));
        steps.push(RolloutStep::Moment);
        if state.events_left > 0 {
            steps.extend(self.events.iter().cloned().map(RolloutStep::Happens));
        }
    }

    fn next_state(&self, before: &State, step: RolloutStep) -> Option<State> {
        let mut world = World::clone(&before.world);
        let mut events_left = before.events_left;
        match step {
            RolloutStep::Moment => world.moment(),
            RolloutStep::Reconcile(how) => drop(world.watched_reconcile(&how)),
            RolloutStep::Happens(event) => {
                world.happen(&event);
                if world.digest() == before.digest {
                    return None;
                }
                events_left -= 1;
            }
        }
        let after = State::new(world, events_left);
        (after != *before).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every promise is kept at every write", |_, state: &State| {
                state.world.broken.is_empty()
            }),
            Property::always("left alone, it comes to rest as it should", |stories: &Self, state: &State| {
                stories.rests_well(&state.world).is_empty()
            }),
        ]
    }
}

impl Stories {
    /// Lets the operator work from here on. Returns the promises that it breaks.
    fn rests_well(&self, world: &World) -> Vec<String> {
        let mut world = World::clone(world);
        let mut passed = Vec::new();
        let settled = world.settle_unless(|world| {
            let digest = world.digest();
            passed.push(digest);
            self.rests.lock().unwrap().contains(&digest)
        });
        if settled {
            world.promise_of_rest();
        }
        if world.broken.is_empty() {
            self.rests.lock().unwrap().extend(passed);
        }
        world.broken
    }

    /// Returns the steps as a scenario for `scenarios/`.
    fn story(&self, title: &str, steps: impl IntoIterator<Item = RolloutStep>) -> Scenario {
        let mut at = 0;
        let mut timeline = vec![Moment { at, what: What::Happens(Event::Up(false)) }];
        for step in steps {
            let event = match step {
                RolloutStep::Moment => {
                    at += 10;
                    continue;
                }
                RolloutStep::Reconcile(how) => Event::Reconcile(how),
                RolloutStep::Happens(event) => event,
            };
            timeline.push(Moment { at, what: What::Happens(event) });
        }
        Scenario { title: title.into(), start: self.start.clone(), timeline, ..Scenario::default() }
    }

    fn check(self, name: &str) {
        let (start, events, events_max) = (self.start.clone(), self.events.clone(), self.events_max);
        let checker = self.checker().threads(2).spawn_bfs().join();
        println!(
            "{name}: {} events of {}: {} steps, {} states, depth {}",
            events_max,
            events.len(),
            checker.state_count(),
            checker.unique_state_count(),
            checker.max_depth()
        );
        if let Some((title, path)) = checker.discoveries().into_iter().next() {
            let stories = Self { start, events, events_max, rests: Mutex::default() };
            let broken = stories.rests_well(&path.last_state().world);
            let story = stories.story(title, path.into_actions());
            panic!("{}\n{}\n{}", broken.join("\n"), story.yaml(), story.reported());
        }
    }
}

/// The number of events in a story; `LAUREL_MODEL_EVENTS` raises it.
fn events_max(usual: usize) -> usize {
    std::env::var("LAUREL_MODEL_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn desires() -> impl Iterator<Item = Event> {
    (1..=3).map(|number| Event::Desired(DesiredVersion::Version(number)))
}

fn stories(strategy: Strategy, replicas: u32, events: Vec<Event>, usual: usize) -> Stories {
    let start = Start { strategy, replicas, promoted: vec![1], coarse: true, ..Start::default() };
    Stories { start, events, events_max: events_max(usual), rests: Mutex::default() }
}

fn everything() -> Vec<Event> {
    let pods = |of: u32| [Fate::Good, Fate::NeverReady].map(|are| Event::Pods { of, are });
    let registry = [Registers::Fine, Registers::Away].map(Event::Registry);
    desires()
        .chain([Event::Desired(DesiredVersion::REGISTRY)])
        .chain(pods(1))
        .chain(pods(2))
        .chain(registry)
        .chain([Event::Alias(Some(2)), Event::Alias(None)])
        .chain([Event::Settings("b".into()), Event::Settings("bad".into())])
        .chain([Event::Service(Serves::Deleted), Event::DeploymentDeleted(1)])
        .collect()
}

#[test]
fn blue_green() {
    stories(Strategy::BlueGreen, 1, everything(), 2).check("blue-green");
}

#[test]
fn behind_a_route() {
    let events = desires()
        .chain([Fate::Good, Fate::NeverReady].map(|are| Event::Pods { of: 2, are }))
        .chain([GatewayIs::Fine, GatewayIs::Away, GatewayIs::Hidden].map(Event::Gateway))
        .chain([Event::RouteDeleted(true), Event::RouteEdited(Some(1)), Event::VersionServiceDeleted(2)])
        .chain([Event::PodsLost(1), Event::Traffic(false), Event::Traffic(true)]);
    // A second one takes many minutes: run that by hand.
    let mut stories = stories(Strategy::BlueGreen, 1, events.collect(), 1);
    stories.start.routed = true;
    stories.check("behind a route");
}

/// The route has been taken over when the story begins.
#[test]
fn behind_a_route_of_somebody_else() {
    let events = [Event::Desired(DesiredVersion::Version(2)), Event::Pods { of: 1, are: Fate::NeverReady }]
        .into_iter()
        .chain([GatewayIs::Away, GatewayIs::Hidden].map(Event::Gateway))
        .chain([Event::RouteDeleted(true), Event::RouteApplied(true), Event::RouteShared(true)])
        .chain([Event::VersionServiceDeleted(1), Event::Service(Serves::Deleted)])
        .chain([Event::Refer(false), Event::Traffic(false), Event::Serving(false), Event::Deleted(true)])
        .chain([Event::Blocked(BlockedBy::InvalidTemplate), Event::StatusLost(true)]);
    let mut stories = stories(Strategy::BlueGreen, 1, events.collect(), 1);
    stories.start.routed = true;
    stories.start.theirs = true;
    stories.check("behind a route of somebody else");
}

#[test]
fn canary() {
    let events = desires()
        .chain([Fate::Good, Fate::NeverReady].map(|are| Event::Pods { of: 2, are }))
        .chain([GatewayIs::Fine, GatewayIs::Away, GatewayIs::Hidden].map(Event::Gateway))
        .chain([Event::RouteDeleted(true), Event::RouteEdited(Some(2)), Event::Steps(vec![])])
        .chain([
            Event::Replicas(2),
            Event::Service(Serves::Deleted),
            Event::Blocked(BlockedBy::InvalidTemplate),
        ]);
    let mut stories = stories(Strategy::BlueGreen, 1, events.collect(), 1);
    stories.start.routed = true;
    stories.start.steps = vec![Step::weight(5), Step::weight(50)];
    stories.check("canary");
}

fn approve(value: &str) -> Event {
    Event::Approve(Some(value.into()))
}

/// Version 2 is on its way through copies and an approval when the story begins.
#[test]
fn canary_with_copies_and_an_approval() {
    let desires = [1, 3].map(|number| Event::Desired(DesiredVersion::Version(number)));
    let events = desires
        .into_iter()
        .chain([Event::Pods { of: 2, are: Fate::NeverReady }, Event::Gateway(GatewayIs::Away)])
        .chain([approve("2"), approve("2/1"), approve("3")])
        .chain([Event::RouteDeleted(true), Event::RouteEdited(Some(2)), Event::StatusLost(true)])
        .chain([Event::Suspend(true), Event::Steps(vec![Step::mirror(50)])]);
    let mut stories = stories(Strategy::BlueGreen, 1, events.collect(), 1);
    stories.start.routed = true;
    stories.start.steps = vec![Step::mirror(100), Step::weight(5).approved(None)];
    stories.start.desired = Some(2);
    stories.check("canary with copies and an approval");
}

/// Nobody has to approve version 2 for ever.
#[test]
fn canary_with_a_time_limit() {
    let events = [approve("2"), Event::Suspend(true), Event::Suspend(false), Event::RouteEdited(Some(2))]
        .into_iter()
        .chain([Event::StatusLost(true), Event::Registry(Registers::Away)]);
    let mut stories = stories(Strategy::BlueGreen, 1, events.collect(), 1);
    stories.start.routed = true;
    stories.start.steps = vec![Step::weight(5).approved(Some(20))];
    stories.start.desired = Some(2);
    stories.check("canary with a time limit");
}

#[test]
fn challengers() {
    let rivals = [RivalIs::Serving(1), RivalIs::Serving(2), RivalIs::Down, RivalIs::Deleted, RivalIs::Gone];
    let events = desires()
        .chain(rivals.map(|is| Event::Rival { of: 0, is }))
        .chain([vec![], vec![10], vec![50]].map(Event::Challengers))
        .chain([Event::Shadow { of: 0, copies: 100 }])
        .chain([GatewayIs::Fine, GatewayIs::Away].map(Event::Gateway))
        .chain([Event::RouteDeleted(true), Event::RouteEdited(Some(1)), Event::PodsLost(1)]);
    let mut stories = stories(Strategy::BlueGreen, 1, events.collect(), 1);
    stories.start.routed = true;
    stories.start.challengers = vec![10];
    stories.check("challengers");
}

#[test]
fn rolling() {
    stories(Strategy::Rolling, 2, everything(), 2).check("rolling");
}
