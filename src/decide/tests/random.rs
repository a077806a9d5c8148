//! Random stories: events from outside, reconciles cut short, and an operator that is up or down.

use proptest::{collection::vec, option::weighted, prelude::*};

use super::{
    scenario::{Moment, Scenario, Start, What},
    world::{
        BlockedBy, DesiredVersion, Event, Fate, Followed, GatewayIs, Reconcile, Registers, RivalIs, Serves,
        Step, Strategy as Exchange,
    },
};
use crate::{api::model_alias::Drift, decide::OnUnavailable};

pub(super) fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Good),
        2 => Just(Fate::NeverReady),
        1 => Just(Fate::Crashes),
        1 => Just(Fate::OneDown),
        1 => Just(Fate::FailsSmokeTest),
        1 => Just(Fate::Unreachable),
        1 => Just(Fate::NoRoom),
    ]
}

fn blocked() -> impl Strategy<Value = BlockedBy> {
    prop_oneof![
        4 => Just(BlockedBy::Nothing),
        1 => Just(BlockedBy::Conflict),
        2 => Just(BlockedBy::NoRegisteredModel),
        1 => Just(BlockedBy::InvalidTemplate),
        1 => Just(BlockedBy::ServiceTaken),
    ]
}

pub(super) fn exchange() -> impl Strategy<Value = Exchange> {
    prop_oneof![Just(Exchange::BlueGreen), Just(Exchange::Rolling)]
}

fn gateway() -> impl Strategy<Value = GatewayIs> {
    prop_oneof![
        3 => Just(GatewayIs::Fine),
        1 => Just(GatewayIs::Away),
        1 => Just(GatewayIs::Hidden),
    ]
}

fn challengers() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![Just(vec![]), Just(vec![10]), Just(vec![10, 40]), Just(vec![50])]
}

fn shadow() -> impl Strategy<Value = Event> {
    let copies = prop_oneof![Just(0u32), Just(10), Just(100)];
    (0..2usize, copies).prop_map(|(of, copies)| Event::Shadow { of, copies })
}

fn rival() -> impl Strategy<Value = Event> {
    let is = prop_oneof![
        3 => (1..=3u32).prop_map(RivalIs::Serving),
        2 => Just(RivalIs::Down),
        1 => Just(RivalIs::Deleted),
        1 => Just(RivalIs::Gone),
    ];
    (0..2usize, is).prop_map(|(of, is)| Event::Rival { of, is })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![Step::weight(10)]),
        Just(vec![Step::weight(5), Step::weight(50)]),
        Just(vec![Step::mirror(100), Step::weight(10)]),
        Just(vec![Step::mirror(50)]),
        Just(vec![Step::weight(5), Step::weight(50).approved(Some(60))]),
        Just(vec![
            Step::mirror(10),
            Step::mirror(100).approved(None),
            Step::weight(5).approved(Some(40)),
            Step::weight(50),
        ]),
    ]
}

/// A version, or one with a step.
fn approval() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (1..=4u32).prop_map(|version| version.to_string()),
        2 => (1..=4u32, 1..=4u32).prop_map(|(version, step)| format!("{version}/{step}")),
    ]
}

fn reconcile() -> impl Strategy<Value = Event> {
    let crash = (weighted(0.4, 0..4usize), any::<bool>());
    let way = (crash, weighted(0.1, 0..3usize), prop_oneof![3 => Just(0), 1 => 1..4usize]);
    way.prop_map(|((crash_after, crash_within), fails_at, stale)| {
        let crash_within = crash_within && crash_after.is_some();
        Event::Reconcile(Reconcile { crash_after, crash_within, fails_at, stale })
    })
}

fn spec() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (1..=6u32).prop_map(|number| Event::Desired(DesiredVersion::Version(number))),
        2 => Just(Event::Desired(DesiredVersion::REGISTRY)),
        2 => prop_oneof![Just(Followed::Latest), Just(Followed::Best)].prop_map(|who| Event::Desired(DesiredVersion::Follow(who))),
        2 => prop_oneof!["a", "b", "bad"].prop_map(Event::Settings),
        2 => (1..5u32).prop_map(Event::Replicas),
        1 => Just(Event::SizeTakenOut(true)),
        1 => exchange().prop_map(Event::Strategy),
        1 => any::<bool>().prop_map(Event::Traffic),
        1 => any::<bool>().prop_map(Event::Refer),
        1 => steps().prop_map(Event::Steps),
        4 => weighted(0.9, approval()).prop_map(Event::Approve),
        1 => challengers().prop_map(Event::Challengers),
        1 => shadow(),
        1 => prop_oneof![Just(Drift::Correct), Just(Drift::Report)].prop_map(Event::Drift),
        1 => any::<bool>().prop_map(Event::PreviousAlias),
        1 => any::<bool>().prop_map(Event::SmokeTest),
        1 => prop_oneof![Just(OnUnavailable::Wait), Just(OnUnavailable::Skip)].prop_map(Event::OnUnavailable),
        1 => any::<bool>().prop_map(Event::Serving),
        1 => any::<bool>().prop_map(Event::Suspend),
        2 => blocked().prop_map(Event::Blocked),
        2 => prop_oneof![3 => Just(true), 1 => Just(false)].prop_map(Event::Rules),
        2 => prop_oneof!["1", "2"].prop_map(Event::Retry),
    ]
}

