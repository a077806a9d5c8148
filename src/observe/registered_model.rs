//! Observes one RegisteredModel: the model in its registry, and what else refers to it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::time::timeout;

use super::sources::ListingReads;
use crate::{
    api::{
        DeletionPolicy, ModelAlias, RETRY_ANNOTATION, RegisteredModel,
        condition::{Reason, ReasonMessage},
        model_alias::AliasKey,
        names::ModelName,
    },
    cluster::{Guarded, finalizer},
    decide::{
        REGISTRY_DEADLINE,
        registered_model::{DesiredModel, ModelContent, ModelObserved, ModelPresence, Referrer},
    },
    registry::{
        RegisteredModelFacts,
        limiter::Priority,
        polled::{ModelView, PolledRegistry},
    },
    resolve::{References, index::ModelKey},
    state::{Memory, ReadKey, Waiter},
    status::{ModelListing, display_metrics},
};

/// The part of the context that an observation of a RegisteredModel needs.
#[derive(Clone, Copy)]
pub struct ModelSources<'a> {
    /// All `ModelAliases`.
    pub aliases: &'a Store<Guarded<ModelAlias>>,
    /// All `RegisteredModels`.
    pub models: &'a Store<Guarded<RegisteredModel>>,
    /// Where references lead.
    pub references: References<'a>,
    /// What this process remembers of single objects.
    pub memory: &'a Memory,
    /// Reads of the newest versions.
    pub listing_reads: &'a ListingReads,
}

/// The observation of a RegisteredModel, and what a reconcile needs beside it.
pub struct ModelObservation {
    /// The input of the decision.
    pub observed: ModelObserved,
    /// The newest versions, if they could be listed.
    pub listing: Option<ModelListing>,
    /// The model's name and its registry, if known.
    pub place: Option<Place>,
}

/// A model's name and its registry.
pub type Place = (ModelName, Arc<PolledRegistry>);

/// Observes a RegisteredModel that is not in deletion. Waits for nothing.
#[must_use]
pub fn observe(object: &RegisteredModel, sources: &ModelSources<'_>, now: Timestamp) -> ModelObservation {
    let (mut observed, place) = begin(object, sources, now);
    let listing = observe_description(object, sources, &place, &mut observed);
    ModelObservation { observed, listing, place: place.ok() }
}

/// Observes a RegisteredModel in deletion. Reads its model from the registry directly, if it may have to be
/// deleted.
pub async fn observe_deletion(
    object: &RegisteredModel,
    sources: &ModelSources<'_>,
    now: Timestamp,
) -> ModelObservation {
    let (mut observed, place) = begin(object, sources, now);
    observed.deleting_since = Some(now);
    if observed.has_finalizer {
        observed.deleting_since = Some(sources.memory.deleting_since(object, now));
        read_for_deletion(object, &place, sources, &mut observed).await;
    }
    ModelObservation { observed, listing: None, place: place.ok() }
}

/// What is known without the registry.
fn begin(
    object: &RegisteredModel,
    sources: &ModelSources<'_>,
    now: Timestamp,
) -> (ModelObserved, Result<Place, ReasonMessage>) {
    let mut observed = ModelObserved {
        now,
        desired: desired(object),
        has_finalizer: finalizer::is_set(&object.metadata, finalizer::REGISTERED_MODEL),
        deleting_since: None,
        previous: sources.memory.latest_model_status(object),
        referrers: Vec::new(),
        registry: ModelPresence::Unknown(ReasonMessage::new(
            Reason::RegistryNotRead,
            "the registry was not read",
        )),
        versions_error: None,
        awaits_versions: false,
        registry_object: None,
    };
    let place = place(object, sources);
    observed.registry_object = place.as_ref().ok().map(|(_, registry)| registry.status());
    (observed, place)
}

fn observe_description(
    object: &RegisteredModel,
    sources: &ModelSources<'_>,
    place: &Result<Place, ReasonMessage>,
    observed: &mut ModelObserved,
) -> Option<ModelListing> {
    let (name, registry) = match place {
        Ok(place) => place,
        Err(blocker) => {
            observed.registry = ModelPresence::Unknown(blocker.clone());
            return None;
        }
    };
    match registry.model(name) {
        ModelView::Unknown(blocker) => observed.registry = ModelPresence::Unknown(blocker),
        ModelView::Absent => observed.registry = ModelPresence::Absent,
        ModelView::Present(facts) => {
            let waiter = Waiter::Model(object.namespace().unwrap_or_default(), object.name_any());
            let metrics = observed.desired.display_metrics.clone();
            let key = ReadKey::newest(registry, &facts, &metrics);
            let read = list(name.clone(), registry.clone(), metrics);
            observed.registry = ModelPresence::Present(facts.into());
            match sources.listing_reads.last(key, &waiter, None, read) {
                Ok(Ok(listing)) => return Some(listing),
                Ok(Err(error)) => observed.versions_error = Some(error),
                Err(_begun) => observed.awaits_versions = true,
            }
        }
    }
    None
}

