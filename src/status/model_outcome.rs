//! The outcome of a reconcile of a RegisteredModel: the next status, and the Events for the change.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{NewEvent, kstatus, readiness_events, version_statuses};
use crate::{
    api::{
        RegisteredModelStatus,
        condition::{ConditionType, Reason, ReasonMessage, condition, merge_conditions},
        metric::Metric,
        names::Version,
    },
    decide::{
        Readiness,
        registered_model::{
            ModelAction, ModelContent, ModelDecision, ModelObserved, ModelPresence, blocked, deletion_waits,
            is_described, is_elsewhere, model_stays, retry,
        },
    },
    registry::VersionFacts,
};

/// The newest versions of a model, as listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelListing {
    /// The versions, newest first.
    pub versions: Vec<VersionFacts>,
    /// Their metrics.
    pub metrics: BTreeMap<Version, Option<BTreeMap<String, Metric>>>,
}

/// The actions of a decision about a RegisteredModel that were performed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelApplied {
    /// The actions that succeeded, in order.
    pub done: Vec<ModelAction>,
    /// Why the next one failed, or why the model could not be read after them.
    pub failure: Option<ReasonMessage>,
    /// The model as read after the writes.
    pub found: Option<ModelContent>,
}

impl ModelApplied {
    /// Whether our finalizer was removed.
    #[must_use]
    pub fn has_released(&self) -> bool {
        self.did(|action| *action == ModelAction::SetFinalizer { present: false })
    }

    fn did(&self, is_it: impl Fn(&ModelAction) -> bool) -> bool {
        self.done.iter().any(is_it)
    }
}

/// The outcome of a reconcile.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOutcome {
    /// The status to write; `None` if nothing but time has changed, or the object is gone.
    pub status: Option<RegisteredModelStatus>,
    /// The Events to publish.
    pub events: Vec<NewEvent>,
    /// When to reconcile again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// Returns the outcome of a decision, from the actions that were performed.
#[must_use]
pub fn model_outcome(
    observed: &ModelObserved,
    listing: Option<ModelListing>,
    decision: &ModelDecision,
    applied: &ModelApplied,
) -> ModelOutcome {
    let readiness = readiness_after(observed, decision, applied);
    let status = readiness.as_ref().map(|readiness| next(observed, listing, applied, readiness));
    let status = status.filter(|status| observed.previous.as_ref() != Some(status));
    let events = events(observed, decision, applied, status.as_ref());
    let wake = match (&applied.failure, &readiness) {
        (Some(failure), _) => Some(retry(observed, failure)),
        (None, Some(Readiness::Progressing(cause))) if decision.wake.is_none() => {
            Some(retry(observed, cause))
        }
        (None, _) => decision.wake,
    };
    ModelOutcome { status, events, wake }
}

/// Returns the state after the writes; `None` leaves the status as it is.
fn readiness_after(
    observed: &ModelObserved,
    decision: &ModelDecision,
    applied: &ModelApplied,
) -> Option<Readiness> {
    let deletes = observed.deleting_since.is_some();
    let has_deleted = applied.did(|action| *action == ModelAction::DeleteModel);
    match &applied.failure {
        Some(failure) if !deletes => Some(blocked(failure.clone())),
        Some(failure) if has_deleted || failure.reason.is_api_server_error() => {
            Some(Readiness::Progressing(failure.clone()))
        }
        Some(failure) => Some(Readiness::Progressing(deletion_waits(observed, failure))),
        None => match &applied.found {
            Some(found) if !is_described(observed, found) => {
                let message = "the model has changed since it was read; describing it again";
                Some(Readiness::Progressing(ReasonMessage::new(Reason::RegistryPending, message)))
            }
            _ => decision.readiness.clone(),
        },
    }
}

