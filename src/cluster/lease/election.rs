//! What a candidate does next. Pure: the time is an argument.
//!
//! Clocks of different machines are never compared. A candidate measures by its own clock for how long it has
//! seen no renewal; a holder counts from before it sent its last one. The holder may write for
//! [`Timing::writes`] after that, which ends well before anybody else's [`Timing::lease`] can.

use std::time::{Duration, Instant};

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a Lease that is not renewed belongs to its holder.
    pub lease: Duration,
    /// For how long the holder may begin writes after its last renewal. What remains of `lease` is for those
    /// in progress.
    pub writes: Duration,
    /// When writes that began in time are given up, after the last renewal.
    pub ends: Duration,
    /// How often it is renewed.
    pub renew: Duration,
    /// When a request that failed is tried again.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(12),
            writes: Duration::from_secs(8),
            ends: Duration::from_secs(11),
            renew: Duration::from_secs(2),
            retry: Duration::from_secs(1),
        }
    }
}

/// A Lease as this candidate knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; `None` if it was released.
    pub holder: Option<String>,
    /// How long it belongs to its holder without a renewal.
    pub duration: Duration,
    /// When it was first seen as it is now.
    pub since: Instant,
}

impl Seen {
    /// A Lease that belongs to nobody.
    #[must_use]
    pub const fn nobody(since: Instant) -> Self {
        Self { holder: None, duration: Duration::ZERO, since }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take the Lease, or renew it.
    Take,
    /// Wait, unless the Lease changes.
    Wait(Duration),
}

/// Returns the next step of candidate `me`. `renewed` is when it sent its last successful renewal.
#[must_use]
pub fn next(now: Instant, me: &str, seen: &Seen, renewed: Option<Instant>, timing: &Timing) -> Step {
    let due = match (&seen.holder, renewed) {
        (None, _) => now,
        // It is held by a former process of this pod, which has ended.
        (Some(holder), None) if holder == me => now,
        (Some(holder), Some(renewed)) if holder == me => renewed + timing.renew,
        (Some(_), _) => seen.since + seen.duration,
    };
    match due.saturating_duration_since(now) {
        Duration::ZERO => Step::Take,
        wait => Step::Wait(wait),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(holder: Option<&str>, since: Instant) -> Seen {
        Seen { holder: holder.map(str::to_owned), duration: Duration::from_secs(12), since }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_ours_or_expired_by_our_own_clock() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let wait = |seconds| Step::Wait(Duration::from_secs(seconds));
        for (now, holder, renewed, due) in [
            (at(0), None, None, Step::Take),
            (at(0), Some("a"), None, Step::Take),
            (at(1), Some("a"), Some(at(0)), wait(1)),
            (at(2), Some("a"), Some(at(0)), Step::Take),
            (at(1), Some("b"), None, wait(11)),
            (at(12), Some("b"), None, Step::Take),
            (at(1), Some("b"), Some(at(0)), wait(11)),
        ] {
            let step = next(now, "a", &seen(holder, began), renewed, &Timing::default());
            assert_eq!(step, due, "{holder:?} at {:?}", now - began);
        }
    }

    /// Two candidates and a Lease with versions. Their requests, and what they hear of the Lease, are late.
    #[derive(Clone, Copy, Debug)]
    struct Turn {
        who: usize,
        pause: u64,
        /// How long its request is on its way, and its response.
        there: u64,
        back: u64,
        hears: bool,
        fate: Fate,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        Answered,
        Lost,
        /// The server acted, and its response was lost.
        Unanswered,
    }

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let fate = prop_oneof![4 => Just(Fate::Answered), 1 => Just(Fate::Lost), 1 => Just(Fate::Unanswered)];
        let turn = (0..2usize, 0..4000u64, 0..3000u64, 0..9000u64, any::<bool>(), fate)
            .prop_map(|(who, pause, there, back, hears, fate)| Turn { who, pause, there, back, hears, fate });
        prop::collection::vec(turn, 1..60)
    }

    struct Candidate {
        /// What it has seen, and in which version of the Lease.
        seen: Seen,
        version: u64,
        renewed: Option<Instant>,
        /// Until when it may write.
        until: Option<Instant>,
        /// It does nothing before its last response.
        busy: Instant,
    }

    proptest! {
        /// Whatever requests, responses and watches are late or lost: never may both write.
        #[test]
        fn promise_14_two_candidates_never_write_at_the_same_time(turns in turns()) {
            let timing = Timing::default();
            let mut now = Instant::now();
            let names = ["a", "b"];
            let (mut holder, mut version): (Option<&str>, u64) = (None, 0);
            let mut candidates = names.map(|_| Candidate {
                seen: seen(None, now), version: 0, renewed: None, until: None, busy: now,
            });
            for turn in turns {
                now += Duration::from_millis(turn.pause);
                let Turn { who, there, back, .. } = turn;
                let me = &mut candidates[who];
                if now < me.busy {
                    continue;
                }
                if turn.hears && me.version != version {
                    me.seen = seen(holder, now);
                    me.version = version;
                }
                if next(now, names[who], &me.seen, me.renewed, &timing) != Step::Take {
                    continue;
                }
                let sent = now;
                // The server acts in the order of arrival, and time passes for all until then.
                now += Duration::from_millis(there);
                me.busy = now + Duration::from_millis(back);
                let is_taken = turn.fate != Fate::Lost && me.version == version;
                if is_taken {
                    version += 1;
                    holder = Some(names[who]);
                }
                if turn.fate != Fate::Answered {
                    continue;
                }
                me.seen = seen(holder, me.busy);
                me.version = version;
                if !is_taken {
                    continue;
                }
                me.renewed = Some(sent);
                me.until = Some(sent + timing.writes);
                let [a, b] = &candidates;
                // Each is allowed from its response on, at the earliest from when the server took it.
                let other = if who == 0 { b } else { a };
                prop_assert!(other.until.is_none_or(|until| until <= now), "both may write");
            }
        }
    }

    #[test]
    fn a_holder_misses_some_renewals_before_it_stops_and_its_last_writes_have_time_to_end() {
        let timing = Timing::default();
        assert!(
            timing.renew * 3 <= timing.writes && timing.writes < timing.ends && timing.ends < timing.lease
        );
    }
}
