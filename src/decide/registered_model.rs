//! What is done about a RegisteredModel: its model is created in the registry, kept as described and, only
//! when every condition for that holds, deleted.
//!
//! ```text
//!                          ┌ active ──── finalizer, then create or describe
//! ModelObserved ─ decide ──┤
//!                          └ deleting ── keep, wait or delete, then remove the finalizer
//! ```

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{REGISTRY_DEADLINE, Readiness};
use crate::api::{
    RETRY_ANNOTATION, RegisteredModelStatus,
    condition::{ConditionType, Reason, ReasonMessage},
    names::{ModelName, Version},
    registry_reference::RegistryStatus,
};

#[cfg(test)]
mod tests;

/// The interval between attempts while the model is not as described. A poll that finds something new ends it
/// earlier.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// The interval between attempts to delete a model: nobody is notified when the last ModelAlias has gone.
const RETRY_DELETION: SignedDuration = SignedDuration::from_secs(5);

/// What is known of a RegisteredModel, of its model in the registry and of the objects that refer to it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelObserved {
    /// The time of the observation.
    pub now: Timestamp,
    /// What the object describes.
    pub desired: DesiredModel,
    /// Whether our finalizer is set.
    pub has_finalizer: bool,
    /// Since when the object has been in deletion.
    pub deleting_since: Option<Timestamp>,
    /// The status before; `None` for a new object.
    pub previous: Option<RegisteredModelStatus>,
    /// Other objects that refer to the model, or may do so. Looked up for a deletion only.
    pub referrers: Vec<Referrer>,
    /// The model in the registry.
    pub registry: ModelPresence,
    /// Why its versions could not be listed.
    pub versions_error: Option<ReasonMessage>,
    /// Whether its versions are being listed, and the object is reconciled again when they have been.
    pub awaits_versions: bool,
    /// The object that describes the registry, if known.
    pub registry_object: Option<RegistryStatus>,
}

/// A model as its object describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredModel {
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// The model's name in the registry; `None` where the object's name cannot be one.
    pub name: Option<ModelName>,
    /// Its description; `None` leaves the one in the registry as it is.
    pub description: Option<String>,
    /// The tags that Laurel manages.
    pub tags: BTreeMap<String, String>,
    /// The metrics that the status shows.
    pub display_metrics: BTreeSet<String>,
    /// Whether the model is deleted with its object.
    pub deletes_model: bool,
    /// The value of the annotation that asks to create a lost model anew.
    pub retry: Option<String>,
}

/// The state of a model in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPresence {
    /// Unknown; the cause. Unknown is not absent.
    Unknown(ReasonMessage),
    /// The registry answered a direct read: there is no such model.
    Absent,
    /// The registry has it.
    Present(ModelContent),
}

/// A model as the registry holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelContent {
    /// Its description; empty if it has none.
    pub description: String,
    /// All its tags.
    pub tags: BTreeMap<String, String>,
    /// The version of each alias.
    pub aliases: BTreeMap<String, Version>,
}

/// Another object that uses the model, or may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Referrer {
    /// A ModelAlias of this namespace, by name, that refers to the object.
    Alias(String),
    /// A ModelAlias of this namespace, by name, that cannot be parsed.
    UnreadableAlias(String),
    /// A RegisteredModel, by namespace and name, of the same model in the same registry.
    Model(String),
    /// A RegisteredModel, by namespace and name, of a model of this name: its registry is not known now.
    UnresolvedModel(String),
    /// A RegisteredModel, by namespace and name, that cannot be parsed.
    UnreadableModel(String),
}

/// One write. Each is safe to repeat.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum ModelAction {
    /// Add our finalizer to the object, or remove it.
    SetFinalizer {
        /// Whether it should be there.
        present: bool,
    },
    /// Create the model. One that was created in the meantime is not changed.
    CreateModel {
        /// Its description.
        description: String,
        /// Its tags.
        tags: BTreeMap<String, String>,
        /// Whether the registry had it before.
        again: bool,
    },
    /// Set the model's description.
    SetDescription {
        /// The description.
        description: String,
    },
    /// Set a tag of the model.
    SetTag {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Delete a tag of the model that Laurel set.
    DeleteTag {
        /// Its key.
        key: String,
    },
    /// Delete the model with all its versions.
    DeleteModel,
}

