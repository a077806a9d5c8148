//! From what pods counted to batches: what all versions did in the same minutes.
//!
//! ```text
//! Round ─ fold ─┬─► Batch     every pod was read: what was counted since the last batch
//!               ├─► Unknown   a pod was not: the batch stays open, so that both cover the same time
//!               └─► Dropped   open for too long, other weights, still warming up: counted for none
//! ```
//!
//! Only differences of raw counters are taken, and only here: a restart begins at 0, a pod that ends keeps
//! what it counted, a round that comes twice or late changes nothing. What is lost is lost for all versions.

mod pods;
mod sample;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::pods::Pods;
pub use self::sample::{Arm, Counters, Gap, Outcomes, PodUid, Round, Scrape};
use super::{MAX_COUNT, Tally, moments::Moments};

/// What a ledger counts, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerSettings {
    /// The versions, in the order of each batch.
    pub arms: Vec<Arm>,
    /// The checks that every pod has to count.
    pub checks: Vec<String>,
    /// The means that every pod has to count.
    pub values: Vec<String>,
    /// How long the first traffic of each version is thrown away.
    pub warm_up: SignedDuration,
    /// The longest batch: within it, the causes that the versions share should not change much.
    pub longest_batch: SignedDuration,
    /// How far apart the pods of a round may be read.
    pub same_time: SignedDuration,
}

impl LedgerSettings {
    /// The settings for some versions and checks, with a warm-up of 60 seconds, batches of at most 60
    /// seconds, and pods read within 2 seconds.
    #[must_use]
    pub fn new(arms: Vec<Arm>, checks: Vec<String>) -> Self {
        Self {
            arms,
            checks,
            values: Vec::new(),
            warm_up: SignedDuration::from_secs(60),
            longest_batch: SignedDuration::from_secs(60),
            same_time: SignedDuration::from_secs(2),
        }
    }
}

/// What one version did in a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArmBatch {
    /// Its requests.
    pub requests: u64,
    /// The outcomes that each check is about.
    pub tallies: BTreeMap<String, Tally>,
    /// The sums of each mean.
    pub values: BTreeMap<String, Moments>,
}

/// What all versions did between two times.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// The planned share of each version.
    pub weights: Vec<f64>,
    /// The versions, in the order of [`LedgerSettings::arms`].
    pub arms: Vec<ArmBatch>,
}

/// What became of a round.
#[derive(Clone, Debug, PartialEq)]
pub enum Folded {
    /// The batch that it closed.
    Batch(Batch),
    /// It is the first: what comes later is counted from here.
    Opened,
    /// It is not newer than the last one, so nothing changed.
    Repeated,
    /// Something was not known; the batch stays open.
    Unknown(Gap),
    /// The open batch was dropped for all versions.
    Dropped(Dropped),
}

/// Why a batch was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It was open for longer than a batch may be.
    TooLong,
    /// A pod was read again that had not been read when the batch began.
    ReadAgain,
    /// The planned shares changed.
    OtherWeights,
    /// A version is new to traffic.
    WarmUp,
}

/// Whether samples arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// When the first round that could not be used was made.
    pub since: Timestamp,
    /// How many there were since, without one that could.
    pub rounds: u32,
    /// What the last one lacked.
    pub gap: Gap,
}

/// The counts of some versions over time. It is not stored: after a restart of the operator, counting begins
/// again at what the pods have then.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    settings: LedgerSettings,
    pods: Pods,
    weights: Vec<f64>,
    /// When the open batch began.
    opened_at: Option<Timestamp>,
    last_round_at: Option<Timestamp>,
    /// When each version had its first request.
    first_traffic: Vec<Option<Timestamp>>,
    outage: Option<Outage>,
}

impl Ledger {
    /// An empty ledger. Of pods that started after `since`, everything is counted.
    #[must_use]
    pub fn new(settings: LedgerSettings, since: Timestamp) -> Self {
        Self {
            first_traffic: vec![None; settings.arms.len()],
            settings,
            pods: Pods::new(since),
            weights: Vec::new(),
            opened_at: None,
            last_round_at: None,
            outage: None,
        }
    }

