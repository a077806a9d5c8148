//! The newest versions of the models that have followers, with the metrics that those compare.
//!
//! A poll lists them again if anything about them may have changed. Creating or deleting a version changes
//! the model's `updated_at`, so without it the list is the same, but setting a tag does not: where a follower
//! looks at tags, every poll lists. Metrics are kept by run, and only those that a follower compares. A run
//! that ended rarely gets new ones, so each poll reads only a few known runs again, the oldest first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use jiff::Timestamp;

use super::{
    PolledRegistry,
    memory::RegistryMemory,
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

/// After how long versions are listed again anyway. What changes `updated_at` was measured on MLflow only,
/// and other servers offer the same API.
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
pub(super) type Times = (Timestamp, Timestamp);

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

/// The metrics of the runs read, with the number of the read.
#[derive(Debug, Default)]
pub(super) struct Runs {
    reads: u64,
    known: HashMap<MetricSources, KnownRun>,
}

#[derive(Debug)]
struct KnownRun {
    read: u64,
    /// The metrics that were kept, where the run has them.
    names: BTreeSet<String>,
    metrics: Arc<ListedMetrics>,
}

/// Runs, and the metrics of each that followers compare.
type FollowedRuns = BTreeMap<MetricSources, BTreeSet<String>>;

impl Runs {
    /// When a run was read, if all of it that is followed is known.
    fn known_at(&self, run: &MetricSources, names: &BTreeSet<String>) -> Option<u64> {
        let known = self.known.get(run)?;
        let is_whole = known.metrics.as_ref().as_ref().is_ok_and(|metrics| metrics.unread.is_none());
        (is_whole && names.is_subset(&known.names)).then_some(known.read)
    }

    /// Returns those that are not known.
    fn unknown(&self, runs: &FollowedRuns) -> HashSet<MetricSources> {
        let unknown = runs.iter().filter(|(run, names)| self.known_at(run, names).is_none());
        unknown.map(|(run, _)| run.clone()).collect()
    }

    /// Returns a few of those known longest, which the poll that began at `began` reads again.
    fn due_again(&self, runs: &FollowedRuns, began: u64) -> HashSet<MetricSources> {
        let read = runs.iter().filter_map(|(run, names)| Some((self.known_at(run, names)?, run)));
        let mut known: Vec<_> = read.filter(|(read, _)| *read <= began).collect();
        known.sort_unstable();
        known.into_iter().take(REREADS).map(|(_, run)| run.clone()).collect()
    }

    /// Remembers what was read of runs, for these followers beside those of before.
    fn remember(&mut self, read: HashMap<MetricSources, ListedMetrics>, followed: &FollowedRuns) {
        self.reads += 1;
        for (run, mut metrics) in read {
            let before = self.known.remove(&run);
            let mut names = followed.get(&run).cloned().unwrap_or_default();
            names.extend(before.iter().flat_map(|known| &known.names).cloned());
            if let Ok(metrics) = &mut metrics {
                metrics.values.retain(|name, _| names.contains(name));
                metrics.of_logged_model.retain(|name| names.contains(name));
            }
            let before = before.map(|known| known.metrics);
            let metrics = before.filter(|before| **before == metrics).unwrap_or_else(|| Arc::new(metrics));
            self.known.insert(run, KnownRun { read: self.reads, names, metrics });
        }
    }

    /// Forgets the runs without a follower, and the metrics that none compares any more.
    fn retain(&mut self, followed: &FollowedRuns) {
        self.known.retain(|run, known| {
            let names = followed.get(run);
            known.names.retain(|name| names.is_some_and(|names| names.contains(name)));
            names.is_some()
        });
    }

    fn listed(&self, facts: Arc<VersionFacts>) -> ListedVersion {
        let known = self.known.get(&facts.metric_sources());
        let nothing = || Arc::new(Ok(VersionMetrics::default()));
        ListedVersion { metrics: known.map_or_else(nothing, |known| known.metrics.clone()), facts }
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

    /// Lists the versions of these models, with the metrics that followers compare, and reports each model
    /// whose listing changed as soon as it is read.
    pub(super) async fn read_listings(
        &self,
        followed: &BTreeMap<ModelName, FollowerNeeds>,
        extent: Extent,
        report: &mut impl FnMut(BTreeSet<ModelName>),
    ) {
        let began = self.memory().runs.reads;
        let reads = stream::iter(followed.clone()).map(async |(name, needs)| {
            let has_changed = self.read_listing(&name, needs).await;
            has_changed.then_some(name)
        });
        let mut reads = reads.buffer_unordered(AT_ONCE).filter_map(std::future::ready).boxed();
        while let Some(name) = reads.next().await {
            report(BTreeSet::from([name]));
        }
        drop(reads);
        if extent == Extent::Everything {
            self.memory().listings.retain(|name, _| followed.contains_key(name));
        }
        report(self.read_runs_again(followed, began, extent).await);
    }

    /// Lists the versions of a model, and reads those of their runs that are not known. Returns whether the
    /// listing changed.
    async fn read_listing(&self, name: &ModelName, needs: FollowerNeeds) -> bool {
        let (began, times, before) = {
            let mut memory = self.memory();
            (memory.begin(), memory.times(name), memory.listings.get(name).cloned())
        };
        let known = before.as_ref().and_then(|listed| listed.unchanged(&needs, times));
        let is_new = known.is_none();
        let list = match known {
            Some(versions) => Ok(versions),
            None => self.list(name, &needs).await,
        };
        let runs = runs_of(name, list.iter().flatten(), &needs);
        let unknown = self.memory().runs.unknown(&followed_runs(&runs));
        self.read_runs(runs, &unknown).await;
        let mut memory = self.memory();
        let listing = list.map(|list| list.into_iter().map(|facts| memory.runs.listed(facts)).collect());
        let is_confirmed = times.is_some() && before.as_ref().is_some_and(|before| before.times == times);
        let at = before.filter(|_| !is_new).map_or_else(Instant::now, |before| before.at);
        let listed = Listed { listing: Arc::new(listing), is_new, needs, at, times, is_confirmed };
        memory.remember_listing(name, began, listed)
    }

    /// Reads a few of the runs again that were known before, and forgets those without a follower. Returns
    /// the models whose listing changed.
    async fn read_runs_again(
        &self,
        followed: &BTreeMap<ModelName, FollowerNeeds>,
        began: u64,
        extent: Extent,
    ) -> BTreeSet<ModelName> {
        let (runs, due) = {
            let mut memory = self.memory();
            let mut runs = Vec::new();
            for (name, needs) in followed {
                let listed = memory.listings.get(name).map(|listed| listed.listing.clone());
                let versions = listed.iter().flat_map(|listing| listing.iter().flatten());
                runs.extend(runs_of(name, versions.map(|version| &version.facts), needs));
            }
            let all = followed_runs(&runs);
            if extent == Extent::Everything {
                memory.runs.retain(&all);
            }
            (runs, memory.runs.due_again(&all, began))
        };
        let names: BTreeSet<ModelName> =
            runs.iter().filter(|run| due.contains(&run.sources)).map(|run| run.model.clone()).collect();
        self.read_runs(runs, &due).await;
        let mut memory = self.memory();
        names.into_iter().filter(|name| memory.renew_metrics(name)).collect()
    }

    async fn list(&self, name: &ModelName, needs: &FollowerNeeds) -> Versions {
        // Setting a tag changes no time, so what was read ahead may be from before.
        let ahead = if needs.has_tags { None } else { self.memory().all_ahead(name) };
        if let Some(versions) = ahead {
            return Ok(versions.into_iter().map(Arc::new).collect());
        }
        let client = self.client(Priority::Poll)?;
        let versions = client.newest_versions(name, NEWEST).await;
        let versions = versions.map_err(|error| self.explain(Some(name), &error))?;
        Ok(versions.into_iter().map(Arc::new).collect())
    }

    /// Reads those of the runs that are due.
    async fn read_runs(&self, runs: Vec<FollowedRun>, due: &HashSet<MetricSources>) {
        let followed = followed_runs(&runs);
        let due = runs.into_iter().filter(|run| due.contains(&run.sources));
        let due: HashMap<MetricSources, FollowedRun> = due.map(|run| (run.sources.clone(), run)).collect();
        if due.is_empty() {
            return;
        }
        let reads = stream::iter(due).map(async |(sources, run)| {
            let metrics = match self.client(Priority::Poll) {
                Ok(client) => self.read_metrics(client.as_ref(), &run.model, &run.facts).await,
                Err(error) => Err(error),
            };
            (sources, metrics)
        });
        let read = reads.buffer_unordered(AT_ONCE).collect().await;
        self.memory().runs.remember(read, &followed);
    }
}

impl RegistryMemory {
    /// Returns the times of a model as last read; `None` if it could not be read.
    fn times(&self, name: &ModelName) -> Option<Times> {
        self.models.get(name).filter(|known| known.failures == 0)?.facts.times()
    }

    /// Replaces the metrics in a listing by those known now. Returns whether it changed.
    fn renew_metrics(&mut self, name: &ModelName) -> bool {
        let Some(listed) = self.listings.get(name) else { return false };
        let Ok(versions) = &*listed.listing else { return false };
        let renewed: Vec<_> =
            versions.iter().map(|version| self.runs.listed(version.facts.clone())).collect();
        let has_changed = renewed != *versions;
        if has_changed && let Some(listed) = self.listings.get_mut(name) {
            listed.listing = Arc::new(Ok(renewed));
        }
        has_changed
    }
}

/// The run of a version, and the metrics that followers compare.
struct FollowedRun {
    sources: MetricSources,
    model: ModelName,
    facts: Arc<VersionFacts>,
    names: BTreeSet<String>,
}

fn runs_of<'a>(
    name: &ModelName,
    versions: impl Iterator<Item = &'a Arc<VersionFacts>>,
    needs: &FollowerNeeds,
) -> Vec<FollowedRun> {
    let runs = versions.filter(|_| !needs.metrics.is_empty()).map(|facts| FollowedRun {
        sources: facts.metric_sources(),
        model: name.clone(),
        facts: facts.clone(),
        names: needs.metrics.clone(),
    });
    runs.filter(|run| !run.sources.is_empty()).collect()
}

fn followed_runs(runs: &[FollowedRun]) -> FollowedRuns {
    let mut followed = FollowedRuns::new();
    for run in runs {
        followed.entry(run.sources.clone()).or_default().extend(run.names.iter().cloned());
    }
    followed
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
        assert_eq!(known.unknown(&runs).len(), 25);
        known.remember(good(known.unknown(&runs)), &runs);
        assert!(known.due_again(&runs, 0).is_empty(), "they were read just now");
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let due = known.due_again(&runs, known.reads);
            assert_eq!(due.len(), REREADS);
            seen.extend(due.clone());
            known.remember(good(due), &runs);
        }
        assert_eq!(seen.len(), 25, "each is read in its turn");
        let failed = Err(ReasonMessage::new(Reason::RegistryFailing, "500"));
        known.remember(HashMap::from([(run(3), failed)]), &runs);
        assert!(known.unknown(&runs).contains(&run(3)), "a failed read is repeated by the next poll");
        let unread = Some(ReasonMessage::new(Reason::RegistryFailing, "500 at its logged model"));
        let partly = Ok(VersionMetrics { unread, ..VersionMetrics::default() });
        known.remember(HashMap::from([(run(3), partly)]), &runs);
        assert!(known.unknown(&runs).contains(&run(3)), "and so is one that failed in part");
        known.remember(HashMap::new(), &followed(0..2, &["auc"]));
        assert_eq!(known.known.len(), 25, "only some were of interest");
        known.retain(&followed(0..2, &["auc"]));
        assert_eq!(known.known.len(), 2, "runs without a follower are forgotten");
    }

    #[test]
    fn only_the_metrics_that_a_follower_compares_are_kept_and_equal_ones_are_shared() {
        let runs = followed(0..1, &["auc"]);
        let mut known = Runs::default();
        known.remember(good(known.unknown(&runs)), &runs);
        let first = known.known[&run(0)].metrics.clone();
        let kept = first.as_ref().as_ref().unwrap();
        assert_eq!(kept.values.keys().collect::<Vec<_>>(), ["auc"]);
        known.remember(good(known.due_again(&runs, known.reads)), &runs);
        assert!(Arc::ptr_eq(&first, &known.known[&run(0)].metrics));
        let other = followed(0..1, &["loss"]);
        assert!(known.unknown(&other).contains(&run(0)), "what is followed now was not kept");
        known.remember(good(known.unknown(&other)), &other);
        let both = followed(0..1, &["auc", "loss"]);
        assert!(known.unknown(&both).is_empty(), "two models may have the same run");
        known.retain(&other);
        assert!(known.unknown(&both).contains(&run(0)), "nobody compares the other any more");
    }
}
