//! The shell around one RegisteredModel.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{controller::Action, watcher},
};

use super::{AFTER_FAILURE, Error, unreadable, write_status};
use crate::{
    api::{
        DeletionPolicy, ModelAlias, RegisteredModel, RegisteredModelStatus,
        condition::{Reason, ReasonMessage, merge_conditions},
        names::ModelName,
    },
    cluster::{Guarded, finalizer},
    controllers::context::Context,
    decide::{REGISTRY_DEADLINE, Readiness},
    registry::{
        RegisteredModelFacts, Registry, VersionFacts,
        polled::{DisplayMetrics, ModelView, PolledRegistry},
    },
    resolve::registry_of,
    status::{NewEvent, display_metrics, kstatus, readiness_events, version_statuses},
};

/// How many versions a status lists.
const VERSIONS_MAX: usize = 10;

/// Passes `RegisteredModels` on, and wakes the `ModelAliases` that refer to each.
pub(super) fn waking(
    models: impl Stream<Item = Result<Guarded<RegisteredModel>, watcher::Error>> + Send + 'static,
    context: &Arc<Context>,
) -> impl Stream<Item = Result<Guarded<RegisteredModel>, watcher::Error>> + Send + 'static {
    let context = context.clone();
    models.inspect(move |model| {
        if let Ok(model) = model {
            let key = (model.namespace().unwrap_or_default(), model.name_any());
            wake_aliases(&context, &HashSet::from([key]));
        }
    })
}

/// Wakes the `ModelAliases` that refer to any of these `RegisteredModels`, given by namespace and name.
pub(super) fn wake_aliases(context: &Context, models: &HashSet<(String, String)>) {
    for alias in context.aliases.state().iter().filter_map(|alias| alias.0.as_ref().ok()) {
        let namespace = alias.namespace().unwrap_or_default();
        if models.contains(&(namespace.clone(), alias.spec.model_ref.name.clone())) {
            context.requeue.alias(&(namespace, alias.name_any()));
        }
    }
}

/// What one pass found and did.
struct Pass {
    readiness: Readiness,
    facts: Option<RegisteredModelFacts>,
    versions: Option<Vec<VersionFacts>>,
    metrics: DisplayMetrics,
    owned_tags: Option<Vec<String>>,
}

impl Pass {
    fn only(readiness: Readiness) -> Self {
        Self { readiness, facts: None, versions: None, metrics: DisplayMetrics::new(), owned_tags: None }
    }
}

/// One pass: let the model in the registry be as described, and tell what the registry says of it.
///
/// # Errors
/// When the status or the finalizer cannot be written.
pub async fn reconcile(
    object: Arc<Guarded<RegisteredModel>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    context.readiness.reached().await;
    let object = match &object.0 {
        Ok(object) => object,
        Err(unreadable) => return unreadable::release::<RegisteredModel>(&context, unreadable).await,
    };
    let now = Timestamp::now();
    let deletes = object.spec.deletion_policy == DeletionPolicy::Delete;
    if object.metadata.deletion_timestamp.is_some() {
        return end(&context, object, deletes, now).await;
    }
    if deletes != finalizer::is_set(&object.metadata, finalizer::REGISTERED_MODEL) {
        set_finalizer(&context, object, deletes).await?;
    }
    let pass = match synchronise(&context, object).await {
        Ok(pass) => pass,
        // Right after a start the registry has not been read; the poll that reads it wakes this object.
        Err(error) if error.reason == Reason::RegistryNotRead && object.status.is_some() => {
            return Ok(Action::await_change());
        }
        Err(error) => Pass::only(readiness(error)),
    };
    let failed = !matches!(pass.readiness, Readiness::Settled(_));
    let next = status(object, pass, now);
    if object.status.as_ref() != Some(&next) {
        write_status(&context, object, &next).await?;
        publish_events(&context, object, &next);
    }
    Ok(if failed { Action::requeue(AFTER_FAILURE * 6) } else { Action::await_change() })
}

