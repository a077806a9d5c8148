//! A poll: reads everything that is watched. Between polls, single models are read when something names them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Instant,
};

use super::{
    PolledRegistry,
    memory::{FAILURES, ModelMemory, ModelRead, RegistryMemory, Sequence},
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
    /// The versions whose tags say whether their inputs have drifted.
    pub drift: BTreeSet<(ModelName, Version)>,
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
    /// What changed.
    pub changes: PollChanges,
    /// Why the poll read nothing, if so.
    pub failure: Option<ReasonMessage>,
}

/// The changes that a part of a poll found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollChanges {
    /// The models that changed.
    pub models: BTreeSet<ModelName>,
    /// Whether the health of the registry changed.
    pub health: bool,
}

impl PollChanges {
    fn of(models: BTreeSet<ModelName>) -> Self {
        Self { models, health: false }
    }
}

/// Which part of what is remembered was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: what was not read is not needed any more.
    Everything,
    /// Some models.
    Part,
}

impl PolledRegistry {
    /// Reads every watched model, and returns what changed.
    pub async fn poll(&self, plan: impl FnOnce() -> PollPlan) -> PollOutcome {
        let mut changes = PollChanges::default();
        let add = |part: PollChanges| {
            changes.models.extend(part.models);
            changes.health |= part.health;
        };
        let failure = self.poll_in_parts(plan, add).await;
        PollOutcome { changes, failure }
    }

    /// Reads every watched model, and forgets those that are not watched any more. Each part is remembered
    /// and reported as soon as it is read: after a start the lists and metrics of thousands of models take
    /// minutes, and nothing else waits for them. Returns why nothing could be read, if so.
    ///
    /// `plan` is called after the known models were listed, so that a model requested in the meantime is not
    /// forgotten.
    pub async fn poll_in_parts(
        &self,
        plan: impl FnOnce() -> PollPlan,
        mut report: impl FnMut(PollChanges),
    ) -> Option<ReasonMessage> {
        self.poll_started();
        let (began, known_before): (Sequence, HashSet<ModelName>) = {
            let mut memory = self.memory();
            memory.ahead.forget_old();
            (memory.begin(), memory.models.keys().cloned().collect())
        };
        let plan = plan();
        self.expect(&plan.models);
        let read = self.read_everything(&plan, began, &mut report).await;
        let failure = read.as_ref().err().map(|failure| failure.cause.clone());
        report(self.remember_end(&plan, &known_before, read));
        self.debounce.poll_ended(Instant::now());
        failure
    }

    /// Whoever asks for one of these while the poll runs need not ask for a read.
    fn expect(&self, names: &BTreeSet<ModelName>) {
        let mut memory = self.memory();
        for name in names.iter().filter(|name| !memory.models.contains_key(*name)).collect::<Vec<_>>() {
            memory.models.insert(name.clone(), ModelMemory::default());
        }
    }

    async fn read_everything(
        &self,
        plan: &PollPlan,
        began: Sequence,
        report: &mut impl FnMut(PollChanges),
    ) -> Result<(), PollFailure> {
        let read = read_models(self, &plan.models, |chunk| report(self.remember_chunk(chunk))).await?;
        report(self.remember_rest(read));
        self.read_details(plan, began, Extent::Everything, |models| report(PollChanges::of(models))).await;
        Ok(())
    }

    /// Reads what rules and followers need of the models.
    async fn read_details(
        &self,
        plan: &PollPlan,
        began: Sequence,
        extent: Extent,
        mut report: impl FnMut(BTreeSet<ModelName>),
    ) {
        self.read_all_evidence(plan.judged.clone(), began, extent, &mut report).await;
        self.read_listings(&plan.followed, extent, &mut report).await;
        self.read_drift(&plan.drift, extent, &mut report).await;
    }

    /// Remembers how the poll ended.
    fn remember_end(
        &self,
        plan: &PollPlan,
        known_before: &HashSet<ModelName>,
        read: Result<(), PollFailure>,
    ) -> PollChanges {
        let mut memory = self.memory();
        let health = match read {
            Ok(()) => {
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
                // One bad answer is no outage.
                match &memory.health {
                    Some(Ok(())) if !is_certain && memory.empty_polls < FAILURES => Ok(()),
                    _ => Err(cause),
                }
            }
        };
        PollChanges { models: BTreeSet::new(), health: memory.set_health(health) }
    }

    /// Reads some models now, because something changed about them, and returns those that did change. If
    /// they cannot be read, or nothing can, the next poll starts and finds out why.
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
        let mut models = BTreeMap::new();
        let read = read_models(self, &plan.models, |chunk| models.extend(chunk)).await.ok()?;
        let can_be_read = read.failed.is_empty() && models.values().all(|(_, answer)| answer.is_ok());
        if !can_be_read {
            return None;
        }
        let mut changed = self.remember_models(&mut self.memory(), models);
        changed.extend(self.remember_rest(read).models);
        self.read_details(&plan, began, Extent::Part, |models| changed.extend(models)).await;
        Some(changed)
    }

    /// Remembers a chunk of the models. That it was answered shows that the registry is in order.
    fn remember_chunk(&self, models: BTreeMap<ModelName, ModelRead>) -> PollChanges {
        let mut memory = self.memory();
        let health = memory.set_health(Ok(()));
        PollChanges { models: self.remember_models(&mut memory, models), health }
    }

    /// Returns the models that changed.
    fn remember_models(
        &self,
        memory: &mut RegistryMemory,
        models: BTreeMap<ModelName, ModelRead>,
    ) -> BTreeSet<ModelName> {
        let (mut changed, mut failed) = (BTreeSet::new(), BTreeMap::new());
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
        changed
    }

    /// Remembers what else was read with the models.
    fn remember_rest(&self, read: ModelsRead) -> PollChanges {
        let mut memory = self.memory();
        memory.server_version = read.server_version.or_else(|| memory.server_version.take());
        PollChanges::of(memory.remember_failures(read.failed))
    }
}
