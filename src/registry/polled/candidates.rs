//! The newest versions of the models that have followers, with the metrics that those compare.
//!
//! A poll lists them again if anything about them may have changed. Creating or deleting a version changes the
//! model's `updated_at`, so without it the list is the same, but setting a tag does not: where a follower looks
//! at tags, every poll lists. Metrics are kept by run, and only those that a follower compares. A run that
//! ended rarely gets new ones, so each poll reads only a few known runs again, the oldest first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use jiff::Timestamp;

use super::{
    PolledRegistry,
    memory::ModelRead,
    poll::{Extent, FollowerNeeds},
};
use crate::{
    api::{condition::ReasonMessage, names::ModelName},
    decide::NEWEST,
    registry::{
        VersionFacts, VersionState,
        limiter::Priority,
        metrics::{MetricSources, VersionMetrics},
    },
};

/// How many runs are read concurrently.
const AT_ONCE: usize = 8;

/// After how long versions are listed again anyway. What changes `updated_at` was measured on MLflow only, and
/// other servers offer the same API.
const RELISTED_AFTER: Duration = Duration::from_mins(10);

/// How many known runs each poll reads again.
const REREADS: usize = 10;

/// The metrics of a version, or why they could not be read.
pub type ListedMetrics = Result<VersionMetrics, ReasonMessage>;

/// A version, with the metrics of its run that followers compare.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedVersion {
    /// The version.
    pub facts: Arc<VersionFacts>,
    /// Its metrics.
    pub metrics: Arc<ListedMetrics>,
}

/// The newest versions of a model.
pub type Listing = Result<Vec<ListedVersion>, ReasonMessage>;

type Versions = Result<Vec<Arc<VersionFacts>>, ReasonMessage>;

/// When the model was created, and when it or its set of versions last changed.
type Times = (Timestamp, Timestamp);

/// A listing, and how current it is.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) listing: Arc<Listing>,
    /// Whether the poll listed the versions. Otherwise they are those of before.
    pub(super) is_new: bool,
    /// What it was read for. It shows nothing about the rest: that may be older, or be left out.
    pub(super) needs: FollowerNeeds,
    /// When it listed them.
    at: Instant,
    /// The times of the model as read before the list.
    times: Option<Times>,
    /// Whether an earlier list had the same times: they have a resolution, within which one list may be from
    /// before a change.
    is_confirmed: bool,
}

impl Listed {
    /// Returns the versions, if a model with these times has the same.
    fn unchanged(&self, needs: &FollowerNeeds, times: Option<Times>) -> Option<Vec<Arc<VersionFacts>>> {
        let versions = self.listing.as_ref().as_ref().ok()?;
        let may_differ = needs.has_tags
            || !self.is_confirmed
            || self.at.elapsed() >= RELISTED_AFTER
            || times.is_none()
            || times != self.times
            || versions.iter().any(|version| version.facts.state == VersionState::Pending);
        (!may_differ).then(|| versions.iter().map(|version| version.facts.clone()).collect())
    }
}

/// The metrics of the runs read, with the number of the poll that read them.
#[derive(Debug, Default)]
pub(super) struct Runs {
    polls: u64,
    known: HashMap<MetricSources, KnownRun>,
}

#[derive(Debug)]
struct KnownRun {
    poll: u64,
    /// The metrics that were kept, where the run has them.
    names: BTreeSet<String>,
    metrics: Arc<ListedMetrics>,
}

/// Runs, and the metrics of each that followers compare.
type FollowedRuns = BTreeMap<MetricSources, BTreeSet<String>>;

impl Runs {
    /// Returns the runs that the next poll has to read: the unknown ones, and a few of those known longest.
    fn due(&self, runs: &FollowedRuns) -> HashSet<MetricSources> {
        let known_at = |run: &MetricSources, names: &BTreeSet<String>| {
            let known = self.known.get(run)?;
            let is_whole = known.metrics.as_ref().as_ref().is_ok_and(|metrics| metrics.unread.is_none());
            (is_whole && names.is_subset(&known.names)).then_some(known.poll)
        };
        let (mut known, mut due) = (Vec::new(), HashSet::new());
        for (run, names) in runs {
            match known_at(run, names) {
                Some(poll) => known.push((poll, run)),
                None => drop(due.insert(run.clone())),
            }
        }
        known.sort_unstable();
        due.extend(known.into_iter().take(REREADS).map(|(_, run)| run.clone()));
        due
    }