    /// Whether samples have stopped, and why.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.outage
    }

    /// Adds a round.
    pub fn fold(&mut self, round: &Round) -> Folded {
        if self.last_round_at.is_some_and(|last| round.at <= last) {
            return Folded::Repeated;
        }
        self.last_round_at = Some(round.at);
        if let Some(gap) = self.ambiguity(round) {
            return self.unusable(round, gap);
        }
        let has_stale = self.read(round);
        let gap = self.gap(round);
        if self.weights != round.weights {
            let is_first = self.opened_at.is_none();
            self.weights.clone_from(&round.weights);
            if !is_first {
                return self.dropped(round, Dropped::OtherWeights, gap);
            }
        }
        let Some(opened_at) = self.opened_at else {
            self.opened_at = Some(round.at);
            return gap.map_or(Folded::Opened, |gap| self.unusable(round, gap));
        };
        if has_stale {
            return self.dropped(round, Dropped::ReadAgain, gap);
        }
        if round.at.duration_since(opened_at) > self.settings.longest_batch {
            return self.dropped(round, Dropped::TooLong, gap);
        }
        match gap.map_or_else(|| self.batch(opened_at, round), Err) {
            Ok(batch) => self.close(batch),
            Err(gap) => self.unusable(round, gap),
        }
    }

    /// Finds what makes a round useless as a whole, before anything of it is taken.
    fn ambiguity(&self, round: &Round) -> Option<Gap> {
        let scrapes: Vec<&Scrape> = self.scrapes(round).collect();
        let pods: BTreeSet<&PodUid> = scrapes.iter().map(|scrape| &scrape.pod).collect();
        let is_moved = |scrape: &&Scrape| self.pods.arm_of(&scrape.pod).is_some_and(|arm| *arm != scrape.arm);
        if pods.len() < scrapes.len() || scrapes.iter().any(is_moved) {
            return Some(Gap::Ambiguous);
        }
        let times = || scrapes.iter().filter(|scrape| scrape.counters.is_ok()).map(|scrape| scrape.at);
        let spread = times().max()?.duration_since(times().min()?);
        (spread > self.settings.same_time).then_some(Gap::Late)
    }

    /// The scrapes of the versions of this ledger.
    fn scrapes<'a>(&'a self, round: &'a Round) -> impl Iterator<Item = &'a Scrape> {
        round.scrapes.iter().filter(|scrape| self.settings.arms.contains(&scrape.arm))
    }

    /// Takes the samples of a round. Returns whether one of them was of a stale pod.
    fn read(&mut self, round: &Round) -> bool {
        let Self { settings, pods, .. } = self;
        let mut has_stale = false;
        for scrape in round.scrapes.iter().filter(|scrape| settings.arms.contains(&scrape.arm)) {
            if let Ok(counters) = &scrape.counters
                && settings.has_all(counters)
            {
                has_stale |= pods.read(scrape, counters);
            }
        }
        has_stale
    }

    /// Finds what of a round is not known.
    fn gap(&self, round: &Round) -> Option<Gap> {
        let is_absent = |arm: &Arm| !round.scrapes.iter().any(|scrape| scrape.arm == *arm);
        if self.settings.arms.iter().any(is_absent) {
            return Some(Gap::Missing);
        }
        self.scrapes(round).find_map(|scrape| match &scrape.counters {
            Err(gap) => Some(*gap),
            Ok(counters) => (!self.settings.has_all(counters)).then_some(Gap::Missing),
        })
    }

    fn unusable(&mut self, round: &Round, gap: Gap) -> Folded {
        let outage = self.outage.get_or_insert(Outage { since: round.at, rounds: 0, gap });
        outage.rounds = outage.rounds.saturating_add(1);
        outage.gap = gap;
        Folded::Unknown(gap)
    }

    /// Drops the open batch and begins another one.
    fn dropped(&mut self, round: &Round, why: Dropped, gap: Option<Gap>) -> Folded {
        let settings = &self.settings;
        let usable = round
            .scrapes
            .iter()
            .filter(|scrape| scrape.counters.as_ref().is_ok_and(|counters| settings.has_all(counters)));
        let read: BTreeSet<&PodUid> = usable.map(|scrape| &scrape.pod).collect();
        self.pods.drop_open(round.at, &read);
        self.opened_at = Some(round.at);
        if let Some(gap) = gap {
            return self.unusable(round, gap);
        }
        self.outage = None;
        Folded::Dropped(why)
    }

    /// The open batch, closed by a round.
    fn batch(&self, from: Timestamp, round: &Round) -> Result<Batch, Gap> {
        let arms = self.settings.arms.iter().map(|arm| self.arm_batch(arm)).collect::<Result<_, _>>()?;
        Ok(Batch { from, to: round.at, weights: round.weights.clone(), arms })
    }

    fn arm_batch(&self, arm: &Arm) -> Result<ArmBatch, Gap> {
        let mut sum = Counters::default();
        self.pods.iter().filter(|pod| pod.arm == *arm).for_each(|pod| sum.add(&pod.open));
        let tallies = self.settings.checks.iter().map(|check| {
            let counted = sum.checks.get(check).copied().unwrap_or_default();
            Ok((check.clone(), Tally::new(counted.bad, counted.total).ok_or(Gap::Inconsistent)?))
        });
        let tallies = tallies.collect::<Result<_, _>>()?;
        if sum.requests > MAX_COUNT {
            return Err(Gap::Inconsistent);
        }
        Ok(ArmBatch { requests: sum.requests, tallies, values: sum.values })
    }

    fn close(&mut self, batch: Batch) -> Folded {
        self.opened_at = Some(batch.to);
        self.outage = None;
        self.pods.close();
        for (first, arm) in self.first_traffic.iter_mut().zip(&batch.arms) {
            if arm.requests > 0 {
                first.get_or_insert(batch.from);
            }
        }
        let warm_up = self.settings.warm_up;
        let is_warming = |first: &Timestamp| batch.from.duration_since(*first) < warm_up;
        if self.first_traffic.iter().flatten().any(is_warming) {
            return Folded::Dropped(Dropped::WarmUp);
        }
        Folded::Batch(batch)
    }
}

impl LedgerSettings {
    /// Whether a sample has every series.
    fn has_all(&self, counters: &Counters) -> bool {
        self.checks.iter().all(|check| counters.checks.contains_key(check))
            && self.values.iter().all(|value| counters.values.contains_key(value))
    }
}
