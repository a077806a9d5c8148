//! Which request begins next: pure, so the time is an argument.
//!
//! Requests of a higher class go first. Lower classes never fill all slots, so a higher one does not wait for
//! a slow response to a lower one. Now and then the request that has waited longest goes first, whatever its
//! class: none waits for ever.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Limits, Priority};

/// How many classes there are.
const CLASSES: usize = 4;

/// One request of so many is the one that has waited longest.
const TURN: u64 = 8;

/// The requests to one registry: those that wait, and how many are in flight.
#[derive(Debug)]
pub(super) struct Queue<W> {
    limits: Limits,
    in_flight: [usize; CLASSES],
    waiting: [VecDeque<Waiting<W>>; CLASSES],
    /// When the rate would allow the next request without a burst.
    evenly: Option<Instant>,
    arrived: u64,
    begun: u64,
}

#[derive(Debug)]
struct Waiting<W> {
    arrived: u64,
    waiter: W,
}

/// What may happen now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<W> {
    /// This request begins.
    Begin(Priority, W),
    /// The rate allows the next one at this time.
    At(Instant),
    /// No request waits, or none has a free slot.
    Nothing,
}

impl<W> Queue<W> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_flight: [0; CLASSES],
            waiting: std::array::from_fn(|_| VecDeque::new()),
            evenly: None,
            arrived: 0,
            begun: 0,
        }
    }

    /// Adds a request.
    pub(super) fn add(&mut self, priority: Priority, waiter: W) {
        self.arrived += 1;
        self.waiting[class(priority)].push_back(Waiting { arrived: self.arrived, waiter });
    }

    /// Frees the slot of a request.
    pub(super) fn end(&mut self, priority: Priority) {
        self.in_flight[class(priority)] -= 1;
    }

    /// Takes the next request, if one may begin now. Those that were given up are dropped.
    pub(super) fn next(&mut self, now: Instant, is_given_up: impl Fn(&W) -> bool) -> Next<W> {
        for waiting in &mut self.waiting {
            while waiting.front().is_some_and(|first| is_given_up(&first.waiter)) {
                waiting.pop_front();
            }
        }
        let Some(priority) = self.choose() else { return Next::Nothing };
        let spacing = Duration::from_secs(1) / self.limits.per_second.get();
        let evenly = self.evenly.map_or(now, |evenly| evenly.max(now));
        let burst = spacing * (self.limits.per_second.get() / 2).max(1);
        let early = (evenly + spacing).saturating_duration_since(now + burst);
        if !early.is_zero() {
            return Next::At(now + early);
        }
        let Some(first) = self.waiting[class(priority)].pop_front() else { return Next::Nothing };
        self.evenly = Some(evenly + spacing);
        self.in_flight[class(priority)] += 1;
        self.begun += 1;
        Next::Begin(priority, first.waiter)
    }

    fn choose(&self) -> Option<Priority> {
        let mut ready = Priority::ALL
            .into_iter()
            .filter(|priority| self.has_room(*priority))
            .filter_map(|priority| Some((self.waiting[class(priority)].front()?.arrived, priority)));
        let next = if self.begun % TURN == TURN - 1 { ready.min() } else { ready.next() };
        next.map(|(_, priority)| priority)
    }

    /// Whether a request of a class may begin: it and the classes below it leave room for each above.
    fn has_room(&self, priority: Priority) -> bool {
        let slots = self.limits.in_flight.get() as usize;
        (0..=class(priority)).all(|above| {
            let used: usize = self.in_flight[above..].iter().sum();
            used < slots - reserved(above, slots)
        })
    }
}

fn class(priority: Priority) -> usize {
    priority as usize
}