/// Tells of a trouble that was not there before, and of its end.
fn publish_events(context: &Context, object: &RegisteredModel, after: &RegisteredModelStatus) {
    let before = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    context.publish_events(object, readiness_events(before, &after.conditions, "Synchronise"));
}

/// A trouble that ends by itself is waited for; another one has to be seen to.
fn readiness(error: ReasonMessage) -> Readiness {
    if error.reason.is_transient() { Readiness::Progressing(error) } else { Readiness::Stalled(error) }
}

async fn synchronise(context: &Context, object: &RegisteredModel) -> Result<Pass, ReasonMessage> {
    let name =
        object.model_name().map_err(|error| ReasonMessage::new(Reason::ModelNotFound, error.to_string()))?;
    let registry = registry_of(&context.registries, object)?;
    context.memory.remember_registry(object, &registry);
    let facts = match registry.model(&name) {
        ModelView::Unknown(error) => return Err(error),
        ModelView::Present(facts) => facts,
        ModelView::Absent => create(&registry, &name, object).await?,
    };
    let client = registry.client()?;
    let facts = describe(&registry, client.as_ref(), object, facts).await?;
    let versions = client.newest_versions(&name, VERSIONS_MAX).await;
    let versions = versions.map_err(|error| registry.explain(Some(&name), &error))?;
    let metrics = registry.display_metrics(&name, &versions, &display_metrics(&object.spec)).await;
    let message = format!("the model {:?} is in the registry as described", name.as_str());
    Ok(Pass {
        readiness: Readiness::Settled(ReasonMessage::new(Reason::ModelSynced, message)),
        facts: Some(facts),
        versions: Some(versions),
        metrics,
        owned_tags: Some(object.spec.tags.keys().cloned().collect()),
    })
}

fn desired_tags(object: &RegisteredModel) -> BTreeMap<String, String> {
    object.spec.tags.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

async fn create(
    registry: &PolledRegistry,
    name: &ModelName,
    object: &RegisteredModel,
) -> Result<RegisteredModelFacts, ReasonMessage> {
    let client = registry.client()?;
    let description = object.spec.description.clone().unwrap_or_default();
    let created = client.create_model(name, &description, &desired_tags(object)).await;
    created.map_err(|error| registry.explain(Some(name), &error))?;
    tracing::info!(model = name.as_str(), "created in the registry");
    read_again(registry, client.as_ref(), name).await
}

async fn read_again(
    registry: &PolledRegistry,
    client: &dyn Registry,
    name: &ModelName,
) -> Result<RegisteredModelFacts, ReasonMessage> {
    let facts = client.model(name).await.map_err(|error| registry.explain(Some(name), &error))?;
    registry.remember_model(name, facts.clone());
    facts.ok_or_else(|| {
        ReasonMessage::new(
            Reason::ModelNotFound,
            format!("the model {:?} was deleted from the registry just now", name.as_str()),
        )
    })
}

/// Sets the description and the tags that differ; removes tags that were ours and are wished for no more.
async fn describe(
    registry: &PolledRegistry,
    client: &dyn Registry,
    object: &RegisteredModel,
    facts: RegisteredModelFacts,
) -> Result<RegisteredModelFacts, ReasonMessage> {
    let name = &facts.name;
    let desired = desired_tags(object);
    let failed = |error| registry.explain(Some(name), &error);
    let mut changed = false;
    if let Some(description) =
        object.spec.description.as_ref().filter(|desired| **desired != facts.description)
    {
        client.set_description(name, description).await.map_err(failed)?;
        changed = true;
    }
    for (key, value) in desired.iter().filter(|(key, value)| facts.tags.get(*key) != Some(*value)) {
        client.set_model_tag(name, key, value).await.map_err(failed)?;
        changed = true;
    }
    let owned = object.status.as_ref().map(|status| status.owned_tags.as_slice()).unwrap_or_default();
    for key in owned.iter().filter(|key| !desired.contains_key(*key) && facts.tags.contains_key(*key)) {
        client.delete_model_tag(name, key).await.map_err(failed)?;
        changed = true;
    }
    if changed { read_again(registry, client, name).await } else { Ok(facts) }
}

fn status(object: &RegisteredModel, pass: Pass, now: Timestamp) -> RegisteredModelStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let aliases = pass.facts.map_or(before.aliases, |facts| {
        facts.aliases.into_iter().map(|(alias, version)| (alias.into(), version)).collect()
    });
    let versions = match pass.versions {
        None => before.versions,
        Some(versions) => version_statuses(
            versions,
            &aliases,
            &display_metrics(&object.spec),
            &pass.metrics,
            &before.versions,
        ),
    };
    RegisteredModelStatus {
        observed_generation: generation,
        model_name: object.model_name().ok(),
        latest_version: versions.first().map(|version| version.version),
        versions,
        aliases,
        owned_tags: pass.owned_tags.unwrap_or(before.owned_tags),
        conditions: merge_conditions(&before.conditions, kstatus(&pass.readiness), generation, now),
    }
}

