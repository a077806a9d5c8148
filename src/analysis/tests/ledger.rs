//! Whatever happens to pods, scrapes and rounds: batches have what was counted, once, but for what nobody
//! read.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::support::seconds;
use crate::analysis::{
    Tally,
    ledger::{Arm, Counters, Dropped, Folded, Gap, Ledger, LedgerSettings, Outcomes, PodUid, Round, Scrape},
};

/// What happens to one pod between two rounds.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It answers so many requests, and so many of them fail.
    Answers { requests: u64, failures: u64 },
    /// Its process restarts: everything since the last scrape is lost. Then it answers so many requests, of which
    /// half fail: perhaps more than it had counted before.
    Restarts { requests: u64 },
    /// Another pod takes its place.
    IsReplaced,
    /// It has no traffic, so it is not in the round; what it counts is read later.
    IsAbsent,
    /// It cannot be read.
    IsLost,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_u64..20, 0_u64..20).prop_map(|(one, other)| Event::Answers {
            requests: one.max(other),
            failures: one.min(other),
        }),
        1 => (0_u64..300).prop_map(|requests| Event::Restarts { requests }),
        1 => Just(Event::IsReplaced),
        1 => Just(Event::IsAbsent),
        1 => Just(Event::IsLost),
    ]
}

/// A server process, with what it counted and what of it was read.
#[derive(Clone)]
struct Process {
    uid: u64,
    started_at: Timestamp,
    counted: (u64, u64),
    /// The first and the last value that were read.
    read: Option<((u64, u64), (u64, u64))>,
}

/// Two pods for each of two versions, whose numbers are prefixes of each other.
struct World {
    slots: Vec<Process>,
    ended: Vec<(usize, Process)>,
    pods: u64,
    now: Timestamp,
}

const ARMS: [&str; 2] = ["1", "12"];

fn settings() -> LedgerSettings {
    let arms = ARMS.map(|arm| Arm(arm.to_owned())).to_vec();
    LedgerSettings { warm_up: SignedDuration::ZERO, ..LedgerSettings::new(arms, vec!["failures".to_owned()]) }
}

impl World {
    fn new(started_at: Timestamp) -> Self {
        let process = |uid| Process { uid, started_at, counted: (100, 50), read: None };
        Self { slots: (0..4).map(process).collect(), ended: Vec::new(), pods: 4, now: seconds(0) }
    }

    fn replace(&mut self, slot: usize, uid: u64) {
        let process = Process { uid, started_at: self.now, counted: (0, 0), read: None };
        self.ended.push((slot, std::mem::replace(&mut self.slots[slot], process)));
    }

    /// Lets 15 seconds go by, and reads the pods.
    fn round(&mut self, events: &[Event]) -> Round {
        self.now += SignedDuration::from_secs(15);
        let mut scrapes = Vec::new();
        for (slot, event) in events.iter().enumerate() {
            let uid = self.slots[slot].uid;
            match event {
                Event::Restarts { requests } => {
                    self.replace(slot, uid);
                    self.slots[slot].counted = (*requests, requests / 2);
                }
                Event::IsReplaced => {
                    self.pods += 1;
                    self.replace(slot, self.pods);
                }
                Event::Answers { requests, failures } => {
                    let (all, failed) = self.slots[slot].counted;
                    self.slots[slot].counted = (all + requests, failed + failures);
                }
                Event::IsAbsent => continue,
                Event::IsLost => {}
            }
            scrapes.push(self.scrape(slot, matches!(event, Event::IsLost)));
        }
        Round { at: self.now, weights: vec![0.5, 0.5], scrapes }
    }

    fn scrape(&mut self, slot: usize, is_lost: bool) -> Scrape {
        let process = &mut self.slots[slot];
        let (requests, bad) = process.counted;
        if !is_lost {
            process.read = Some((process.read.map_or(process.counted, |read| read.0), process.counted));
        }
        let checks = BTreeMap::from([("failures".to_owned(), Outcomes { bad, total: requests })]);
        Scrape {
            arm: Arm(ARMS[slot / 2].to_owned()),
            pod: PodUid(process.uid.to_string()),
            started_at: process.started_at,
            at: self.now,
            counters: if is_lost {
                Err(Gap::Unreachable)
            } else {
                Ok(Counters { requests, checks, values: BTreeMap::new() })
            },
        }
    }

