//! Scenarios: stories as data, with the initial world, a timeline of events, and expectations on the way and
//! at the end.

use std::{collections::BTreeMap, fmt::Write};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::world::{DesiredVersion, Event, Pace, RivalIs, Step, Strategy, World, version};
use crate::{
    api::condition::Reason,
    decide::{AliasRole, Desired, Traffic},
};

/// A scenario, readable and writable as YAML.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Scenario {
    /// What it shows; for a counterexample, what went wrong.
    pub(super) title: String,
    #[serde(default)]
    pub(super) start: Start,
    pub(super) timeline: Vec<Moment>,
    /// What must never happen on the way.
    #[serde(default, skip_serializing_if = "Throughout::is_empty")]
    pub(super) throughout: Throughout,
    /// What must hold once nothing is left to do.
    #[serde(default, skip_serializing_if = "Seen::is_empty")]
    pub(super) end: Seen,
}

/// The world at the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Start {
    pub(super) strategy: Strategy,
    pub(super) replicas: u32,
    /// These were promoted in turn; the last one serves, and the one before it is still warm.
    pub(super) promoted: Vec<u32>,
    /// The maximum number of pods on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) room: Option<u32>,
    /// Time moves in steps of ten seconds, and deadlines are short.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) coarse: bool,
    /// An HTTPRoute shares the requests.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) routed: bool,
    /// It is that of somebody else.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) theirs: bool,
    /// In these steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) steps: Vec<Step>,
    /// The story begins when this version is requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) desired: Option<u32>,
    /// Challengers that serve version 1, with these weights in per cent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) challengers: Vec<u32>,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            strategy: Strategy::BlueGreen,
            replicas: 2,
            promoted: vec![1],
            room: None,
            coarse: false,
            routed: false,
            theirs: false,
            steps: Vec::new(),
            challengers: Vec::new(),
            desired: None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// An event or an expectation, some seconds after the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Moment {
    pub(super) at: i64,
    #[serde(flatten)]
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum What {
    /// The expectation at that time.
    See(Seen),
    #[serde(untagged)]
    Happens(Event),
}

/// An expectation about the world. Omitted fields may have any value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Seen {
    /// The version that the Service selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serves: Option<u32>,
    /// The version that the alias names; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alias: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) previous_alias: Option<u32>,
    /// The reason of the condition `Ready`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ready: Option<Reason>,
    /// The reason of the condition `RegistrySynced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) synced: Option<Reason>,
    /// The size of Deployments, by version.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) sizes: BTreeMap<u32, u32>,
    /// The settings of Deployments, by version.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) settings: BTreeMap<u32, String>,
    /// How many pods were created of a version since the start.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) made: BTreeMap<u32, u32>,
    /// How many requests smoke tests sent to a version since the world began.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) requests: BTreeMap<u32, u32>,
    /// The versions with a Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deployments: Option<Vec<u32>>,
    /// The versions that the status lists as rejected, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rejected: Option<Vec<u32>>,
    /// Whether the object is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gone: Option<bool>,
}

/// Invariants at every second on the way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Throughout {
    /// The versions that may answer requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answers: Option<Vec<u32>>,
    /// The versions that the alias may name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alias: Option<Vec<u32>>,
    /// The minimum number of ready pods that answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ready: Option<u32>,
}

impl Throughout {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Seen {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Scenario {
    /// Runs the scenario to its end and checks everything. Returns the broken promises.
    pub(super) fn broken(&self) -> Vec<String> {
        self.play(self.start.world()).broken
    }

    /// Returns everything that happened.
    pub(super) fn reported(&self) -> String {
        let mut world = self.start.world();
        world.log = Some(String::new());
        self.play(world).log.unwrap_or_default()
    }

    /// Runs the scenario, and passes on the world before each event and at the end.
    pub(super) fn play_and(&self, mut look: impl FnMut(&World)) {
        let mut world = self.start.world();
        world.collects = true;
        for moment in &self.timeline {
            look(&world);
            while world.second_of_story() < moment.at {
                world.live_until(world.now + world.pace.step);
            }
            if let What::Happens(event) = &moment.what {
                world.happen(event);
            }
        }
        look(&world);
    }

    fn play(&self, mut world: World) -> World {
        world.collects = true;
        let made: BTreeMap<u32, u32> = (1..=9).map(|number| (number, world.made(version(number)))).collect();
        for moment in &self.timeline {
            while world.second_of_story() < moment.at {
                world.live_until(world.now + world.pace.step);
                self.throughout.check(&mut world);
            }
            match &moment.what {
                What::Happens(event) => world.happen(event),
                What::See(seen) => seen.check(&mut world, &made),
            }
            self.throughout.check(&mut world);
        }
        world.operator.is_up = true;
        for _ in 0..REST {
            world.live_until(world.now + world.pace.step);
            self.throughout.check(&mut world);
        }
        world.settle();
        self.throughout.check(&mut world);
        world.promise_of_rest();
        self.end.check(&mut world, &made);
        world
    }