    /// Remembers the runs that a poll read, and if it read everything, forgets those without a follower.
    fn remember(
        &mut self,
        read: HashMap<MetricSources, ListedMetrics>,
        followed: &FollowedRuns,
        extent: Extent,
    ) {
        self.polls += 1;
        for (run, mut metrics) in read {
            let names = followed.get(&run).cloned().unwrap_or_default();
            if let Ok(metrics) = &mut metrics {
                metrics.values.retain(|name, _| names.contains(name));
                metrics.of_logged_model.retain(|name| names.contains(name));
            }
            let before = self.known.remove(&run).map(|known| known.metrics);
            let metrics = before.filter(|before| **before == metrics).unwrap_or_else(|| Arc::new(metrics));
            self.known.insert(run, KnownRun { poll: self.polls, names, metrics });
        }
        if extent == Extent::Everything {
            self.known.retain(|run, _| followed.contains_key(run));
        }
    }

    fn of(&self, facts: &VersionFacts) -> Arc<ListedMetrics> {
        let known = self.known.get(&facts.metric_sources());
        known.map_or_else(|| Arc::new(Ok(VersionMetrics::default())), |known| known.metrics.clone())
    }
}

impl PolledRegistry {
    /// Returns the newest versions of a model; `None` before they were read for a follower that needs this,
    /// which is then done soon.
    #[must_use]
    pub fn listing(&self, name: &ModelName, needs: &FollowerNeeds) -> Option<Arc<Listing>> {
        let listing = {
            let memory = self.memory();
            let listed = memory.listings.get(name).filter(|listed| listed.needs.include(needs));
            listed.map(|listed| listed.listing.clone())
        };
        if listing.is_none() {
            self.read_soon(name);
        }
        listing
    }

    /// Lists the versions of these models, with the metrics that followers compare. `models` are the models as
    /// just read.
    pub(super) async fn read_listings(
        &self,
        followed: &BTreeMap<ModelName, FollowerNeeds>,
        models: &BTreeMap<ModelName, ModelRead>,
        extent: Extent,
    ) -> HashMap<ModelName, Listed> {
        let (mut lists, mut to_list) = (BTreeMap::<ModelName, (Versions, bool)>::new(), Vec::new());
        {
            let memory = self.memory();
            for (name, needs) in followed {
                let listed = memory.listings.get(name);
                match listed.and_then(|listed| listed.unchanged(needs, times(models, name))) {
                    Some(versions) => drop(lists.insert(name.clone(), (Ok(versions), false))),
                    None => to_list.push(name.clone()),
                }
            }
        }
        let new = stream::iter(to_list).map(async |name| {
            let list = self.list(&name).await;
            (name, (list, true))
        });
        let new: Vec<_> = new.buffer_unordered(AT_ONCE).collect().await;
        lists.extend(new);
        self.read_runs(&lists, followed, extent).await;
        let memory = self.memory();
        let with_metrics = |facts: Arc<VersionFacts>| {
            let metrics = memory.runs.of(&facts);
            ListedVersion { facts, metrics }
        };
        let listed = |(name, (list, is_new)): (ModelName, (Versions, bool))| {
            let listing = list.map(|list| list.into_iter().map(with_metrics).collect());
            let times = times(models, &name);
            let before = memory.listings.get(&name);
            let is_confirmed = times.is_some() && before.is_some_and(|before| before.times == times);
            let at = before.filter(|_| !is_new).map_or_else(Instant::now, |before| before.at);
            let needs = followed.get(&name).cloned().unwrap_or_default();
            (name, Listed { listing: Arc::new(listing), is_new, needs, at, times, is_confirmed })
        };
        lists.into_iter().map(listed).collect()
    }

    async fn list(&self, name: &ModelName) -> Versions {
        let client = self.client(Priority::Poll)?;
        let versions = client.newest_versions(name, NEWEST).await;
        let versions = versions.map_err(|error| self.explain(Some(name), &error))?;
        Ok(versions.into_iter().map(Arc::new).collect())
    }