fn next(
    observed: &ModelObserved,
    listing: Option<ModelListing>,
    applied: &ModelApplied,
    readiness: &Readiness,
) -> RegisteredModelStatus {
    let before = observed.previous.clone().unwrap_or_default();
    let generation = observed.desired.generation;
    let conditions = merge_conditions(&before.conditions, kstatus(readiness), generation, observed.now);
    if observed.deleting_since.is_some() {
        return RegisteredModelStatus { observed_generation: generation, conditions, ..before };
    }
    let content = match (&applied.found, &observed.registry) {
        (Some(content), _) | (None, ModelPresence::Present(content)) => Some(content),
        (None, ModelPresence::Unknown(_) | ModelPresence::Absent) => None,
    };
    // A model that was just created has no versions.
    let created = applied.did(|action| matches!(action, ModelAction::CreateModel { .. }));
    let is_known = content.is_some() || created;
    let is_elsewhere = is_elsewhere(observed);
    // Of the model in another registry nothing is kept once this one is known.
    let before = if is_elsewhere && is_known {
        RegisteredModelStatus { retried: before.retried, ..RegisteredModelStatus::default() }
    } else {
        before
    };
    let registry = observed.registry_object.clone().filter(|_| is_known || !is_elsewhere);
    let retried = if content.is_some() { observed.desired.retry.clone() } else { before.retried.clone() };
    let aliases = content.map_or_else(|| before.aliases.clone(), |content| content.aliases.clone());
    let listing = listing.or_else(|| created.then(ModelListing::default));
    let names = &observed.desired.display_metrics;
    let versions = match listing {
        Some(listing) => {
            version_statuses(listing.versions, &aliases, names, &listing.metrics, &before.versions)
        }
        None => before.versions.clone(),
    };
    let had_content = before.has_had_content() && !created;
    RegisteredModelStatus {
        observed_generation: generation,
        registry: registry.or(before.registry),
        had_content: had_content || !versions.is_empty() || !aliases.is_empty(),
        model_name: observed.desired.name.clone(),
        latest_version: versions.first().map(|version| version.version),
        versions,
        aliases,
        owned_tags: managed_tags(observed, applied, &before.owned_tags),
        retried,
        conditions,
    }
}

/// Returns the keys of the tags that Laurel has set: those of the description once the model matches it,
/// until then the previous ones and those set now.
fn managed_tags(observed: &ModelObserved, applied: &ModelApplied, before: &[String]) -> Vec<String> {
    let is_known = !matches!(observed.registry, ModelPresence::Unknown(_));
    if is_known && applied.failure.is_none() {
        // A model that a poll did not show, but the registry has.
        let found = applied.found.iter().flat_map(|found| found.tags.keys());
        let left = found.filter(|key| before.contains(*key));
        let managed: BTreeSet<_> = observed.desired.tags.keys().chain(left).cloned().collect();
        return managed.into_iter().collect();
    }
    let mut managed: BTreeSet<String> = before.iter().cloned().collect();
    for action in &applied.done {
        match action {
            ModelAction::CreateModel { tags, .. } => managed.extend(tags.keys().cloned()),
            ModelAction::SetTag { key, .. } => drop(managed.insert(key.clone())),
            ModelAction::DeleteTag { key } => drop(managed.remove(key)),
            ModelAction::SetFinalizer { .. }
            | ModelAction::SetDescription { .. }
            | ModelAction::DeleteModel => {}
        }
    }
    managed.into_iter().collect()
}

fn events(
    observed: &ModelObserved,
    decision: &ModelDecision,
    applied: &ModelApplied,
    status: Option<&RegisteredModelStatus>,
) -> Vec<NewEvent> {
    if observed.deleting_since.is_some() {
        return deletion_event(observed, decision, applied, status).into_iter().collect();
    }
    let before = observed.previous.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let readiness = status.map(|status| readiness_events(before, &status.conditions, "Synchronise"));
    let created = applied.did(|action| matches!(action, ModelAction::CreateModel { again: true, .. }));
    created.then(created_again).into_iter().chain(readiness.into_iter().flatten()).collect()
}