/// The end: the model goes from the registry if that is wished, but only once no ModelAlias here refers to it. After a
/// deadline the object goes and the model stays.
async fn end(
    context: &Context,
    object: &RegisteredModel,
    deletes: bool,
    now: Timestamp,
) -> Result<Action, Error> {
    if !finalizer::is_set(&object.metadata, finalizer::REGISTERED_MODEL) {
        return Ok(Action::await_change());
    }
    let since = context.memory.deleting_since(object, now);
    if deletes
        && now.duration_since(since) < REGISTRY_DEADLINE
        && let Err(error) = delete(context, object).await
    {
        tracing::warn!(reason = %error.reason, message = error.message, "the model cannot be deleted from the registry yet");
        let message = format!("the model stays in the registry for now: {}", error.message);
        let events = NewEvent {
            warning: true,
            reason: error.reason.to_string(),
            action: "Delete".to_owned(),
            message,
        };
        context.publish_events(object, vec![events]);
        return Ok(Action::requeue(AFTER_FAILURE));
    }
    set_finalizer(context, object, false).await?;
    context.memory.forget_model(object);
    Ok(Action::await_change())
}

async fn delete(context: &Context, object: &RegisteredModel) -> Result<(), ReasonMessage> {
    let (namespace, name) = (object.namespace(), object.name_any());
    let aliases = context.aliases.state();
    // One that cannot be read may refer to it.
    let refers = |alias: &Guarded<ModelAlias>| {
        alias.namespace() == namespace
            && alias.0.as_ref().map_or(true, |alias| alias.spec.model_ref.name == name)
    };
    if let Some(alias) = aliases.iter().find(|alias| refers(alias)) {
        let message = format!("the ModelAlias {:?} still refers to it; delete that first", alias.name_any());
        return Err(ReasonMessage::new(Reason::Deleting, message));
    }
    let model =
        object.model_name().map_err(|error| ReasonMessage::new(Reason::ModelNotFound, error.to_string()))?;
    // With its namespace, the ModelRegistry may be gone first.
    let registry = registry_of(&context.registries, object)
        .or_else(|cause| context.memory.registry(object).ok_or(cause))?;
    let models = context.models.state();
    let mut others = models.iter().filter_map(|other| other.0.as_ref().ok());
    if let Some(other) = others.find(|other| {
        other.uid() != object.uid()
            && other.model_name().as_ref() == Ok(&model)
            && registry_of(&context.registries, other)
                .is_ok_and(|theirs| theirs.identity() == registry.identity())
    }) {
        let owner = format!("{}/{}", other.namespace().unwrap_or_default(), other.name_any());
        let message = format!("the RegisteredModel {owner} speaks of the same model; delete that first");
        return Err(ReasonMessage::new(Reason::Conflict, message));
    }
    let client = registry.client()?;
    client.delete_model(&model).await.map_err(|error| registry.explain(Some(&model), &error))
}

async fn set_finalizer(context: &Context, object: &RegisteredModel, present: bool) -> Result<(), Error> {
    finalizer::set::<RegisteredModel>(&context.client, &object.metadata, finalizer::REGISTERED_MODEL, present)
        .await
        .map_err(|cause| Error::Write(cause.message))
}