/// Adds what is needed to decide whether the model may be deleted. Reads the registry directly, because a
/// poll may be older than the newest version, and only if the model may have to be deleted.
async fn read_for_deletion(
    object: &RegisteredModel,
    place: &Result<Place, ReasonMessage>,
    sources: &ModelSources<'_>,
    observed: &mut ModelObserved,
) {
    match place {
        _ if !observed.desired.deletes_model => {}
        Err(blocker) => observed.registry = ModelPresence::Unknown(blocker.clone()),
        Ok((name, registry)) => {
            // A server that does not answer must not hold up the deletion beyond its deadline.
            let since = observed.deleting_since.unwrap_or(observed.now);
            let left = REGISTRY_DEADLINE - observed.now.duration_since(since);
            let left = Duration::try_from(left).unwrap_or_default();
            observed.registry = match timeout(left, registry.read_model(name, Priority::Decision)).await {
                Ok(Ok(Some(facts))) => ModelPresence::Present(facts.into()),
                Ok(Ok(None)) => ModelPresence::Absent,
                Ok(Err(error)) => ModelPresence::Unknown(error),
                Err(_) => ModelPresence::Unknown(ReasonMessage::new(
                    Reason::RegistryUnreachable,
                    "the registry has not answered before the deadline",
                )),
            };
            // After the wait for the registry: an object that refers to the model may have been created
            // meanwhile.
            observed.referrers = referrers(object, name, registry, sources);
        }
    }
}

fn desired(object: &RegisteredModel) -> DesiredModel {
    let spec = &object.spec;
    DesiredModel {
        generation: object.metadata.generation,
        name: object.model_name().ok(),
        description: spec.description.clone(),
        tags: spec.tags.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect(),
        display_metrics: display_metrics(spec),
        deletes_model: spec.deletion_policy == DeletionPolicy::Delete,
        retry: object.annotations().get(RETRY_ANNOTATION).cloned(),
    }
}

/// The model's name and its registry.
fn place(object: &RegisteredModel, sources: &ModelSources<'_>) -> Result<Place, ReasonMessage> {
    let name =
        object.model_name().map_err(|error| ReasonMessage::new(Reason::ModelNotFound, error.to_string()))?;
    let registry = sources.references.registry_of(object);
    if object.metadata.deletion_timestamp.is_some() {
        // When its namespace is deleted, the ModelRegistry may be deleted first.
        let registry = registry.or_else(|error| sources.memory.registry(object).ok_or(error))?;
        return Ok((name, registry));
    }
    let registry = registry?;
    sources.memory.remember_registry(object, &registry);
    Ok((name, registry))
}

async fn list(
    name: ModelName,
    registry: Arc<PolledRegistry>,
    metrics: BTreeSet<String>,
) -> Result<ModelListing, ReasonMessage> {
    let versions = registry.newest_versions(&name).await?;
    let metrics = registry.display_metrics(&name, &versions, &metrics).await;
    Ok(ModelListing { versions, metrics })
}

/// Returns the objects that refer to the model, or may do so.
fn referrers(
    object: &RegisteredModel,
    name: &ModelName,
    registry: &PolledRegistry,
    sources: &ModelSources<'_>,
) -> Vec<Referrer> {
    let index = &sources.references.registry_objects.index;
    let key = (object.namespace().unwrap_or_default(), object.name_any());
    let stored = |(namespace, name): AliasKey| sources.aliases.get(&ObjectRef::new(&name).within(&namespace));
    let aliases = index.may_refer(&key).into_iter().filter_map(stored);
    let aliases = aliases.filter_map(|alias| alias_referrer(object, &alias));
    let stored = |(namespace, name): ModelKey| sources.models.get(&ObjectRef::new(&name).within(&namespace));
    let is_same = |other: &RegisteredModel| {
        sources.references.registry_of(other).ok().map(|theirs| theirs.identity() == registry.identity())
    };
    let models = index.namesakes(name).into_iter().filter_map(stored);
    let models = models.filter_map(|other| model_referrer(object, name, &other, is_same));
    aliases.chain(models).collect()
}

fn alias_referrer(object: &RegisteredModel, alias: &Guarded<ModelAlias>) -> Option<Referrer> {
    if alias.namespace() != object.namespace() {
        return None;
    }
    match &alias.0 {
        Ok(alias) => {
            (alias.spec.model_ref.name == object.name_any()).then(|| Referrer::Alias(alias.name_any()))
        }
        Err(invalid) => Some(Referrer::UnreadableAlias(invalid.metadata.name.clone().unwrap_or_default())),
    }
}

