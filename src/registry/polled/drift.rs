//! The tags that say whether the inputs of a version have drifted.
//!
//! A job sets them once a day, which changes none of the model's timestamps, so each version takes a request.
//! They are read with some of the polls only: this may be about every model of a registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};

use super::{PolledRegistry, memory::Sequence, poll::Extent};
use crate::{
    api::{
        condition::shortened,
        names::{ModelName, Version},
    },
    decide::DRIFT_TAGS,
    registry::limiter::Priority,
};

/// For how long polls do not read them again. A webhook delivery about the model has them read at once.
const KEPT: Duration = Duration::from_mins(5);

/// How many a poll reads at most, those that were read longest ago first: the next poll waits for them, and a job
/// writes new ones once a day.
const PER_POLL: usize = 100;

/// How many reads run concurrently.
const AT_ONCE: usize = 8;

/// MLflow accepts values of 100,000 characters.
const VALUE_MAX: usize = 1000;

/// The tags of a version, as last read.
#[derive(Clone, Debug)]
pub(super) struct ReadDrift {
    begun: Sequence,
    at: Instant,
    tags: BTreeMap<String, String>,
}

impl PolledRegistry {
    /// Returns the tags about drift of a version; `None` until a poll has read them.
    #[must_use]
    pub fn drift_tags(&self, name: &ModelName, version: Version) -> Option<BTreeMap<String, String>> {
        self.memory().drift.get(&(name.clone(), version)).map(|read| read.tags.clone())
    }

    /// Reads the tags about drift of these versions, as far as that is due, and reports the models where they
    /// changed. What could not be read stays as it was.
    pub(super) async fn read_drift(
        &self,
        versions: &BTreeSet<(ModelName, Version)>,
        extent: Extent,
        report: &mut impl FnMut(BTreeSet<ModelName>),
    ) {
        let due: Vec<_> = {
            let mut memory = self.memory();
            if extent == Extent::Everything {
                memory.drift.retain(|key, _| versions.contains(key));
            }
            let is_due = |key: &&(ModelName, Version)| {
                extent == Extent::Part || memory.drift.get(*key).is_none_or(|read| read.at.elapsed() >= KEPT)
            };
            let mut due: Vec<_> = versions.iter().filter(is_due).cloned().collect();
            if extent == Extent::Everything && due.len() > PER_POLL {
                due.sort_by_key(|key| memory.drift.get(key).map(|read| read.at));
                due.truncate(PER_POLL);
            }
            due
        };
        let reads = stream::iter(due).map(async |(name, version)| {
            let read = self.read_drift_of(&name, version).await?;
            Some(((name, version), read))
        });
        let mut reads = reads.buffer_unordered(AT_ONCE).filter_map(std::future::ready).boxed();
        while let Some((key, read)) = reads.next().await {
            let mut memory = self.memory();
            let known = memory.drift.get(&key);
            if known.is_some_and(|known| known.begun > read.begun) {
                continue;
            }
            let has_changed = known.is_none_or(|known| known.tags != read.tags);
            let name = key.0.clone();
            memory.drift.insert(key, read);
            drop(memory);
            if has_changed {
                report(BTreeSet::from([name]));
            }
        }
    }

    async fn read_drift_of(&self, name: &ModelName, version: Version) -> Option<ReadDrift> {
        let client = self.client(Priority::Poll).ok()?;
        let begun = self.memory().begin();
        let facts = client.version(name, version).await.ok()?;
        let tags = facts.map(|facts| facts.tags).unwrap_or_default().into_iter();
        let tags = tags.filter(|(key, _)| DRIFT_TAGS.contains(&key.as_str()));
        let tags = tags.map(|(key, value)| (key, shortened(&value, VALUE_MAX))).collect();
        Some(ReadDrift { begun, at: Instant::now(), tags })
    }
}