/// How many slots a class and those below it leave free: an eighth, a quarter or half of them, and if there
/// is more than one, at least one.
fn reserved(class: usize, slots: usize) -> usize {
    let share = [0, slots / 8, slots / 4, slots / 2][class];
    share.max(class.min(1)).min(slots - 1)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;

    fn limits(in_flight: u32, per_second: u32) -> Limits {
        Limits {
            in_flight: NonZeroU32::new(in_flight).unwrap(),
            per_second: NonZeroU32::new(per_second).unwrap(),
        }
    }

    fn next(queue: &mut Queue<u32>, now: Instant) -> Next<u32> {
        queue.next(now, |_| false)
    }

    /// Begins what may begin now.
    fn begin_all(queue: &mut Queue<u32>, now: Instant) -> Vec<(Priority, u32)> {
        let mut begun = Vec::new();
        while let Next::Begin(priority, waiter) = next(queue, now) {
            begun.push((priority, waiter));
        }
        begun
    }

    #[test]
    fn a_higher_class_finds_a_slot_even_if_requests_of_lower_ones_never_end() {
        for slots in [2, 3, 4, 16, 100] {
            let now = Instant::now();
            let mut queue = Queue::new(limits(slots, 1000));
            for priority in [Priority::Display, Priority::Poll, Priority::Decision] {
                for number in 0..200 {
                    queue.add(priority, number);
                }
                begin_all(&mut queue, now);
            }
            queue.add(Priority::AliasWrite, 0);
            assert_eq!(next(&mut queue, now), Next::Begin(Priority::AliasWrite, 0), "{slots}");
        }
    }

    #[test]
    fn the_default_leaves_an_eighth_a_quarter_and_half_of_the_slots_to_higher_classes() {
        let most = |priority| {
            let mut queue =
                Queue::new(Limits { per_second: limits(1, 1000).per_second, ..Limits::default() });
            for number in 0..100 {
                queue.add(priority, number);
            }
            begin_all(&mut queue, Instant::now()).len()
        };
        assert_eq!(Priority::ALL.map(most), [16, 14, 12, 8]);
    }

    #[test]
    fn higher_classes_go_first_and_the_longest_wait_ends_in_its_turn() {
        let now = Instant::now();
        let mut queue = Queue::new(limits(1, 1000));
        queue.add(Priority::Display, 0);
        for number in 1..=20 {
            queue.add(Priority::AliasWrite, number);
        }
        let mut order = Vec::new();
        while let Next::Begin(priority, waiter) = next(&mut queue, now) {
            order.push(waiter);
            queue.end(priority);
        }
        let place = order.iter().position(|waiter| *waiter == 0).unwrap();
        assert_eq!(place + 1, usize::try_from(TURN).unwrap(), "{order:?}");
        order.retain(|waiter| *waiter != 0);
        assert!(order.is_sorted());
    }

    #[test]
    fn a_burst_is_half_a_second_of_the_rate() {
        let mut now = Instant::now();
        let start = now;
        let mut queue = Queue::new(limits(1000, 50));
        for number in 0..500 {
            queue.add(Priority::Poll, number);
        }
        let mut begun = begin_all(&mut queue, now).len();
        assert_eq!(begun, 25);
        while let Next::At(at) = next(&mut queue, now) {
            assert!(at > now && at - start <= Duration::from_secs(20));
            now = at;
            begun += begin_all(&mut queue, now).len();
        }
        assert_eq!(begun, 500);
        assert_eq!(now - start, Duration::from_millis(9500), "475 more at 50 a second");
    }

    #[test]
    fn one_request_a_second_is_possible() {
        let now = Instant::now();
        let mut queue = Queue::new(limits(1, 1));
        queue.add(Priority::Poll, 0);
        queue.add(Priority::Poll, 1);
        assert_eq!(next(&mut queue, now), Next::Begin(Priority::Poll, 0));
        queue.end(Priority::Poll);
        assert_eq!(next(&mut queue, now), Next::At(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_request_that_was_given_up_takes_no_slot() {
        let mut queue = Queue::new(limits(1, 1000));
        queue.add(Priority::AliasWrite, 0);
        queue.add(Priority::Poll, 1);
        assert_eq!(queue.next(Instant::now(), |waiter| *waiter == 0), Next::Begin(Priority::Poll, 1));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Add(Priority),
        End(usize),
        Wait(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => prop::sample::select(&Priority::ALL[..]).prop_map(Event::Add),
            2 => any::<usize>().prop_map(Event::End),
            1 => (0..100_u64).prop_map(Event::Wait),
        ]
    }

    proptest! {
        #[test]
        fn limits_are_kept_and_every_request_begins(
            slots in 1..20_u32,
            rate in 1..100_u32,
            events in prop::collection::vec(event(), 0..300),
        ) {
            let mut now = Instant::now();
            let mut queue = Queue::new(limits(slots, rate));
            let (mut added, mut begun): (u32, Vec<(Instant, u32)>) = (0, Vec::new());
            let mut running: Vec<Priority> = Vec::new();
            // In the end nothing is added, and everything ends.
            let rest = std::iter::repeat_n([Event::Wait(1000), Event::End(0)], 400);
            for event in events.into_iter().chain(rest.flatten()) {
                match event {
                    Event::Add(priority) => {
                        queue.add(priority, added);
                        added += 1;
                    }
                    Event::End(index) if !running.is_empty() => {
                        queue.end(running.swap_remove(index % running.len()));
                    }
                    Event::End(_) => {}
                    Event::Wait(ms) => now += Duration::from_millis(ms),
                }
                for (priority, number) in begin_all(&mut queue, now) {
                    begun.push((now, number));
                    running.push(priority);
                }
                prop_assert!(running.len() <= slots as usize);
            }
            let mut numbers: Vec<u32> = begun.iter().map(|(_, number)| *number).collect();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..added).collect::<Vec<_>>());
            for (at, _) in &begun {
                let second = begun.iter().filter(|(other, _)| other >= at && *other - *at < Duration::from_secs(1));
                prop_assert!(second.count() <= (rate + rate / 2 + 1) as usize);
            }
        }
    }
}
