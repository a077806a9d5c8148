//! The results of reads of a registry, kept between polls.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{ModelName, Version},
    },
    decide::NEWEST,
    registry::{RegisteredModelFacts, VersionFacts, VersionState},
};

use super::{
    candidates::{Listing, Runs},
    display_metrics::DisplayCache,
    evidence::VersionEvidence,
};

/// The results of reads of a registry.
#[derive(Debug, Default)]
pub(super) struct RegistryMemory {
    /// `None` until the first poll.
    pub(super) health: Option<Result<(), ReasonMessage>>,
    pub(super) server_version: Option<String>,
    pub(super) models: HashMap<ModelName, ModelMemory>,
    /// Evidence about versions: read again by each poll, and forgotten when nobody needs it any more.
    pub(super) evidence: HashMap<(ModelName, Version), Option<VersionEvidence>>,
    /// The newest versions of the models that have followers.
    pub(super) listings: HashMap<ModelName, Listing>,
    pub(super) runs: Runs,
    pub(super) display: DisplayCache,
}

impl RegistryMemory {
    /// Returns why the remembered results must not be used now.
    pub(super) fn error(&self) -> Option<ReasonMessage> {
        match &self.health {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.clone()),
            None => Some(ReasonMessage::new(Reason::RegistryNotRead, "the registry has not been read yet")),
        }
    }

    /// Replaces the evidence. Returns the models whose evidence changed.
    pub(super) fn remember_evidence(
        &mut self,
        read: BTreeMap<(ModelName, Version), Option<VersionEvidence>>,
    ) -> BTreeSet<ModelName> {
        let mut known = std::mem::replace(&mut self.evidence, read.into_iter().collect());
        let changed =
            self.evidence.iter().filter(|(key, evidence)| known.remove(*key).as_ref() != Some(*evidence));
        changed.map(|((name, _), _)| name.clone()).collect()
    }

    /// Replaces the listings. Returns the models whose listing changed.
    pub(super) fn remember_listings(&mut self, read: HashMap<ModelName, Listing>) -> BTreeSet<ModelName> {
        for (name, listing) in &read {
            let known = self.models.entry(name.clone()).or_default();
            for (facts, _) in listing.iter().flatten().filter(|(facts, _)| facts.state == VersionState::Ready)
            {
                known.versions.entry(facts.version).or_insert_with(|| Some(facts.clone()));
            }
            if let Ok(listed) = listing {
                known.forget_missing(&listed.iter().map(|(facts, _)| facts.version).collect());
            }
        }
        let mut known = std::mem::replace(&mut self.listings, read);
        let changed =
            self.listings.iter().filter(|(name, listing)| known.remove(*name).as_ref() != Some(*listing));
        changed.map(|(name, _)| name.clone()).collect()
    }

    /// Replaces a model with a fresh read. Returns whether it changed.
    pub(super) fn remember(&mut self, name: &ModelName, facts: Option<RegisteredModelFacts>) -> bool {
        let known = self.models.entry(name.clone()).or_default();
        let had_error = known.error.take().is_some();
        let facts = facts.map_or(KnownFacts::Absent, KnownFacts::Present);
        if known.facts == facts {
            return had_error;
        }
        if known.facts.times() == facts.times() {
            known.versions.retain(|_, version| version.is_some());
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
    pub(super) versions: BTreeMap<Version, Option<VersionFacts>>,
    /// A read of a version failed. The next poll makes those who wait for it try again.
    pub(super) failed: bool,
    /// Number of our own writes. A poll that began before the last of them does not include it.
    pub(super) writes: u64,
    /// Something was remembered that the next poll reports as a change.
    pub(super) has_changed: bool,
}

impl ModelMemory {
    /// Forgets the versions that a complete list would contain but does not, so that each is read directly.
    fn forget_missing(&mut self, listed: &BTreeSet<Version>) {
        let lowest = if listed.len() < NEWEST { None } else { listed.first().copied() };
        self.versions.retain(|version, facts| {
            let is_older = lowest.is_some_and(|lowest| *version < lowest);
            facts.is_none() || is_older || listed.contains(version)
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
pub(super) type ModelRead = Result<Option<RegisteredModelFacts>, ReasonMessage>;

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
