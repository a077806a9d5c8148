//! The results of reads of a registry, kept between polls.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use litemap::LiteMap;

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{AliasName, ModelName, Version},
    },
    decide::NEWEST,
    registry::{RegisteredModelFacts, VersionFacts, VersionState},
};

use super::{
    ahead::Ahead,
    candidates::{Listed, Runs},
    display_metrics::DisplayCache,
    drift::ReadDrift,
    evidence::VersionEvidence,
};

/// The position of a request in the order in which the requests to one registry were begun. What a request
/// reads replaces only what was read by an earlier one: a poll may take long, and end after a later direct
/// read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(u64);

/// What was read, and with which request.
pub(super) type Sequenced<T> = (Sequence, T);

/// After how many failures in a row something counts as out of order.
pub(super) const FAILURES: u32 = 3;

/// The results of reads of a registry.
#[derive(Debug, Default)]
pub(super) struct RegistryMemory {
    /// The request begun last.
    last: Sequence,
    /// `None` until the first poll.
    pub(super) health: Option<Result<(), ReasonMessage>>,
    /// How many polls failed in a row, as a whole or in part.
    pub(super) failed_polls: u32,
    /// How many polls in a row got no answer about any model.
    pub(super) empty_polls: u32,
    pub(super) server_version: Option<String>,
    pub(super) models: HashMap<ModelName, ModelMemory>,
    /// Evidence about versions: read again by each poll, and forgotten when nobody needs it any more.
    pub(super) evidence: HashMap<(ModelName, Version), Sequenced<Option<VersionEvidence>>>,
    /// The newest versions of the models that have followers.
    pub(super) listings: HashMap<ModelName, Listed>,
    pub(super) runs: Runs,
    /// Versions that a poll read together with their models.
    pub(super) ahead: Ahead,
    pub(super) display: DisplayCache,
    /// Tags about drift, of the versions whose rules need them.
    pub(super) drift: HashMap<(ModelName, Version), ReadDrift>,
}

impl RegistryMemory {
    /// Takes the position of a request that is begun now.
    pub(super) fn begin(&mut self) -> Sequence {
        self.last.0 += 1;
        self.last
    }

    /// Returns why the remembered results must not be used now.
    pub(super) fn error(&self) -> Option<ReasonMessage> {
        match &self.health {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.clone()),
            None => Some(ReasonMessage::new(Reason::RegistryNotRead, "the registry has not been read yet")),
        }
    }

    /// Remembers why models could not be read. Returns those whose error is reported from now on: one bad
    /// answer is no outage, and no broken model.
    pub(super) fn remember_failures(
        &mut self,
        failed: BTreeMap<ModelName, ReasonMessage>,
    ) -> BTreeSet<ModelName> {
        let mut changed = BTreeSet::new();
        for (name, error) in failed {
            let known = self.models.entry(name.clone()).or_default();
            known.failures = known.failures.saturating_add(1);
            let is_new = known.facts == KnownFacts::Unread;
            if (is_new || known.failures >= FAILURES) && known.set_error(error) {
                changed.insert(name);
            }
        }
        changed
    }

    /// Remembers the evidence about a version, unless a later read is known, or the aliases have changed
    /// since. Returns the latest.
    pub(super) fn remember_version_evidence(
        &mut self,
        key: (ModelName, Version),
        read: Sequenced<Option<VersionEvidence>>,
    ) -> Sequenced<Option<VersionEvidence>> {
        if self.models.get(&key.0).is_some_and(|model| read.0 < model.aliases_since) {
            return read;
        }
        let known = self.evidence.entry(key).or_insert_with(|| read.clone());
        if known.0 < read.0 {
            *known = read;
        }
        known.clone()
    }

    /// Remembers the evidence that a poll read. Returns whether it changed.
    pub(super) fn remember_polled_evidence(
        &mut self,
        key: (ModelName, Version),
        read: Sequenced<Option<VersionEvidence>>,
    ) -> bool {
        let before = self.evidence.get(&key).map(|(_, evidence)| evidence.clone());
        let after = self.remember_version_evidence(key, read).1;
        before.is_none_or(|before| before != after)
    }

    /// Forgets the evidence that a poll has not read, except where it has been read since the poll began.
    pub(super) fn retain_evidence(&mut self, began: Sequence, read: &BTreeSet<(ModelName, Version)>) {
        self.evidence.retain(|key, (sequence, _)| *sequence > began || read.contains(key));
    }

    /// Replaces a listing by one that was begun to be read with this request. Returns whether it changed.
    pub(super) fn remember_listing(&mut self, name: &ModelName, began: Sequence, mut listed: Listed) -> bool {
        if let (Ok(versions), true) = (&*listed.listing, listed.is_new) {
            let known = self.models.entry(name.clone()).or_default();
            for version in versions.iter().filter(|version| version.facts.state == VersionState::Ready) {
                known.remember_listed(&version.facts, began);
            }
            known.forget_missing(&versions.iter().map(|version| version.facts.version).collect(), began);
        }
        let has_changed = match self.listings.get(name) {
            // The old one is shared already.
            Some(before) if before.listing == listed.listing => {
                listed.listing = before.listing.clone();
                // A follower waits for what it was read for now.
                !before.needs.include(&listed.needs)
            }
            _ => true,
        };
        self.listings.insert(name.clone(), listed);
        has_changed
    }

    /// Replaces the health. Returns whether it changed.
    pub(super) fn set_health(&mut self, health: Result<(), ReasonMessage>) -> bool {
        let health = Some(health);
        let has_changed = self.health != health;
        self.health = health;
        has_changed
    }

    /// Replaces a model with what was read of it. Returns whether it changed. A later read or write must not
    /// be known.
    pub(super) fn remember(
        &mut self,
        name: &ModelName,
        (sequence, facts): Sequenced<Option<RegisteredModelFacts>>,
    ) -> bool {
        let known = self.models.entry(name.clone()).or_default();
        known.as_of = sequence;
        known.failures = 0;
        let had_error = known.error.take().is_some();
        let facts = facts.map_or(KnownFacts::Absent, KnownFacts::Present);
        if known.facts == facts {
            return had_error;
        }
        if known.facts.aliases() != facts.aliases() {
            // Who moves an alias may have changed what its version is judged by just before.
            known.aliases_since = sequence;
            self.evidence.retain(|(model, _), (read, _)| model != name || *read > sequence);
        }
        if known.facts.times() == facts.times() {
            known.versions.retain(|_, (_, version)| version.is_some());
        } else {
            known.versions.clear();
        }
        known.facts = facts;
        true
    }
}

