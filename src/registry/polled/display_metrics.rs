//! The metrics that the status of a RegisteredModel shows for its newest versions.
//!
//! Logging a metric changes none of the model's timestamps. So each poll reads a few of the displayed runs
//! again, first those that could not be read, then the oldest: ten requests, however many models there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt, stream};

use super::{PolledRegistry, memory::Sequence};
use crate::{
    api::{
        metric::Metric,
        names::{ModelName, Version},
    },
    registry::{VersionFacts, limiter::Priority},
};

/// How many reads run concurrently.
const AT_ONCE: usize = 8;

/// How many runs each poll reads again.
const REREADS: usize = 10;

/// The displayed metrics of each version; `None` until its run has been read.
pub type DisplayMetrics = BTreeMap<Version, Option<BTreeMap<String, Metric>>>;

/// The displayed metrics, and when they were read.
#[derive(Debug, Default)]
pub(super) struct DisplayCache {
    models: HashMap<ModelName, CachedModel>,
}

#[derive(Debug, Default)]
struct CachedModel {
    /// The metrics to display.
    names: BTreeSet<String>,
    versions: BTreeMap<Version, CachedRun>,
}

#[derive(Debug)]
struct CachedRun {
    facts: VersionFacts,
    /// The request that last read it.
    read: Sequence,
    /// `None` until it has been read.
    metrics: Option<BTreeMap<String, Metric>>,
}

/// The metrics of a run; `None` if they could not be read.
type MetricsRead = (ModelName, Version, Sequence, Option<BTreeMap<String, Metric>>);

impl DisplayCache {
    /// Updates a model's newest versions and the metrics to display. Returns the versions that have to be
    /// read.
    fn update(
        &mut self,
        name: &ModelName,
        versions: &[VersionFacts],
        names: &BTreeSet<String>,
    ) -> Vec<(ModelName, VersionFacts)> {
        let model = self.models.entry(name.clone()).or_default();
        let has_new_names = !names.is_subset(&model.names);
        model.names.extend(names.iter().cloned());
        let mut known = std::mem::take(&mut model.versions);
        for facts in versions {
            let same_run =
                |run: &CachedRun| run.facts.metric_sources() == facts.metric_sources() && !has_new_names;
            let run = known.remove(&facts.version).filter(same_run);
            let metrics = run.as_ref().and_then(|run| run.metrics.clone());
            let run = CachedRun {
                facts: facts.clone(),
                read: run.map(|run| run.read).unwrap_or_default(),
                metrics,
            };
            model.versions.insert(facts.version, run);
        }
        let unread = model.versions.values().filter(|run| run.metrics.is_none());
        unread.map(|run| (name.clone(), run.facts.clone())).collect()
    }

    /// Returns the runs that the next poll has to read.
    fn due(&self, watched: &BTreeSet<ModelName>) -> Vec<(ModelName, VersionFacts)> {
        let models = self.models.iter().filter(|(name, _)| watched.contains(*name));
        let runs = models.flat_map(|(name, model)| model.versions.values().map(move |run| (name, run)));
        let mut runs: Vec<_> = runs.filter(|(_, run)| !run.facts.metric_sources().is_empty()).collect();
        runs.sort_by_key(|(name, run)| (run.metrics.is_some(), run.read, *name, run.facts.version));
        runs.into_iter().take(REREADS).map(|(name, run)| (name.clone(), run.facts.clone())).collect()
    }

    /// Remembers metrics and returns the models that changed. Metrics that could not be read stay as they
    /// were.
    fn remember(&mut self, read: Vec<MetricsRead>) -> BTreeSet<ModelName> {
        let mut changed = BTreeSet::new();
        for (name, version, sequence, metrics) in read {
            let Some(model) = self.models.get_mut(&name) else { continue };
            let Some(run) = model.versions.get_mut(&version) else { continue };
            if sequence < run.read {
                continue;
            }
            run.read = sequence;
            let Some(mut metrics) = metrics else { continue };
            metrics.retain(|name, _| model.names.contains(name));
            if run.metrics.as_ref() != Some(&metrics) {
                run.metrics = Some(metrics);
                changed.insert(name);
            }
        }
        changed
    }

    fn of(&self, name: &ModelName) -> DisplayMetrics {
        let versions = self.models.get(name).into_iter().flat_map(|model| &model.versions);
        versions.map(|(version, run)| (*version, run.metrics.clone())).collect()
    }
}

impl PolledRegistry {
    /// Returns these metrics of a model's newest versions. Runs that were never read are read now.
    pub async fn display_metrics(
        &self,
        name: &ModelName,
        versions: &[VersionFacts],
        names: &BTreeSet<String>,
    ) -> DisplayMetrics {
        if names.is_empty() {
            return DisplayMetrics::new();
        }
        let unread = self.memory().display.update(name, versions, names);
        let read = self.read_display_runs(unread).await;
        let mut memory = self.memory();
        memory.display.remember(read);
        memory.display.of(name)
    }

