//! What was read of a registry, between its polls.

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

/// What was read of a registry.
#[derive(Debug, Default)]
pub(super) struct RegistryMemory {
    /// `None` until the first poll.
    pub(super) health: Option<Result<(), ReasonMessage>>,
    pub(super) server_version: Option<String>,
    pub(super) models: HashMap<ModelName, ModelMemory>,
    /// What versions are judged by that may have to be: read again by each poll, and forgotten when nobody waits for them.
    pub(super) evidence: HashMap<(ModelName, Version), Option<VersionEvidence>>,
    /// The newest versions of the models that somebody follows.
    pub(super) listings: HashMap<ModelName, Listing>,
    pub(super) runs: Runs,
    pub(super) display: DisplayCache,
}

impl RegistryMemory {
    /// Why what is remembered is not to be believed now.
    pub(super) fn error(&self) -> Option<ReasonMessage> {
        match &self.health {
            Some(Ok(())) => None,
            Some(Err(cause)) => Some(cause.clone()),
            None => Some(ReasonMessage::new(Reason::RegistryNotRead, "the registry has not been read yet")),
        }
    }

    /// Puts what was read for the rules in place of what was known. Answers the models of which something is new.
    pub(super) fn remember_evidence(
        &mut self,
        read: BTreeMap<(ModelName, Version), Option<VersionEvidence>>,
    ) -> BTreeSet<ModelName> {
        let mut known = std::mem::replace(&mut self.evidence, read.into_iter().collect());
        let has_changed =
            self.evidence.iter().filter(|(key, evidence)| known.remove(*key).as_ref() != Some(*evidence));
        has_changed.map(|((name, _), _)| name.clone()).collect()
    }

    /// Puts fresh listings in place of what was known. Answers the models of which something is new.
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
        let has_changed =
            self.listings.iter().filter(|(name, listing)| known.remove(*name).as_ref() != Some(*listing));
        has_changed.map(|(name, _)| name.clone()).collect()
    }

    /// Puts a fresh read of a model in place of what was known; whether something about it is new.
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

/// What was read of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum KnownFacts {
    /// It was not read yet.
    #[default]
    Unread,
    /// The registry itself said that it does not exist.
    Absent,
    /// What the registry said last.
    Present(RegisteredModelFacts),
}

impl KnownFacts {
    /// When the model was made, and when it or the set of its versions last changed.
    fn times(&self) -> Option<(Timestamp, Timestamp)> {
        match self {
            Self::Present(facts) => Some((facts.created_at, facts.updated_at)),
            Self::Unread | Self::Absent => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct ModelMemory {
    pub(super) facts: KnownFacts,
    /// Why this one model could not be read last, while the registry answers otherwise.
    pub(super) error: Option<ReasonMessage>,
    pub(super) versions: BTreeMap<Version, Option<VersionFacts>>,
    /// Somebody asked for a version and got no answer. The next poll lets them ask again.
    pub(super) unanswered: bool,
    /// How often a write of our own was noted. A poll that began before the last of them does not know of it.
    pub(super) writes: u64,
    /// Something was noted that others than the writer have to hear of.
    pub(super) has_changed: bool,
}

impl ModelMemory {
    /// Forgets the versions that a list should hold and does not: whether they are gone is asked of each itself.
    fn forget_missing(&mut self, listed: &BTreeSet<Version>) {
        let lowest = if listed.len() < NEWEST { None } else { listed.first().copied() };
        self.versions.retain(|version, facts| {
            let is_older = lowest.is_some_and(|lowest| *version < lowest);
            facts.is_none() || is_older || listed.contains(version)
        });
    }

    /// Whether there is something that others have to hear of, or to ask again.
    pub(super) fn take_changes(&mut self) -> bool {
        std::mem::take(&mut self.has_changed) | std::mem::take(&mut self.unanswered)
    }

    /// Notes why the model could not be read; whether that is new.
    pub(super) fn set_error(&mut self, error: ReasonMessage) -> bool {
        let error = Some(error);
        std::mem::replace(&mut self.error, error.clone()) != error
    }
}

/// What a poll read of one model, or why it could read only others.
pub(super) type ModelRead = Result<Option<RegisteredModelFacts>, ReasonMessage>;

/// What a model looks like, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelView {
    /// It cannot be known now, and why.
    Unknown(ReasonMessage),
    /// The registry itself said that it does not exist.
    Absent,
    /// This is what the registry said last.
    Present(RegisteredModelFacts),
}