/// The last read of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum KnownFacts {
    /// It was not read yet.
    #[default]
    Unread,
    /// The registry itself reported that it does not exist.
    Absent,
    /// The model as last read.
    Present(RegisteredModelFacts),
}

impl KnownFacts {
    fn aliases(&self) -> Option<&BTreeMap<AliasName, Version>> {
        match self {
            Self::Present(facts) => Some(&facts.aliases),
            Self::Unread | Self::Absent => None,
        }
    }

    /// Returns when the model was created, and when it or its set of versions last changed.
    pub(super) fn times(&self) -> Option<(Timestamp, Timestamp)> {
        match self {
            Self::Present(facts) => Some((facts.created_at, facts.updated_at)),
            Self::Unread | Self::Absent => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct ModelMemory {
    pub(super) facts: KnownFacts,
    /// Why the last read of this one model failed, while the registry itself is reachable.
    pub(super) error: Option<ReasonMessage>,
    pub(super) versions: LiteMap<Version, Sequenced<Option<VersionFacts>>>,
    /// How many polls in a row could not read it.
    pub(super) failures: u32,
    /// A read of a version failed. The next poll makes those who wait for it try again.
    pub(super) failed: bool,
    /// The read that the facts are from, or the end of our own last write. A poll that began before it does
    /// not include it.
    pub(super) as_of: Sequence,
    /// The read that first showed its aliases as they are. Evidence from before it is out of date.
    pub(super) aliases_since: Sequence,
    /// Something was remembered that the next poll reports as a change.
    pub(super) has_changed: bool,
}

impl ModelMemory {
    /// Remembers a version, unless a later read of it is known.
    pub(super) fn remember_version(&mut self, version: Version, read: Sequenced<Option<VersionFacts>>) {
        if self.versions.get(&version).is_none_or(|(known, _)| *known < read.0) {
            self.versions.insert(version, read);
        }
    }

    /// Remembers a version that a list contains, unless more is known of it.
    fn remember_listed(&mut self, facts: &VersionFacts, began: Sequence) {
        if self.versions.get(&facts.version).is_none_or(|(_, known)| known.is_none()) {
            self.remember_version(facts.version, (began, Some(facts.clone())));
        }
    }

    /// Forgets the versions that a complete list would contain but does not, so that each is read directly.
    fn forget_missing(&mut self, listed: &BTreeSet<Version>, began: Sequence) {
        let lowest = if listed.len() < NEWEST { None } else { listed.first().copied() };
        self.versions.retain(|version, (sequence, facts)| {
            let is_older = lowest.is_some_and(|lowest| *version < lowest);
            facts.is_none() || is_older || listed.contains(version) || *sequence > began
        });
    }

    /// Returns and resets whether there is a change to report, or a read to try again.
    pub(super) fn take_changes(&mut self) -> bool {
        std::mem::take(&mut self.has_changed) | std::mem::take(&mut self.failed)
    }

    /// Remembers why the model could not be read. Returns whether the error changed.
    pub(super) fn set_error(&mut self, error: ReasonMessage) -> bool {
        let error = Some(error);
        std::mem::replace(&mut self.error, error.clone()) != error
    }
}

/// A poll's read of one model, or why this one model could not be read.
pub(super) type ModelRead = Sequenced<Result<Option<RegisteredModelFacts>, ReasonMessage>>;

/// A model, as far as known.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelView {
    /// It cannot be known now, for this reason.
    Unknown(ReasonMessage),
    /// The registry itself reported that it does not exist.
    Absent,
    /// The model as last read.
    Present(RegisteredModelFacts),
}