    /// Reads a few of the displayed runs again, and forgets the models that are not watched any more. Returns
    /// the models that changed.
    pub async fn read_display_metrics(&self) -> BTreeSet<ModelName> {
        let watched: &BTreeSet<ModelName> = &self.memory().models.keys().cloned().collect();
        let due = {
            let display = &mut self.memory().display;
            display.models.retain(|name, _| watched.contains(name));
            display.due(watched)
        };
        let read = self.read_display_runs(due).await;
        self.memory().display.remember(read)
    }

    async fn read_display_runs(&self, runs: Vec<(ModelName, VersionFacts)>) -> Vec<MetricsRead> {
        let reads = stream::iter(runs).map(async |(name, facts)| {
            let sequence = self.memory().begin();
            let metrics = match self.client(Priority::Display) {
                Ok(client) => self.read_metrics(client.as_ref(), &name, &facts).await.ok(),
                Err(_) => None,
            };
            (name, facts.version, sequence, metrics.map(|metrics| metrics.values))
        });
        reads.buffer_unordered(AT_ONCE).collect().await
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pretty_assertions::assert_eq;

    use super::{super::memory::RegistryMemory, *};
    use crate::registry::VersionState;

    fn facts(number: u32, run: &str) -> VersionFacts {
        VersionFacts {
            version: Version::new(number).unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            state: VersionState::Ready,
            model_uri: format!("models:/fraud/{number}").parse().unwrap(),
            run_id: Some(run.to_owned()),
            description: String::new(),
            tags: BTreeMap::new(),
        }
    }

    fn answer(number: u32, metrics: Option<&[(&str, f64)]>) -> MetricsRead {
        let metrics = metrics.map(|metrics| {
            metrics.iter().map(|(name, value)| ((*name).to_owned(), Metric::new(*value))).collect()
        });
        ("fraud".parse().unwrap(), Version::new(number).unwrap(), Sequence::default(), metrics)
    }

    #[test]
    fn promise_7_unchanged_metrics_are_no_change_and_unreadable_ones_stay_as_they_were() {
        let name: ModelName = "fraud".parse().unwrap();
        let names = BTreeSet::from(["auc".to_owned()]);
        let mut display = DisplayCache::default();
        let versions = [facts(2, "b"), facts(1, "a")];
        assert_eq!(display.update(&name, &versions, &names).len(), 2);
        let nan = [("auc", f64::NAN), ("other", 1.0)];
        assert_eq!(display.remember(vec![answer(1, Some(&nan)), answer(2, None)]).len(), 1);
        assert_eq!(display.remember(vec![answer(1, Some(&[("auc", f64::NAN), ("other", 2.0)]))]).len(), 0);
        assert_eq!(display.remember(vec![answer(1, None)]).len(), 0);
        assert_eq!(display.of(&name)[&Version::new(1).unwrap()].as_ref().unwrap().len(), 1);
        assert_eq!(display.of(&name)[&Version::new(2).unwrap()], None);
        assert_eq!(display.update(&name, &versions, &names).len(), 1, "only the run never read");
        assert_eq!(display.update(&name, &[facts(1, "c")], &names).len(), 1, "another run");
        let more = BTreeSet::from(["f1".to_owned()]);
        display.remember(vec![answer(1, Some(&[("auc", 0.5)]))]);
        assert_eq!(display.update(&name, &[facts(1, "c")], &more).len(), 1, "another metric");
    }

    #[test]
    fn a_poll_reads_a_few_runs_unread_ones_first_and_all_in_turn() {
        let name: ModelName = "fraud".parse().unwrap();
        let watched = BTreeSet::from([name.clone()]);
        let names = BTreeSet::from(["auc".to_owned()]);
        let mut display = DisplayCache::default();
        let versions: Vec<_> = (1..=25).map(|number| facts(number, &number.to_string())).collect();
        display.update(&name, &versions, &names);
        display.remember((1..=24).map(|number| answer(number, Some(&[]))).collect());
        let mut seen = BTreeSet::new();
        let mut memory = RegistryMemory::default();
        for _ in 0..3 {
            let read = memory.begin();
            let due = display.due(&watched);
            assert_eq!(due.len(), REREADS);
            assert_eq!(due[0].1.version, Version::new(25).unwrap(), "never read");
            let others = due[1..].iter().map(|(_, facts)| facts.version);
            seen.extend(others.clone());
            display.remember(
                others.map(|version| (name.clone(), version, read, Some(BTreeMap::new()))).collect(),
            );
        }
        assert_eq!(seen.len(), 24);
        assert!(display.due(&BTreeSet::new()).is_empty());
    }
}