    /// What was read of a version: from its start for young processes, from the first reading for older ones.
    fn read(&self, arm: usize, since: Timestamp) -> (u64, u64) {
        self.sum(arm, |process| match process.read {
            None => (0, 0),
            Some((_, last)) if process.started_at > since => last,
            Some((first, last)) => (last.0 - first.0, last.1 - first.1),
        })
    }

    fn counted(&self, arm: usize) -> (u64, u64) {
        self.sum(arm, |process| process.counted)
    }

    fn sum(&self, arm: usize, of: impl Fn(&Process) -> (u64, u64)) -> (u64, u64) {
        let ended = self.ended.iter().map(|(slot, process)| (*slot, process));
        let all = self.slots.iter().enumerate().chain(ended).filter(|(slot, _)| slot / 2 == arm);
        all.map(|(_, process)| of(process)).fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    }
}

/// What batches had, and until when they followed each other.
#[derive(Default)]
struct Batched {
    sums: [(u64, u64); 2],
    covered_to: Option<Timestamp>,
}

impl Batched {
    fn add(&mut self, folded: &Folded) {
        match folded {
            Folded::Batch(batch) => {
                if self.covered_to == Some(batch.from) {
                    self.covered_to = Some(batch.to);
                }
                for (sum, arm) in self.sums.iter_mut().zip(&batch.arms) {
                    let tally: Tally = arm.tallies["failures"];
                    assert_eq!(arm.requests, tally.total());
                    *sum = (sum.0 + tally.total(), sum.1 + tally.bad());
                }
            }
            Folded::Dropped(_) | Folded::Opened | Folded::Repeated | Folded::Unknown(_) => {}
        }
    }
}

fn all_answer() -> [Event; 4] {
    [Event::Answers { requests: 3, failures: 1 }; 4]
}

proptest! {
    #[test]
    fn batches_have_what_was_counted_once(
        rounds in prop::collection::vec(prop::array::uniform4(events()), 0..30),
        are_young in any::<bool>(),
    ) {
        let since = seconds(0);
        let mut world = World::new(if are_young { seconds(1) } else { seconds(-100) });
        let mut ledger = Ledger::new(settings(), since);
        let mut batched = Batched { covered_to: Some(seconds(15)), ..Batched::default() };
        for events in std::iter::once(&all_answer()).chain(&rounds).chain([&all_answer()]) {
            let round = world.round(events);
            batched.add(&ledger.fold(&round));
            // The same round again, and an older one, change nothing.
            let known = ledger.clone();
            prop_assert_eq!(ledger.fold(&round), Folded::Repeated);
            prop_assert_eq!(ledger.fold(&Round { at: seconds(1), ..round }), Folded::Repeated);
            prop_assert_eq!(&ledger, &known);
        }
        for arm in [0, 1] {
            let (sum, counted) = (batched.sums[arm], world.counted(arm));
            prop_assert!(sum.0 <= counted.0 && sum.1 <= counted.1, "{:?} of {:?}", sum, counted);
            // What pods counted while one of them was lost for long is in no batch.
            if batched.covered_to == Some(world.now) {
                prop_assert_eq!(sum, world.read(arm, since));
            }
        }
    }

    /// After a restart of the operator, what was counted before is not counted again.
    #[test]
    fn a_new_ledger_counts_nothing_twice(
        rounds in prop::collection::vec(prop::array::uniform4(events()), 1..20), restarts in any::<u32>(),
    ) {
        let mut world = World::new(seconds(1));
        let mut ledger = Ledger::new(settings(), seconds(0));
        let mut batched = Batched::default();
        for (index, events) in rounds.iter().enumerate() {
            if restarts >> index & 1 == 1 {
                ledger = Ledger::new(settings(), world.now);
            }
            batched.add(&ledger.fold(&world.round(events)));
        }
        for arm in [0, 1] {
            let (sum, counted) = (batched.sums[arm], world.counted(arm));
            prop_assert!(sum.0 <= counted.0 && sum.1 <= counted.1, "{:?} of {:?}", sum, counted);
        }
    }
}