/// The model that was created is empty, and somebody may miss what the lost one had.
fn created_again() -> NewEvent {
    NewEvent {
        warning: true,
        reason: "ModelCreatedAgain".to_owned(),
        action: "Create".to_owned(),
        message: "the model was in the registry before and was gone: somebody has deleted or renamed it. An \
                  empty model was created in its place, without the versions and aliases of the other"
            .to_owned(),
    }
}

/// Reports that the model stays in the registry although the policy is to delete it.
fn deletion_event(
    observed: &ModelObserved,
    decision: &ModelDecision,
    applied: &ModelApplied,
    status: Option<&RegisteredModelStatus>,
) -> Option<NewEvent> {
    let warn = |reason: String, message| {
        Some(NewEvent { warning: true, reason, action: "Delete".to_owned(), message })
    };
    if applied.has_released() {
        let stays = model_stays(observed, decision.kept_because.as_ref()?);
        return warn(stays.reason.to_string(), stays.message);
    }
    // Once for each blocker: the status changes with it.
    let ready = condition(&status?.conditions, ConditionType::Ready)?;
    warn(ready.reason.clone(), ready.message.clone())
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::decide::registered_model::{DesiredModel, Referrer, decide};

    fn described(registry: ModelPresence) -> ModelObserved {
        ModelObserved {
            now: Timestamp::UNIX_EPOCH,
            desired: DesiredModel {
                name: Some("fraud".to_owned().try_into().unwrap()),
                tags: BTreeMap::from([("team", "risk"), ("tier", "gold")].map(|(k, v)| (k.into(), v.into()))),
                ..DesiredModel::default()
            },
            has_finalizer: false,
            deleting_since: None,
            previous: None,
            referrers: Vec::new(),
            registry,
            versions_error: None,
            awaits_versions: false,
            registry_object: None,
        }
    }

    fn ready(status: &RegisteredModelStatus) -> (&str, &str, &str) {
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        (&ready.status, &ready.reason, &ready.message)
    }

    #[test]
    fn a_status_is_written_only_when_more_than_time_has_changed() {
        let content =
            ModelContent { tags: described(ModelPresence::Absent).desired.tags, ..ModelContent::default() };
        let mut observed = described(ModelPresence::Present(content));
        let decision = decide(&observed);
        let applied = ModelApplied::default();
        let outcome = model_outcome(&observed, Some(ModelListing::default()), &decision, &applied);
        let status = outcome.status.unwrap();
        assert_eq!(
            ready(&status),
            ("True", "ModelSynced", "the model \"fraud\" matches its description in the registry")
        );
        assert_eq!(status.owned_tags, ["team", "tier"]);
        observed.previous = Some(status);
        observed.now = Timestamp::from_second(3600).unwrap();
        let again = model_outcome(&observed, Some(ModelListing::default()), &decision, &applied);
        assert_eq!(again, ModelOutcome { status: None, events: Vec::new(), wake: None });
    }

    #[test]
    fn a_failure_is_reported_and_keeps_earlier_writes() {
        let mut observed = described(ModelPresence::Present(ModelContent::default()));
        let owned_tags = vec!["old".to_owned()];
        observed.previous = Some(RegisteredModelStatus { owned_tags, ..RegisteredModelStatus::default() });
        let decision = decide(&observed);
        let failure = Some(ReasonMessage::new(Reason::RegistryForbidden, "permission denied"));
        let done = decision.actions[..1].to_vec();
        let applied = ModelApplied { done, failure, found: Some(ModelContent::default()) };
        let outcome = model_outcome(&observed, None, &decision, &applied);
        let status = outcome.status.unwrap();
        assert_eq!(status.owned_tags, ["old", "team"], "tier was not set");
        assert_eq!(ready(&status), ("False", "RegistryForbidden", "permission denied"));
        assert_eq!(outcome.events.len(), 1);
        assert_eq!(outcome.wake, Some(Timestamp::from_second(30).unwrap()));
    }

    #[test]
    fn a_model_that_differs_from_what_was_written_is_not_ready() {
        let observed = described(ModelPresence::Absent);
        let decision = decide(&observed);
        // Somebody else has created it at the same time.
        let found = Some(ModelContent { description: "theirs".into(), ..ModelContent::default() });
        let applied = ModelApplied { done: decision.actions.clone(), failure: None, found };
        let outcome = model_outcome(&observed, None, &decision, &applied);
        assert_eq!(ready(&outcome.status.unwrap()).0, "False");
        assert!(outcome.wake.is_some(), "it is described again");
    }

    #[test]
    fn replacing_a_lost_model_is_reported() {
        let known = RegisteredModelStatus {
            model_name: Some("fraud".to_owned().try_into().unwrap()),
            aliases: BTreeMap::from([("champion".to_owned(), Version::new(3).unwrap())]),
            latest_version: Version::new(3),
            ..RegisteredModelStatus::default()
        };
        for (previous, expected) in
            [(None, &["ModelSynced"][..]), (Some(known), &["ModelCreatedAgain", "ModelSynced"])]
        {
            let mut observed = ModelObserved { previous, ..described(ModelPresence::Absent) };
            observed.desired.retry = Some("now".to_owned());
            let decision = decide(&observed);
            let found = ModelContent { tags: observed.desired.tags.clone(), ..ModelContent::default() };
            let applied = ModelApplied { done: decision.actions.clone(), failure: None, found: Some(found) };
            let outcome = model_outcome(&observed, None, &decision, &applied);
            let reasons: Vec<_> = outcome.events.iter().map(|event| event.reason.as_str()).collect();
            assert_eq!(reasons, expected);
            let status = outcome.status.unwrap();
            assert_eq!((status.aliases.len(), status.latest_version), (0, None));
            assert_eq!(status.retried.as_deref(), Some("now"), "a loss after this one needs another request");
        }
    }

    #[test]
    fn a_waiting_deletion_and_its_end_are_reported_once() {
        let mut observed = described(ModelPresence::Present(ModelContent::default()));
        observed.desired.deletes_model = true;
        observed.has_finalizer = true;
        observed.deleting_since = Some(observed.now);
        observed.referrers = vec![Referrer::Alias("champion".into())];
        let decision = decide(&observed);
        let applied = ModelApplied::default();
        let outcome = model_outcome(&observed, None, &decision, &applied);
        let status = outcome.status.unwrap();
        let (ready, reason, message) = ready(&status);
        assert_eq!((ready, reason), ("False", "Deleting"));
        assert!(message.contains("the ModelAlias \"champion\" still refers to it"), "{message}");
        assert_eq!(outcome.events[0].message, message);
        observed.previous = Some(status);
        observed.now = Timestamp::from_second(5).unwrap();
        let again = model_outcome(&observed, None, &decide(&observed), &applied);
        assert_eq!((again.status, again.events), (None, Vec::new()));

        observed.now = Timestamp::from_second(60).unwrap();
        let decision = decide(&observed);
        let applied = ModelApplied { done: decision.actions.clone(), ..applied };
        let end = model_outcome(&observed, None, &decision, &applied);
        assert_eq!((&end.status, end.wake), (&None, None), "the object has gone");
        assert!(end.events[0].message.contains("the model \"fraud\" stays in the registry"), "{end:?}");
    }

    #[test]
    fn a_failed_deletion_of_a_model_is_retried() {
        let mut observed = described(ModelPresence::Present(ModelContent::default()));
        observed.desired.deletes_model = true;
        observed.has_finalizer = true;
        observed.deleting_since = Some(observed.now);
        let decision = decide(&observed);
        let failure = Some(ReasonMessage::new(Reason::RegistryForbidden, "permission denied"));
        let outcome =
            model_outcome(&observed, None, &decision, &ModelApplied { failure, ..ModelApplied::default() });
        let status = outcome.status.unwrap();
        let (_, reason, message) = ready(&status);
        assert_eq!(reason, "RegistryForbidden");
        assert!(message.contains("stays in the registry for now: permission denied"), "{message}");
        assert_eq!(outcome.events.len(), 1);
        assert_eq!(outcome.wake, Some(Timestamp::from_second(5).unwrap()));
    }
}