    /// Returns it as YAML in the form that is kept.
    pub(super) fn yaml(&self) -> String {
        serde_yaml::to_string(self).unwrap()
    }
}

/// Number of moments after the last event that are checked one by one; after that, time may move faster.
const REST: usize = 30;

impl Start {
    pub(super) fn world(&self) -> World {
        let mut world = World::new(self.strategy.into(), self.replicas);
        if self.coarse {
            world.pace = Pace::COARSE;
            let serving = world.serving();
            serving.progress_deadline = SignedDuration::from_secs(30);
            serving.warm_for = SignedDuration::from_secs(40);
            serving.history = 1;
        }
        world.serving().routed = self.routed;
        if self.theirs {
            world.happen(&Event::RouteApplied(true));
            world.happen(&Event::Refer(true));
        }
        for of in 0..self.challengers.len() {
            world.happen(&Event::Rival { of, is: RivalIs::Serving(1) });
        }
        world.happen(&Event::Challengers(self.challengers.clone()));
        for &number in &self.promoted {
            world.intent.desired = Desired::Version(version(number));
            for _ in 0..self.replicas * 6 + 10 {
                world.live_until(world.now + world.pace.step);
            }
            assert_eq!(world.cluster.traffic, Traffic::One(version(number)), "the story's start");
        }
        world.pod_limit = self.room;
        world.happen(&Event::Steps(self.steps.clone()));
        if let Some(number) = self.desired {
            world.happen(&Event::Desired(DesiredVersion::Version(number)));
        }
        world.begin_story();
        world
    }
}

impl Throughout {
    fn check(&self, world: &mut World) {
        if let Some(only) = &self.answers {
            let answering = world.answering_versions();
            let others: Vec<_> = answering.into_iter().filter(|number| !only.contains(number)).collect();
            world.promise(others.is_empty(), |_| format!("only {only:?} answer, not {others:?}"));
        }
        if let Some(only) = &self.alias {
            let named = world.alias(AliasRole::Main);
            world.promise(only.contains(&named), |_| format!("the alias names only {only:?}, not {named}"));
        }
        if let Some(least) = self.ready {
            let ready = world.answering();
            world.promise(ready >= least, |_| format!("at least {least} ready pods answer, not {ready}"));
        }
    }
}

impl Seen {
    fn check(&self, world: &mut World, made: &BTreeMap<u32, u32>) {
        let mut differences = String::new();
        let mut compare = |what: &str, due: Option<String>, is: String| {
            if let Some(due) = due.filter(|due| *due != is) {
                writeln!(differences, "{what}: {is} instead of {due}").unwrap();
            }
        };
        let reason = |type_: &str| {
            let known = world.status.conditions.iter().find(|condition| condition.type_ == type_);
            known.map_or_else(String::new, |condition| condition.reason.clone())
        };
        let text = |due: Option<&dyn ToString>| due.map(ToString::to_string);
        let list = |due: &Option<Vec<u32>>| due.as_ref().map(|due| format!("{due:?}"));
        let traffic = |number| format!("{:?}", Traffic::One(version(number)));
        compare("serves", self.serves.map(traffic), format!("{:?}", world.cluster.traffic));
        compare("alias", self.alias.map(|due| due.to_string()), world.alias(AliasRole::Main).to_string());
        let previous = world.alias(AliasRole::Previous).to_string();
        compare("previousAlias", self.previous_alias.map(|due| due.to_string()), previous);
        compare("ready", text(self.ready.as_ref().map(|due| due as _)), reason("Ready"));
        compare("synced", text(self.synced.as_ref().map(|due| due as _)), reason("RegistrySynced"));
        compare("gone", self.gone.map(|due| due.to_string()), world.is_gone.to_string());
        for (&number, due) in &self.sizes {
            compare(
                "size",
                Some(format!("{number}: {due}")),
                format!("{number}: {}", world.desired(version(number))),
            );
        }
        for (&number, due) in &self.made {
            let since = world.made(version(number)) - made[&number];
            compare("made", Some(format!("{number}: {due}")), format!("{number}: {since}"));
        }
        for (&number, due) in &self.requests {
            let sent = world.requests(version(number));
            compare("requests", Some(format!("{number}: {due}")), format!("{number}: {sent}"));
        }
        for (&number, due) in &self.settings {
            let is =
                world.observe().cluster.workloads.get(&version(number)).map(|known| known.settings.clone());
            compare(
                "settings",
                Some(format!("{number}: {due}")),
                format!("{number}: {}", is.unwrap_or_default()),
            );
        }
        compare("deployments", list(&self.deployments), format!("{:?}", world.deployments()));
        let rejected = world.status.rejected.iter().map(|rejection| rejection.version.to_string());
        compare("rejected", list(&self.rejected), format!("[{}]", rejected.collect::<Vec<_>>().join(", ")));
        world.promise(differences.is_empty(), |_| differences);
    }
}