fn cluster() -> impl Strategy<Value = Event> {
    let version = || 1..=5u32;
    prop_oneof![
        6 => (version(), fate()).prop_map(|(of, are)| Event::Pods { of, are }),
        3 => version().prop_map(Event::PodsLost),
        2 => weighted(0.6, 1..7u32).prop_map(Event::Quota),
        1 => version().prop_map(Event::DeploymentDeleted),
        1 => (version(), 0..4u32).prop_map(|(of, to)| Event::DeploymentScaled { of, to }),
        1 => version().prop_map(Event::DeploymentEdited),
        1 => Just(Event::Service(Serves::Deleted)),
        1 => version().prop_map(|number| Event::Service(Serves::Version(number))),
        1 => Just(Event::PortEdited(true)),
        2 => gateway().prop_map(Event::Gateway),
        3 => rival(),
        1 => Just(Event::RouteDeleted(true)),
        2 => Just(Event::RouteApplied(true)),
        1 => any::<bool>().prop_map(Event::RouteShared),
        1 => weighted(0.7, version()).prop_map(Event::RouteEdited),
        1 => version().prop_map(Event::VersionServiceDeleted),
        1 => Just(Event::StatusLost(true)),
        1 => Just(Event::ClusterRebuilt(true)),
    ]
}

fn registry() -> impl Strategy<Value = Event> {
    let how = prop_oneof![
        4 => Just(Registers::Fine),
        3 => Just(Registers::Away),
        1 => Just(Registers::Forbids),
        1 => Just(Registers::HasNoModel),
        2 => Just(Registers::Lags),
        1 => Just(Registers::IsSlow),
        1 => Just(Registers::HidesRuns),
        1 => Just(Registers::HidesExamples),
        1 => Just(Registers::ListsPartly),
    ];
    prop_oneof![
        5 => how.prop_map(Event::Registry),
        4 => weighted(0.8, 1..=6u32).prop_map(Event::Alias),
        1 => weighted(0.8, 1..=5u32).prop_map(Event::MovePreviousAlias),
        2 => (1..=5u32, any::<bool>()).prop_map(|(of, is)| Event::Approved { of, is }),
        1 => (1..=5u32, weighted(0.8, 85..95u32)).prop_map(|(of, is)| Event::Percent { of, is }),
        1 => (1..=5u32).prop_map(Event::VersionDeleted),
        1 => (1..=6u32).prop_map(Event::VersionRegistered),
        1 => Just(Event::ModelRecreated(true)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => spec(),
        4 => cluster(),
        4 => registry(),
        12 => reconcile(),
        4 => any::<bool>().prop_map(Event::Up),
    ]
}

/// A number of seconds, mostly small.
fn gap() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0), 6 => 1..5i64, 3 => 5..30i64, 1 => 30..400i64]
}

pub(super) fn scenario(events: usize) -> impl Strategy<Value = Scenario> {
    let promoted = prop_oneof![Just(vec![]), Just(vec![1]), Just(vec![1, 2])];
    let start = (exchange(), any::<bool>(), any::<bool>(), steps(), challengers(), 1..4u32, promoted);
    (start, vec((gap(), event()), 0..events)).prop_map(|(start, events)| {
        let (strategy, routed, theirs, steps, challengers, replicas, promoted) = start;
        let routed = routed && strategy == Exchange::BlueGreen;
        let mut at = 0;
        let timeline = events.into_iter().map(|(gap, event)| {
            at += gap;
            Moment { at, what: What::Happens(event) }
        });
        Scenario {
            title: "a random story".into(),
            start: Start {
                strategy,
                replicas,
                promoted,
                routed,
                theirs: theirs && routed,
                steps: if routed { steps } else { Vec::new() },
                challengers: if routed { challengers } else { Vec::new() },
                ..Start::default()
            },
            timeline: timeline.collect(),
            ..Scenario::default()
        }
    })
}