impl ModelAction {
    /// Whether it is a request to the registry, which may take long.
    #[must_use]
    pub fn is_to_registry(&self) -> bool {
        !matches!(self, Self::SetFinalizer { .. })
    }

    /// Whether it changes the model, so that it has to be read again.
    #[must_use]
    pub fn describes(&self) -> bool {
        match self {
            Self::CreateModel { .. }
            | Self::SetDescription { .. }
            | Self::SetTag { .. }
            | Self::DeleteTag { .. } => true,
            Self::SetFinalizer { .. } | Self::DeleteModel => false,
        }
    }
}

/// What is done, reported and waited for.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelDecision {
    /// The writes, in order. The first one that fails ends them.
    pub actions: Vec<ModelAction>,
    /// The state once the actions are done; `None` leaves the status as it is.
    pub readiness: Option<Readiness>,
    /// Why the model stays in the registry although the policy is to delete it.
    pub kept_because: Option<ReasonMessage>,
    /// When to reconcile again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// Decides what to do next. The same observation always gives the same decision.
#[must_use]
pub fn decide(observed: &ModelObserved) -> ModelDecision {
    match observed.deleting_since {
        Some(since) => delete(observed, since),
        None => describe(observed),
    }
}

/// When to reconcile again after an action failed.
#[must_use]
pub fn retry(observed: &ModelObserved, failure: &ReasonMessage) -> Timestamp {
    let is_quick = observed.deleting_since.is_some() || failure.reason.is_api_server_error();
    after(observed.now, if is_quick { RETRY_DELETION } else { RETRY })
}

