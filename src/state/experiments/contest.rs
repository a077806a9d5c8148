//! The champion against one challenger, as rounds arrive.

use jiff::{SignedDuration, Timestamp};

use crate::{
    analysis::{
        experiment::{Conclusion, ExperimentEvidence, conclude},
        ledger::{Arm, Folded, Ledger, LedgerSettings, Round},
    },
    api::names::Version,
    decide::experiment::{Contest, ContestKey, CountedView},
    state::counted::{Counted, Wanted},
};

/// How old numbers may get that say nothing new: so many may be lost with the process.
const RENEWED_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// What an arm is called: two ModelAliases may serve versions with the same number.
pub(super) fn arm(alias: &str, version: Version) -> Arm {
    Arm(format!("{alias}/{version}"))
}

/// The arms of a contest: the champion first.
pub(super) fn arms(champion: &str, key: &ContestKey) -> [Arm; 2] {
    [arm(champion, key.champion), arm(&key.alias, key.challenger)]
}

/// A contest that is counted.
pub(super) struct Counting {
    contest: Contest,
    arms: [Arm; 2],
    ledger: Ledger,
    evidence: ExperimentEvidence,
    /// What was said of it last, and when.
    last: Option<(CountedView, Conclusion, Timestamp)>,
}

impl Counting {
    pub(super) fn new(champion: &str, contest: &Contest, wanted: &[Wanted], now: Timestamp) -> Self {
        let arms = arms(champion, &contest.key);
        let named = |is_mean: bool| {
            let wanted = wanted.iter().filter(move |it| (it.counted == Counted::Mean) == is_mean);
            wanted.map(|it| it.name.clone()).collect::<Vec<_>>()
        };
        let settings =
            LedgerSettings { values: named(true), ..LedgerSettings::new(arms.to_vec(), named(false)) };
        let evidence = contest.evidence.clone();
        Self {
            evidence: evidence.unwrap_or_else(|| ExperimentEvidence::new(&contest.rules)),
            contest: contest.clone(),
            ledger: Ledger::new(settings, now),
            arms,
            last: None,
        }
    }

    pub(super) fn is_about(&self, contest: &Contest) -> bool {
        self.contest.key == contest.key && self.contest.since == contest.since
    }

    /// Takes over what may change while it is counted: the shares, and when it ends.
    pub(super) fn follow(&mut self, contest: &Contest) {
        self.contest.weights = contest.weights;
        self.contest.rules = contest.rules.clone();
    }

    /// Adds a round with the pods of all arms of the experiment. Returns whether there is news.
    pub(super) fn add(&mut self, round: &Round, now: Timestamp) -> bool {
        let scrapes = round.scrapes.iter().filter(|scrape| self.arms.contains(&scrape.arm)).cloned();
        let weights = self.contest.weights.map(f64::from).to_vec();
        let round = Round { at: round.at, weights, scrapes: scrapes.collect() };
        let folded = self.ledger.fold(&round);
        if let Folded::Batch(batch) = &folded {
            self.evidence.add(batch, &self.contest.rules);
        }
        let (view, found) = (self.view(), self.found(now));
        let is_news = match &self.last {
            None => matches!(folded, Folded::Batch(_)) || view.outage.is_some(),
            Some((last, before, at)) => {
                found.why != before.why
                    || found.outcome != before.outcome
                    || last.outage.map(|it| it.gap) != view.outage.map(|it| it.gap)
                    || now.duration_since(*at) >= RENEWED_AFTER
            }
        };
        if is_news {
            self.last = Some((view, found, now));
        }
        is_news
    }

    /// What is known now.
    pub(super) fn view(&self) -> CountedView {
        CountedView {
            key: self.contest.key.clone(),
            evidence: self.evidence.clone(),
            // One lost round may be a coincidence.
            outage: self.ledger.outage().filter(|outage| outage.rounds > 1),
        }
    }

    fn found(&self, now: Timestamp) -> Conclusion {
        let running = now.duration_since(self.contest.since);
        conclude(&self.evidence, &self.contest.rules, running)
    }
}