/// `is_same_registry` is `None` if the other object's registry is not known.
fn model_referrer(
    object: &RegisteredModel,
    name: &ModelName,
    other: &Guarded<RegisteredModel>,
    is_same_registry: impl Fn(&RegisteredModel) -> Option<bool>,
) -> Option<Referrer> {
    let theirs = format!("{}/{}", other.namespace().unwrap_or_default(), other.name_any());
    match &other.0 {
        Ok(other) if other.uid() == object.uid() || other.model_name().as_ref() != Ok(name) => None,
        Ok(other) => match is_same_registry(other) {
            Some(true) => Some(Referrer::Model(theirs)),
            Some(false) => None,
            None => Some(Referrer::UnresolvedModel(theirs)),
        },
        // It may be about any model. In other namespaces only its name counts: one broken object must not
        // block the deletion of models everywhere.
        Err(invalid) => {
            let is_near = invalid.metadata.namespace == object.metadata.namespace;
            let is_namesake = invalid.metadata.name.as_deref() == Some(name.as_str());
            (is_near || is_namesake).then_some(Referrer::UnreadableModel(theirs))
        }
    }
}

impl From<RegisteredModelFacts> for ModelContent {
    fn from(facts: RegisteredModelFacts) -> Self {
        Self {
            description: facts.description,
            tags: facts.tags,
            aliases: facts.aliases.into_iter().map(|(alias, version)| (alias.into(), version)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectMeta;
    use serde_json::json;

    use super::*;
    use crate::cluster::Unreadable;

    fn metadata(namespace: &str, name: &str, uid: &str) -> ObjectMeta {
        serde_json::from_value(json!({ "namespace": namespace, "name": name, "uid": uid })).unwrap()
    }

    fn unreadable<K>(namespace: &str, name: &str) -> Guarded<K> {
        let metadata = metadata(namespace, name, "unreadable");
        Guarded(Err(Unreadable { error: "no".into(), metadata, raw: json!({}) }))
    }

    fn model(namespace: &str, name: &str, uid: &str, model_name: &str) -> RegisteredModel {
        let spec = serde_json::from_value(json!({ "modelName": model_name })).unwrap();
        RegisteredModel { metadata: metadata(namespace, name, uid), spec, status: None }
    }

    fn alias(namespace: &str, name: &str, model: &str) -> Guarded<ModelAlias> {
        let spec = json!({ "modelRef": { "name": model }, "alias": "champion", "version": "1" });
        let spec = serde_json::from_value(spec).unwrap();
        Guarded(Ok(ModelAlias { metadata: metadata(namespace, name, "a"), spec, status: None }))
    }

    #[test]
    fn a_model_alias_that_cannot_be_parsed_still_refers_to_the_model() {
        let object = model("ns", "fraud", "1", "fds");
        let refers = |alias: Guarded<ModelAlias>| alias_referrer(&object, &alias);
        assert_eq!(refers(alias("ns", "champion", "fraud")), Some(Referrer::Alias("champion".into())));
        assert_eq!(refers(alias("ns", "champion", "fds")), None, "it names the object, not the model");
        assert_eq!(refers(alias("other", "champion", "fraud")), None);
        assert_eq!(refers(unreadable("ns", "b")), Some(Referrer::UnreadableAlias("b".into())));
        assert_eq!(refers(unreadable("other", "b")), None);
    }

    #[test]
    fn another_registered_model_of_an_unknown_registry_still_refers_to_the_model() {
        let object = model("ns", "fraud", "1", "fds");
        let refers = |other: Guarded<RegisteredModel>, is_same| {
            model_referrer(&object, &object.model_name().unwrap(), &other, |_| is_same)
        };
        let ok = |other| Guarded(Ok(other));
        let other = || ok(model("far", "f", "2", "fds"));
        assert_eq!(refers(other(), Some(true)), Some(Referrer::Model("far/f".into())));
        assert_eq!(refers(other(), Some(false)), None);
        assert_eq!(refers(other(), None), Some(Referrer::UnresolvedModel("far/f".into())));
        assert_eq!(refers(ok(object.clone()), Some(true)), None, "it does not refer to itself");
        assert_eq!(refers(ok(model("far", "f", "2", "else")), Some(true)), None);
        let unreadable = |namespace, name| refers(unreadable(namespace, name), None);
        assert_eq!(unreadable("ns", "x"), Some(Referrer::UnreadableModel("ns/x".into())));
        assert_eq!(unreadable("far", "fds"), Some(Referrer::UnreadableModel("far/fds".into())));
        assert_eq!(
            unreadable("far", "x"),
            None,
            "one broken object does not block the deletion of other models"
        );
    }
}
