//! Versions that a poll reads together with their models.
//!
//! After a start, and when many models change at once, somebody needs the versions of each of them. One
//! request reads those of a whole chunk of models. They are kept for a moment only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use super::{
    PolledRegistry,
    candidates::Times,
    memory::{ModelRead, RegistryMemory, Sequence},
};
use crate::{
    api::{
        condition::ReasonMessage,
        names::{ModelName, Version},
    },
    registry::{Registry, VersionFacts, VersionState, limiter::Priority},
};

/// How many versions of a model its RegisteredModel shows.
pub(super) const SHOWN: usize = 10;

/// So few models are not worth a request of their own.
const FEW: usize = 1;

/// For how long they are kept, until the next poll after that. Whoever was woken when they were read has looked
/// by then.
const KEPT_FOR: Duration = Duration::from_secs(20);

/// How many versions are kept at most. Those of further models are read one by one.
const KEPT: usize = 20_000;

/// The versions that were read together with their models.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    models: HashMap<ModelName, Versions>,
    count: usize,
}

#[derive(Debug)]
struct Versions {
    read: Instant,
    /// The times of the model as read before.
    times: Times,
    /// The newest ones, newest first.
    newest: Vec<VersionFacts>,
    /// Whether they were listed: they show changes that change no time of the model only once.
    are_listed: bool,
}

impl Ahead {
    pub(super) fn forget_old(&mut self) {
        self.models.retain(|_, versions| versions.read.elapsed() < KEPT_FOR);
        self.count = self.models.values().map(|versions| versions.newest.len()).sum();
    }

    fn keep(&mut self, name: ModelName, times: Times, newest: Vec<VersionFacts>) {
        self.count += newest.len();
        let versions = Versions { read: Instant::now(), times, newest, are_listed: false };
        self.count -= self.models.insert(name, versions).map_or(0, |before| before.newest.len());
    }

    fn of(&mut self, name: &ModelName, times: Option<Times>) -> Option<&mut Versions> {
        self.models.get_mut(name).filter(|versions| Some(versions.times) == times)
    }
}

impl RegistryMemory {
    /// Returns a version as read ahead, and remembers it. One that is missing from a list may exist.
    pub(super) fn version_ahead(&mut self, name: &ModelName, version: Version) -> Option<VersionFacts> {
        let known = self.models.get_mut(name)?;
        let ahead = self.ahead.of(name, known.facts.times())?;
        let facts = ahead.newest.iter().find(|facts| facts.version == version)?;
        let facts = Some(facts.clone()).filter(|facts| facts.state != VersionState::Pending)?;
        // Whatever is read of it from now on replaces it.
        known.remember_version(version, (Sequence::default(), Some(facts.clone())));
        Some(facts)
    }

    /// Returns all versions of a model as read ahead, if there are so few.
    pub(super) fn all_ahead(&mut self, name: &ModelName) -> Option<Vec<VersionFacts>> {
        let times = self.models.get(name)?.facts.times();
        let ahead = self.ahead.of(name, times).filter(|versions| versions.newest.len() < SHOWN)?;
        Some(ahead.newest.clone())
    }

    /// Returns the newest versions of a model as read ahead, once.
    fn list_ahead(&mut self, name: &ModelName) -> Option<Vec<VersionFacts>> {
        let times = self.models.get(name)?.facts.times();
        let ahead = self.ahead.of(name, times).filter(|versions| !versions.are_listed)?;
        ahead.are_listed = true;
        Some(ahead.newest.iter().take(SHOWN).cloned().collect())
    }
}

impl PolledRegistry {
    /// Returns the newest versions of a model, newest first, as many as its RegisteredModel shows.
    ///
    /// # Errors
    /// Why they cannot be known now.
    pub async fn newest_versions(&self, name: &ModelName) -> Result<Vec<VersionFacts>, ReasonMessage> {
        let ahead = self.memory().list_ahead(name);
        if let Some(versions) = ahead {
            return Ok(versions);
        }
        let versions = self.client(Priority::Display)?.newest_versions(name, SHOWN).await;
        versions.map_err(|error| self.explain(Some(name), &error))
    }

    /// Reads the versions of those models that are new or have other versions than before, if there are
    /// several. What cannot be read this way is read one by one, by whoever needs it.
    pub(super) async fn read_ahead(&self, client: &dyn Registry, read: &BTreeMap<ModelName, ModelRead>) {
        let times: HashMap<&ModelName, Times> = {
            let memory = self.memory();
            let present = read.iter().filter_map(|(name, (_, answer))| {
                let facts = answer.as_ref().ok()?.as_ref()?;
                Some((name, (facts.created_at, facts.updated_at)))
            });
            let known = |name| memory.models.get(name).and_then(|known| known.facts.times());
            let changed = present.filter(|(name, times)| known(*name) != Some(*times));
            if memory.ahead.count >= KEPT { HashMap::new() } else { changed.collect() }
        };
        if times.len() <= FEW {
            return;
        }
        let names: BTreeSet<ModelName> = times.keys().map(|name| (*name).clone()).collect();
        match client.newest_versions_of(&names, SHOWN).await {
            Ok(found) => {
                let mut memory = self.memory();
                for (name, versions) in found {
                    if let Some(times) = times.get(&name) {
                        memory.ahead.keep(name, *times, versions);
                    }
                }
            }
            Err(error) => tracing::debug!(registry = %self.key, %error, "versions cannot be read together"),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_is_old_is_forgotten_and_not_counted() {
        let mut ahead = Ahead::default();
        let times = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let facts = |number: u32| VersionFacts {
            version: Version::new(number).unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            state: VersionState::Ready,
            model_uri: format!("models:/m/{number}").parse().unwrap(),
            run_id: None,
            description: String::new(),
            tags: BTreeMap::new(),
        };
        let name = |name: &str| name.parse::<ModelName>().unwrap();
        ahead.keep(name("old"), times, vec![facts(2), facts(1)]);
        ahead.models.get_mut(&name("old")).unwrap().read -= KEPT_FOR;
        ahead.keep(name("new"), times, vec![facts(1), facts(2)]);
        ahead.keep(name("new"), times, vec![facts(1)]);
        assert_eq!(ahead.count, 3);
        ahead.forget_old();
        assert_eq!(ahead.count, 1);
        assert!(ahead.of(&name("old"), Some(times)).is_none());
        assert!(ahead.of(&name("new"), Some(times)).is_some());
        assert!(ahead.of(&name("new"), None).is_none(), "its model is not known");
    }
}
