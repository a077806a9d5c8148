//! A poll: reads everything that is watched. Between polls, single models are read when something names them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Instant,
};

use parking_lot::MutexGuard;

use super::{
    PolledRegistry,
    candidates::Listed,
    evidence::VersionEvidence,
    memory::{FAILURES, ModelMemory, RegistryMemory, Sequence, Sequenced},
    reading::{ModelsRead, PollFailure, read_models},
};
use crate::api::{
    condition::ReasonMessage,
    names::{ModelName, Version},
};

/// What a poll has to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollPlan {
    /// The models that some object refers to.
    pub models: BTreeSet<ModelName>,
    /// The versions that promotion rules judge, or compare others with.
    pub judged: BTreeSet<(ModelName, Version)>,
    /// The models with followers, and what those use.
    pub followed: BTreeMap<ModelName, FollowerNeeds>,
}

/// What the followers of a model use of its versions, beside their numbers and states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowerNeeds {
    /// The metrics that they compare.
    pub metrics: BTreeSet<String>,
    /// Whether they look at tags.
    pub has_tags: bool,
}

impl FollowerNeeds {
    /// Adds what another follower uses.
    pub fn add(&mut self, other: Self) {
        self.metrics.extend(other.metrics);
        self.has_tags |= other.has_tags;
    }

    /// Whether what was read for these followers is enough for others, too.
    pub(super) fn include(&self, others: &Self) -> bool {
        others.metrics.is_subset(&self.metrics) && (self.has_tags || !others.has_tags)
    }
}

/// The changes that a poll found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollOutcome {
    /// The models that changed.
    pub changed: BTreeSet<ModelName>,
    /// Whether the health of the registry changed.
    pub health_changed: bool,
    /// Why the poll read nothing, if so.
    pub failure: Option<ReasonMessage>,
}

/// Which part of what is remembered was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: what was not read is not needed any more.
    Everything,
    /// Some models.
    Part,
}

/// The results of a poll.
struct PollRead {
    models: ModelsRead,
    evidence: BTreeMap<(ModelName, Version), Sequenced<Option<VersionEvidence>>>,
    listings_began: Sequence,
    listings: HashMap<ModelName, Listed>,
}

impl PolledRegistry {
    /// Reads every watched model, and forgets those that are not watched any more. `plan` is called after the
    /// known models were listed, so that a model requested in the meantime is not forgotten.
    pub async fn poll(&self, plan: impl FnOnce() -> PollPlan) -> PollOutcome {
        self.debounce.poll_started(Instant::now());
        let (began, known_before): (Sequence, HashSet<ModelName>) = {
            let mut memory = self.memory();
            (memory.begin(), memory.models.keys().cloned().collect())
        };
        let plan = plan();
        let read = self.read(&plan, Extent::Everything).await;
        let mut memory = self.memory();
        let mut outcome = PollOutcome::default();
        let health = match read {
            Ok(read) => {
                outcome.changed = self.remember_read(&mut memory, began, read, Extent::Everything);
                memory.models.retain(|name, _| plan.models.contains(name) || !known_before.contains(name));
                memory.empty_polls = 0;
                // Those that failed often are not asked more often for it.
                let failures = memory.models.values().map(|known| known.failures);
                memory.failed_polls = failures.filter(|failures| *failures < FAILURES).max().unwrap_or(0);
                Ok(())
            }
            Err(PollFailure { cause, is_certain }) => {
                memory.failed_polls = memory.failed_polls.saturating_add(1);
                memory.empty_polls = memory.empty_polls.saturating_add(1);
                outcome.failure = Some(cause.clone());
                // One bad answer is no outage.
                match &memory.health {
                    Some(Ok(())) if !is_certain && memory.empty_polls < FAILURES => Ok(()),
                    _ => Err(cause),
                }
            }
        };
        outcome.health_changed = memory.health.as_ref() != Some(&health);
        memory.health = Some(health);
        self.debounce.poll_ended(Instant::now());
        outcome
    }

    /// Reads some models now, because something changed about them, and returns those that did change. If they
    /// cannot be read, or nothing can, the next poll starts and finds out why.
    pub async fn read_named(&self, plan: PollPlan) -> BTreeSet<ModelName> {
        let changed = self.try_read_named(plan).await;
        self.debounce.poll_ended(Instant::now());
        changed.unwrap_or_else(|| {
            self.debounce.add(None);
            BTreeSet::new()
        })
    }

    async fn try_read_named(&self, plan: PollPlan) -> Option<BTreeSet<ModelName>> {
        if plan.models.is_empty() {
            return Some(BTreeSet::new());
        }
        let began = {
            let mut memory = self.memory();
            if memory.error().is_some() {
                return None;
            }
            memory.begin()
        };
        let read = self.read(&plan, Extent::Part).await.ok()?;
        let can_be_read =
            read.models.failed.is_empty() && read.models.models.values().all(|(_, answer)| answer.is_ok());
        can_be_read.then(|| self.remember_read(&mut self.memory(), began, read, Extent::Part))
    }

    async fn read(&self, plan: &PollPlan, extent: Extent) -> Result<PollRead, PollFailure> {
        let models = read_models(self, &plan.models).await?;
        let evidence = self.read_all_evidence(plan.judged.iter().cloned()).await;
        let listings_began = self.begin();
        let listings = self.read_listings(&plan.followed, &models.models, extent).await;
        Ok(PollRead { models, evidence, listings_began, listings })
    }

    /// Remembers what was read. Returns the models that changed.
    fn remember_read(
        &self,
        memory: &mut MutexGuard<'_, RegistryMemory>,
        began: Sequence,
        read: PollRead,
        extent: Extent,
    ) -> BTreeSet<ModelName> {
        let ModelsRead { server_version, models, mut failed } = read.models;
        let mut changed = BTreeSet::new();
        memory.server_version = server_version.or_else(|| memory.server_version.take());
        for (name, (begun, facts)) in models {
            if memory.models.get(&name).is_some_and(|known| known.as_of > begun) {
                self.read_soon(&name);
                continue;
            }
            let mut has_changed = memory.models.get_mut(&name).is_some_and(ModelMemory::take_changes);
            match facts {
                Ok(facts) => has_changed |= memory.remember(&name, (begun, facts)),
                Err(error) => drop(failed.insert(name.clone(), error)),
            }
            if has_changed {
                changed.insert(name);
            }
        }
        changed.extend(memory.remember_failures(failed));
        changed.extend(memory.remember_evidence(began, read.evidence, extent));
        changed.extend(memory.remember_listings(read.listings_began, read.listings, extent));
        changed
    }
}