#[test]
fn the_property_sees_batches_that_follow_each_other() {
    let mut world = World::new(seconds(1));
    let mut ledger = Ledger::new(settings(), seconds(0));
    let mut batched = Batched { covered_to: Some(seconds(15)), ..Batched::default() };
    for _ in 0..10 {
        batched.add(&ledger.fold(&world.round(&all_answer())));
    }
    assert_eq!(batched.covered_to, Some(world.now));
    // Two young pods each: 100 requests and 50 failures when they were first read, and ten rounds.
    assert_eq!(batched.sums, [(260, 120); 2]);
}

#[test]
fn a_version_is_never_taken_for_one_whose_number_it_begins_with() {
    let mut world = World::new(seconds(-100));
    let mut ledger = Ledger::new(settings(), seconds(0));
    ledger.fold(&world.round(&[Event::Answers { requests: 0, failures: 0 }; 4]));
    let mut events = [Event::Answers { requests: 0, failures: 0 }; 4];
    events[3] = Event::Answers { requests: 9, failures: 9 };
    let Folded::Batch(batch) = ledger.fold(&world.round(&events)) else { panic!("not a batch") };
    assert_eq!([batch.arms[0].requests, batch.arms[1].requests], [0, 9]);
}

#[test]
fn the_first_errors_of_a_new_pod_count() {
    let mut world = World::new(seconds(-100));
    let mut ledger = Ledger::new(settings(), seconds(0));
    ledger.fold(&world.round(&all_answer()));
    let mut events = all_answer();
    events[3] = Event::IsReplaced;
    ledger.fold(&world.round(&events));
    world.replace(3, 99);
    // Between two rounds it starts, and fails seven times.
    events[3] = Event::Answers { requests: 7, failures: 7 };
    let Folded::Batch(batch) = ledger.fold(&world.round(&events)) else { panic!("not a batch") };
    assert_eq!(batch.arms[1].tallies["failures"], Tally::new(8, 10).unwrap());
}

#[test]
fn the_first_traffic_of_a_version_is_thrown_away() {
    let mut world = World::new(seconds(-100));
    let settings = LedgerSettings { warm_up: SignedDuration::from_secs(60), ..settings() };
    let mut ledger = Ledger::new(settings, seconds(0));
    let folded: Vec<Folded> = (0..7).map(|_| ledger.fold(&world.round(&all_answer()))).collect();
    assert_eq!(folded[0], Folded::Opened);
    // Four batches of 15 seconds.
    assert!(folded[1..5].iter().all(|it| *it == Folded::Dropped(Dropped::WarmUp)), "{folded:?}");
    assert!(folded[5..].iter().all(|it| matches!(it, Folded::Batch(_))), "{folded:?}");
}

#[test]
fn thousands_of_pods_are_forgotten_and_still_not_counted_twice() {
    let mut world = World::new(seconds(-100));
    let mut ledger = Ledger::new(settings(), seconds(0));
    let mut batched = Batched::default();
    let mut oldest = None;
    for index in 0..3000 {
        let mut events = all_answer();
        if index > 0 {
            events[0] = Event::IsReplaced;
        }
        let round = world.round(&events);
        if index == 1 {
            oldest = Some(round.scrapes[0].clone());
        }
        batched.add(&ledger.fold(&round));
    }
    let before = batched.sums;
    let mut round = world.round(&[Event::Answers { requests: 0, failures: 0 }; 4]);
    // It was forgotten, and now returns with 1000 requests.
    let mut returned = oldest.unwrap();
    returned.at = round.at;
    returned.counters.as_mut().unwrap().requests = 1000;
    round.scrapes.push(returned);
    batched.add(&ledger.fold(&round));
    assert_eq!(batched.sums, before);
}

#[test]
fn counters_that_fall_begin_at_zero() {
    let mut world = World::new(seconds(-100));
    let mut ledger = Ledger::new(settings(), seconds(0));
    ledger.fold(&world.round(&all_answer()));
    // A restart that nothing else shows: the process claims the same start.
    world.slots[0].counted = (5, 2);
    let Folded::Batch(batch) = ledger.fold(&world.round(&all_answer())) else { panic!("not a batch") };
    assert_eq!(batch.arms[0].tallies["failures"], Tally::new(3 + 1, 8 + 3).unwrap());
}