fn after(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// A transient blocker is waited for; any other needs somebody to act.
#[must_use]
pub fn blocked(blocker: ReasonMessage) -> Readiness {
    if blocker.reason.is_transient() { Readiness::Progressing(blocker) } else { Readiness::Stalled(blocker) }
}

fn describe(observed: &ModelObserved) -> ModelDecision {
    let desired = &observed.desired;
    let mut actions = finalizer(observed);
    let readiness = match &observed.registry {
        // Right after a start the registry has not been read. The poll that reads it wakes this object, so
        // the status stays as it is until then.
        ModelPresence::Unknown(blocker)
            if blocker.reason == Reason::RegistryNotRead && observed.previous.is_some() =>
        {
            None
        }
        ModelPresence::Unknown(blocker) => Some(blocked(blocker.clone())),
        ModelPresence::Absent if has_lost_content(observed) && !retry_is_asked(observed) => {
            Some(blocked(model_gone(observed)))
        }
        ModelPresence::Absent => {
            actions.push(ModelAction::CreateModel {
                description: desired.description.clone().unwrap_or_default(),
                tags: desired.tags.clone(),
                again: was_there(observed),
            });
            Some(described(observed))
        }
        ModelPresence::Present(content) => {
            actions.extend(differences(desired, managed_tags(observed), content));
            // What was done has to be in the status at once.
            let waits = observed.awaits_versions && actions.is_empty();
            (!waits).then(|| described(observed))
        }
    };
    let is_unsettled = readiness.as_ref().is_some_and(|readiness| !readiness.is_settled());
    let wake = is_unsettled.then(|| after(observed.now, RETRY));
    ModelDecision { actions, readiness, kept_because: None, wake }
}

/// The finalizer is set exactly while the model is deleted with the object, and before the first write to the
/// registry.
fn finalizer(observed: &ModelObserved) -> Vec<ModelAction> {
    let present = observed.desired.deletes_model;
    Vec::from_iter((present != observed.has_finalizer).then_some(ModelAction::SetFinalizer { present }))
}

fn described(observed: &ModelObserved) -> Readiness {
    match &observed.versions_error {
        Some(error) => blocked(error.clone()),
        None => Readiness::Settled(ReasonMessage::new(
            Reason::ModelSynced,
            format!("the model {} matches its description in the registry", quoted(observed)),
        )),
    }
}

fn quoted(observed: &ModelObserved) -> String {
    format!("{:?}", observed.desired.name.as_ref().map(ModelName::as_str).unwrap_or_default())
}

/// Whether the registry had the model before, so that somebody has deleted or renamed it.
fn was_there(observed: &ModelObserved) -> bool {
    observed.previous.as_ref().is_some_and(|previous| {
        let (ready, synced): (&str, &str) = (ConditionType::Ready.into(), Reason::ModelSynced.into());
        previous.model_name == observed.desired.name
            && !is_elsewhere(observed)
            && (previous.has_had_content()
                || previous
                    .conditions
                    .iter()
                    .any(|condition| condition.type_ == ready && condition.reason == synced))
    })
}

/// Whether this registry has ever had versions or aliases of the model. An empty model in its place would be
/// taken for it. Not only those of the last status count: a read during a deletion shows an empty model.
fn has_lost_content(observed: &ModelObserved) -> bool {
    observed.previous.as_ref().is_some_and(|previous| {
        previous.model_name == observed.desired.name && !is_elsewhere(observed) && previous.has_had_content()
    })
}

/// Whether the previous status is about a model in another registry or workspace.
#[must_use]
pub fn is_elsewhere(observed: &ModelObserved) -> bool {
    let before = observed.previous.as_ref().and_then(|previous| previous.registry.as_ref());
    let registries = before.zip(observed.registry_object.as_ref());
    registries.is_some_and(|(before, now)| !before.is_same_place(now))
}

/// Whether somebody has asked to create the model anew since it was last seen.
fn retry_is_asked(observed: &ModelObserved) -> bool {
    let retried = observed.previous.as_ref().and_then(|previous| previous.retried.as_ref());
    observed.desired.retry.is_some() && observed.desired.retry.as_ref() != retried
}

fn model_gone(observed: &ModelObserved) -> ReasonMessage {
    let message = format!(
        "the model {} was in the registry with versions or aliases and is gone: somebody has renamed or deleted it; \
         Laurel does not create an empty one in its place. If it was renamed, give it back its name, or create a \
         RegisteredModel whose spec.modelName is the new name. To create the model anew, set the annotation \
         {RETRY_ANNOTATION} of this RegisteredModel to a new value",
        quoted(observed)
    );
    ReasonMessage::new(Reason::ModelGone, message)
}

/// The keys of the tags that Laurel has set in this registry.
fn managed_tags(observed: &ModelObserved) -> &[String] {
    let previous = observed.previous.as_ref().filter(|_| !is_elsewhere(observed));
    previous.map(|previous| previous.owned_tags.as_slice()).unwrap_or_default()
}

/// Returns the writes that make the model match its description. Tags that Laurel did not set are never
/// touched.
fn differences(desired: &DesiredModel, managed: &[String], content: &ModelContent) -> Vec<ModelAction> {
    let description = desired.description.as_ref().filter(|desired| **desired != content.description);
    let description = description.map(|text| ModelAction::SetDescription { description: text.clone() });
    let changed = desired.tags.iter().filter(|(key, value)| content.tags.get(*key) != Some(*value));
    let set = changed.map(|(key, value)| ModelAction::SetTag { key: key.clone(), value: value.clone() });
    let obsolete =
        managed.iter().filter(|key| !desired.tags.contains_key(*key) && content.tags.contains_key(*key));
    let delete = obsolete.map(|key| ModelAction::DeleteTag { key: key.clone() });
    description.into_iter().chain(set).chain(delete).collect()
}

/// Whether the model is as described.
#[must_use]
pub fn is_described(observed: &ModelObserved, content: &ModelContent) -> bool {
    differences(&observed.desired, managed_tags(observed), content).is_empty()
}

/// Deletes the model only if the policy is `Delete`, the registry has it and nothing else refers to it. Waits
/// for blockers until a deadline; then the object is deleted and the model stays.
fn delete(observed: &ModelObserved, since: Timestamp) -> ModelDecision {
    let release = ModelAction::SetFinalizer { present: false };
    let decision = |actions| ModelDecision { actions, readiness: None, kept_because: None, wake: None };
    if !observed.has_finalizer {
        return decision(Vec::new());
    }
    if !observed.desired.deletes_model || observed.registry == ModelPresence::Absent {
        return decision(vec![release]);
    }
    let give_up = after(since, REGISTRY_DEADLINE);
    let is_late = observed.now >= give_up;
    match deletion_blocker(observed) {
        None if !is_late => decision(vec![ModelAction::DeleteModel, release]),
        Some(blocker) if !is_late => ModelDecision {
            readiness: Some(Readiness::Progressing(deletion_waits(observed, &blocker))),
            kept_because: Some(blocker),
            wake: Some(after(observed.now, RETRY_DELETION).min(give_up)),
            ..decision(Vec::new())
        },
        blocker => {
            let late = || ReasonMessage::new(Reason::Deleting, "it could not be deleted in time");
            ModelDecision { kept_because: Some(blocker.unwrap_or_else(late)), ..decision(vec![release]) }
        }
    }
}

fn deletion_blocker(observed: &ModelObserved) -> Option<ReasonMessage> {
    if let Some(referrer) = observed.referrers.first() {
        return Some(referrer.blocker());
    }
    match &observed.registry {
        ModelPresence::Unknown(blocker) => Some(blocker.clone()),
        ModelPresence::Absent | ModelPresence::Present(_) => None,
    }
}

/// Reports that the model still exists, and how long the deletion waits.
#[must_use]
pub fn deletion_waits(observed: &ModelObserved, blocker: &ReasonMessage) -> ReasonMessage {
    let give_up = after(observed.deleting_since.unwrap_or(observed.now), REGISTRY_DEADLINE);
    let message = format!(
        "the model {} stays in the registry for now: {}; retrying until {give_up:.0}, after that this object \
         goes without it",
        quoted(observed),
        blocker.message
    );
    ReasonMessage::new(blocker.reason, message)
}

/// Reports that the object is deleted and the model stays.
#[must_use]
pub fn model_stays(observed: &ModelObserved, blocker: &ReasonMessage) -> ReasonMessage {
    let message = format!(
        "the object is deleted, but the model {} stays in the registry: {}; delete it there if nobody needs \
         it",
        quoted(observed),
        blocker.message
    );
    ReasonMessage::new(blocker.reason, message)
}

impl Referrer {
    /// Why the model cannot be deleted.
    fn blocker(&self) -> ReasonMessage {
        match self {
            Self::Alias(name) => {
                let message = format!("the ModelAlias {name:?} still refers to it; delete that first");
                ReasonMessage::new(Reason::Deleting, message)
            }
            Self::UnreadableAlias(name) => {
                let message = format!(
                    "the ModelAlias {name:?} cannot be parsed and may refer to it; correct or delete that \
                     first"
                );
                ReasonMessage::new(Reason::Deleting, message)
            }
            Self::Model(name) => {
                let message = format!("the RegisteredModel {name} is of the same model; delete that first");
                ReasonMessage::new(Reason::Conflict, message)
            }
            Self::UnresolvedModel(name) => {
                let message = format!(
                    "the RegisteredModel {name} is of a model of this name, and its registry is not known; \
                     see its conditions"
                );
                ReasonMessage::new(Reason::Conflict, message)
            }
            Self::UnreadableModel(name) => {
                let message = format!(
                    "the RegisteredModel {name} cannot be parsed and may be of the same model; correct or \
                     delete that first"
                );
                ReasonMessage::new(Reason::Conflict, message)
            }
        }
    }
}
