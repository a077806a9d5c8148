//! The newest versions of the models that somebody follows, with the metrics of their runs.
//!
//! Each poll lists them anew, because a tag moves no timestamp. Metrics are kept by run: a run that ended rarely gets others, so
//! of those that are known only a few are read again by each poll, the oldest first.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, stream};

use super::PolledRegistry;
use crate::{
    api::{condition::ReasonMessage, metric::Metric, names::ModelName},
    decide::NEWEST,
    registry::VersionFacts,
};

/// How many runs run are read at the same time.
const AT_ONCE: usize = 8;

/// How many known runs each poll reads again.
const AGAIN: usize = 10;

/// The metrics of a run, or why they could not be read.
pub type ListedMetrics = Result<BTreeMap<String, Metric>, ReasonMessage>;

/// The newest versions of a model, each with the metrics of its run; without them where nobody follows a metric.
pub type Listing = Result<Vec<(VersionFacts, ListedMetrics)>, ReasonMessage>;

/// The metrics of runs that were read, and by which poll.
#[derive(Debug, Default)]
pub(super) struct Runs {
    polls: u64,
    known: HashMap<String, (u64, ListedMetrics)>,
}

impl Runs {
    /// The runs among these that are to be read by the next poll: those that are not known, and those known longest.
    fn due(&self, runs: &[String]) -> HashSet<String> {
        let is_known = |run: &&String| self.known.get(*run).is_some_and(|(_, metrics)| metrics.is_ok());
        let mut known: Vec<_> = runs.iter().filter(is_known).map(|run| (self.known[run].0, run)).collect();
        known.sort_unstable();
        let again = known.into_iter().take(AGAIN).map(|(_, run)| run);
        runs.iter().filter(|run| !is_known(run)).chain(again).cloned().collect()
    }

    /// Takes what a poll read, and forgets the runs that nobody follows any more.
    fn remember(&mut self, read: HashMap<String, ListedMetrics>, followed: &[String]) {
        self.polls += 1;
        let polls = self.polls;
        self.known.extend(read.into_iter().map(|(run, metrics)| (run, (polls, metrics))));
        let followed: HashSet<&String> = followed.iter().collect();
        self.known.retain(|run, _| followed.contains(run));
    }

    fn of(&self, facts: &VersionFacts) -> ListedMetrics {
        let known = facts.run_id.as_ref().and_then(|run| self.known.get(run));
        known.map_or_else(|| Ok(BTreeMap::new()), |(_, metrics)| metrics.clone())
    }
}

impl PolledRegistry {
    /// The newest versions of a model; `None` until a poll has read them, which then happens now.
    #[must_use]
    pub fn listing(&self, name: &ModelName) -> Option<Listing> {
        let listing = self.memory().listings.get(name).cloned();
        if listing.is_none() {
            self.poll_now();
        }
        listing
    }

    /// Lists these models, with metrics where somebody follows one.
    pub(super) async fn read_listings(
        &self,
        followed: &BTreeMap<ModelName, bool>,
    ) -> HashMap<ModelName, Listing> {
        let names: Vec<ModelName> = followed.keys().cloned().collect();
        let lists = stream::iter(names).map(async |name| {
            let list = self.list(&name).await;
            (name, list)
        });
        let lists: BTreeMap<ModelName, Result<Vec<VersionFacts>, ReasonMessage>> =
            lists.buffer_unordered(AT_ONCE).collect().await;
        let by_metric = lists.iter().filter(|(name, _)| followed[*name]);
        let made_by = |(name, list): (&ModelName, &Result<Vec<VersionFacts>, ReasonMessage>)| {
            let made = |facts: &VersionFacts| Some((facts.run_id.clone()?, (name.clone(), facts.clone())));
            list.iter().flatten().filter_map(made).collect::<Vec<_>>()
        };
        self.read_runs(by_metric.flat_map(made_by).collect()).await;
        let memory = self.memory();
        let with_metrics = |facts: VersionFacts| {
            let metrics = memory.runs.of(&facts);
            (facts, metrics)
        };
        let listing = |list: Result<Vec<VersionFacts>, ReasonMessage>| {
            list.map(|list| list.into_iter().map(with_metrics).collect())
        };
        lists.into_iter().map(|(name, list)| (name, listing(list))).collect()
    }

    async fn list(&self, name: &ModelName) -> Result<Vec<VersionFacts>, ReasonMessage> {
        let client = self.client()?;
        client.newest_versions(name, NEWEST).await.map_err(|error| self.explain(Some(name), &error))
    }

    /// Reads those of these runs that are due, each with a version that it made.
    async fn read_runs(&self, mut made: HashMap<String, (ModelName, VersionFacts)>) {
        let runs: Vec<String> = made.keys().cloned().collect();
        let due = self.memory().runs.due(&runs);
        made.retain(|run, _| due.contains(run));
        let reads = stream::iter(made).map(async |(run, (name, facts))| {
            let metrics = match self.client() {
                Ok(client) => self.read_metrics(client.as_ref(), &name, &facts).await,
                Err(cause) => Err(cause),
            };
            (run, metrics)
        });
        let read = reads.buffer_unordered(AT_ONCE).collect().await;
        self.memory().runs.remember(read, &runs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition::Reason;

    #[test]
    fn what_is_not_known_is_read_and_of_the_rest_a_few_in_turn() {
        let runs: Vec<String> = (0..25).map(|number| format!("{number:02}")).collect();
        let mut known = Runs::default();
        let good = |runs: HashSet<String>| -> HashMap<String, ListedMetrics> {
            runs.into_iter().map(|run| (run, Ok(BTreeMap::new()))).collect()
        };
        assert_eq!(known.due(&runs).len(), 25);
        known.remember(good(known.due(&runs)), &runs);
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let due = known.due(&runs);
            assert_eq!(due.len(), AGAIN);
            seen.extend(due.clone());
            known.remember(good(due), &runs);
        }
        assert_eq!(seen.len(), 25, "each has its turn");
        let failed = Err(ReasonMessage::new(Reason::RegistryFailing, "500"));
        known.remember(HashMap::from([("03".to_owned(), failed)]), &runs);
        assert!(known.due(&runs).contains("03"), "what failed is read by the next poll");
        known.remember(HashMap::new(), &runs[..2]);
        assert_eq!(known.known.len(), 2, "what nobody follows is forgotten");
    }
}