    /// Reads the runs that are due.
    async fn read_runs(
        &self,
        lists: &BTreeMap<ModelName, (Versions, bool)>,
        followed: &BTreeMap<ModelName, FollowerNeeds>,
        extent: Extent,
    ) {
        let mut runs = FollowedRuns::new();
        let mut versions: HashMap<MetricSources, (ModelName, Arc<VersionFacts>)> = HashMap::new();
        let compared = |name: &ModelName| followed.get(name).map(|needs| &needs.metrics);
        for (name, (list, _)) in lists {
            let Some(names) = compared(name).filter(|names| !names.is_empty()) else { continue };
            for facts in list.iter().flatten() {
                let sources = facts.metric_sources();
                if !sources.is_empty() {
                    runs.entry(sources.clone()).or_default().extend(names.iter().cloned());
                    versions.insert(sources, (name.clone(), facts.clone()));
                }
            }
        }
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
        self.memory().runs.remember(read, &runs, extent);
    }
}

fn times(models: &BTreeMap<ModelName, ModelRead>, name: &ModelName) -> Option<Times> {
    let facts = models.get(name)?.1.as_ref().ok()?.as_ref()?;
    Some((facts.created_at, facts.updated_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{condition::Reason, metric::Metric};

    fn run(number: u32) -> MetricSources {
        MetricSources { run_id: Some(format!("{number:02}")), logged_model: None }
    }

    fn followed(numbers: std::ops::Range<u32>, names: &[&str]) -> FollowedRuns {
        let names: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        numbers.map(|number| (run(number), names.clone())).collect()
    }

    fn good(runs: HashSet<MetricSources>) -> HashMap<MetricSources, ListedMetrics> {
        let values = ["auc", "loss"].map(|name| (name.to_owned(), Metric::new(0.5))).into();
        let metrics = VersionMetrics { values, ..VersionMetrics::default() };
        runs.into_iter().map(|run| (run, Ok(metrics.clone()))).collect()
    }

    #[test]
    fn unknown_runs_are_read_first_and_known_ones_in_turn() {
        let runs = followed(0..25, &["auc"]);
        let mut known = Runs::default();
        assert_eq!(known.due(&runs).len(), 25);
        known.remember(good(known.due(&runs)), &runs, Extent::Everything);
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let due = known.due(&runs);
            assert_eq!(due.len(), REREADS);
            seen.extend(due.clone());
            known.remember(good(due), &runs, Extent::Everything);
        }
        assert_eq!(seen.len(), 25, "each is read in its turn");
        let failed = Err(ReasonMessage::new(Reason::RegistryFailing, "500"));
        known.remember(HashMap::from([(run(3), failed)]), &runs, Extent::Everything);
        assert!(known.due(&runs).contains(&run(3)), "a failed read is repeated by the next poll");
        let unread = Some(ReasonMessage::new(Reason::RegistryFailing, "500 at its logged model"));
        let partly = Ok(VersionMetrics { unread, ..VersionMetrics::default() });
        known.remember(HashMap::from([(run(3), partly)]), &runs, Extent::Everything);
        assert!(known.due(&runs).contains(&run(3)), "and so is one that failed in part");
        known.remember(HashMap::new(), &followed(0..2, &["auc"]), Extent::Part);
        assert_eq!(known.known.len(), 25, "only some were of interest");
        known.remember(HashMap::new(), &followed(0..2, &["auc"]), Extent::Everything);
        assert_eq!(known.known.len(), 2, "runs without a follower are forgotten");
    }

    #[test]
    fn only_the_metrics_that_a_follower_compares_are_kept_and_equal_ones_are_shared() {
        let runs = followed(0..1, &["auc"]);
        let mut known = Runs::default();
        known.remember(good(known.due(&runs)), &runs, Extent::Everything);
        let first = known.known[&run(0)].metrics.clone();
        let kept = first.as_ref().as_ref().unwrap();
        assert_eq!(kept.values.keys().collect::<Vec<_>>(), ["auc"]);
        known.remember(good(known.due(&runs)), &runs, Extent::Everything);
        assert!(Arc::ptr_eq(&first, &known.known[&run(0)].metrics));
        let both = followed(0..1, &["auc", "loss"]);
        assert_eq!(Runs { polls: 0, known: HashMap::new() }.due(&both).len(), 1);
        let many: FollowedRuns = followed(0..30, &["auc"]).into_iter().chain(both).collect();
        known.remember(good(followed(1..30, &["auc"]).into_keys().collect()), &many, Extent::Everything);
        assert!(known.due(&many).contains(&run(0)), "what is followed now was not kept");
    }
}
