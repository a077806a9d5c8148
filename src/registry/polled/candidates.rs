//! The newest versions of the models that have followers, with the metrics of their runs.
//!
//! Each poll lists them again, because setting a tag changes no timestamp. Metrics are kept by run. A run
//! that ended rarely gets new ones, so each poll reads only a few known runs again, the oldest first.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, stream};

use super::PolledRegistry;
use crate::{
    api::{condition::ReasonMessage, names::ModelName},
    decide::NEWEST,
    registry::{
        VersionFacts,
        limiter::Priority,
        metrics::{MetricSources, VersionMetrics},
    },
};

/// How many runs are read concurrently.
const AT_ONCE: usize = 8;

/// How many known runs each poll reads again.
const REREADS: usize = 10;

/// The metrics of a version, or why they could not be read.
pub type ListedMetrics = Result<VersionMetrics, ReasonMessage>;

/// The newest versions of a model, each with the metrics of its run, or without metrics if no follower needs
/// them.
pub type Listing = Result<Vec<(VersionFacts, ListedMetrics)>, ReasonMessage>;

/// The metrics of the runs read, with the number of the poll that read them.
#[derive(Debug, Default)]
pub(super) struct Runs {
    polls: u64,
    known: HashMap<MetricSources, (u64, ListedMetrics)>,
}

impl Runs {
    /// Returns the runs that the next poll has to read: the unknown ones, and a few of those known longest.
    fn due(&self, runs: &[MetricSources]) -> HashSet<MetricSources> {
        let is_known =
            |run: &&MetricSources| self.known.get(*run).is_some_and(|(_, metrics)| metrics.is_ok());
        let mut known: Vec<_> = runs.iter().filter(is_known).map(|run| (self.known[run].0, run)).collect();
        known.sort_unstable();
        let again = known.into_iter().take(REREADS).map(|(_, run)| run);
        runs.iter().filter(|run| !is_known(run)).chain(again).cloned().collect()
    }

    /// Remembers the runs that a poll read, and forgets those without a follower.
    fn remember(&mut self, read: HashMap<MetricSources, ListedMetrics>, followed: &[MetricSources]) {
        self.polls += 1;
        let polls = self.polls;
        self.known.extend(read.into_iter().map(|(run, metrics)| (run, (polls, metrics))));
        let followed: HashSet<&MetricSources> = followed.iter().collect();
        self.known.retain(|run, _| followed.contains(run));
    }

    fn of(&self, facts: &VersionFacts) -> ListedMetrics {
        let known = self.known.get(&facts.metric_sources());
        known.map_or_else(|| Ok(VersionMetrics::default()), |(_, metrics)| metrics.clone())
    }
}

impl PolledRegistry {
    /// Returns the newest versions of a model; `None` before a poll has read them, and then it starts one.
    #[must_use]
    pub fn listing(&self, name: &ModelName) -> Option<Listing> {
        let listing = self.memory().listings.get(name).cloned();
        if listing.is_none() {
            self.poll_now();
        }
        listing
    }

    /// Lists the versions of these models, with metrics if a follower needs them.
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
        let runs_of = |(name, list): (&ModelName, &Result<Vec<VersionFacts>, ReasonMessage>)| {
            let run = |facts: &VersionFacts| {
                let sources = facts.metric_sources();
                (!sources.is_empty()).then(|| (sources, (name.clone(), facts.clone())))
            };
            list.iter().flatten().filter_map(run).collect::<Vec<_>>()
        };
        self.read_runs(by_metric.flat_map(runs_of).collect()).await;
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
        let client = self.client(Priority::Poll)?;
        client.newest_versions(name, NEWEST).await.map_err(|error| self.explain(Some(name), &error))
    }

    /// Reads the runs that are due. Each is given with a version that it created.
    async fn read_runs(&self, mut versions: HashMap<MetricSources, (ModelName, VersionFacts)>) {
        let runs: Vec<MetricSources> = versions.keys().cloned().collect();
        let due = self.memory().runs.due(&runs);
        versions.retain(|run, _| due.contains(run));
        let reads = stream::iter(versions).map(async |(run, (name, facts))| {
            let metrics = match self.client(Priority::Poll) {
                Ok(client) => self.read_metrics(client.as_ref(), &name, &facts).await,
                Err(error) => Err(error),
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
    fn unknown_runs_are_read_first_and_known_ones_in_turn() {
        let run = |number: u32| MetricSources { run_id: Some(format!("{number:02}")), logged_model: None };
        let runs: Vec<MetricSources> = (0..25).map(run).collect();
        let mut known = Runs::default();
        let good = |runs: HashSet<MetricSources>| -> HashMap<MetricSources, ListedMetrics> {
            runs.into_iter().map(|run| (run, Ok(VersionMetrics::default()))).collect()
        };
        assert_eq!(known.due(&runs).len(), 25);
        known.remember(good(known.due(&runs)), &runs);
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let due = known.due(&runs);
            assert_eq!(due.len(), REREADS);
            seen.extend(due.clone());
            known.remember(good(due), &runs);
        }
        assert_eq!(seen.len(), 25, "each is read in its turn");
        let failed = Err(ReasonMessage::new(Reason::RegistryFailing, "500"));
        known.remember(HashMap::from([(run(3), failed)]), &runs);
        assert!(known.due(&runs).contains(&run(3)), "a failed read is repeated by the next poll");
        known.remember(HashMap::new(), &runs[..2]);
        assert_eq!(known.known.len(), 2, "runs without a follower are forgotten");
    }
}
