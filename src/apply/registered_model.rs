//! Performs what was decided about a RegisteredModel.

use std::sync::Arc;

use kube::Client;

use crate::{
    api::{
        RegisteredModel,
        condition::{Reason, ReasonMessage},
        names::ModelName,
    },
    cluster::finalizer,
    decide::registered_model::{ModelAction, ModelContent, ModelDecision},
    registry::{limiter::Priority, polled::PolledRegistry},
    status::ModelApplied,
};

/// A model's name and its registry.
type Place = (ModelName, Arc<PolledRegistry>);

/// Performs the actions in their order. The first one that fails ends them.
pub async fn apply(
    client: &Client,
    object: &RegisteredModel,
    place: Option<&Place>,
    decision: &ModelDecision,
) -> ModelApplied {
    let mut applied = ModelApplied::default();
    let mut has_written = false;
    for action in &decision.actions {
        let name: &str = action.into();
        // One that failed may have been performed.
        has_written |= action.describes();
        match perform(client, object, place, action).await {
            Ok(()) => {
                tracing::info!(action = name, "action applied");
                applied.done.push(action.clone());
            }
            Err(error) => {
                let reason = error.reason;
                tracing::warn!(action = name, %reason, message = error.message, "action failed");
                applied.failure = Some(error);
                break;
            }
        }
    }
    if has_written {
        match read_back(place).await {
            Ok(content) => applied.found = Some(content),
            Err(error) => drop(applied.failure.get_or_insert(error)),
        }
    }
    applied
}

async fn perform(
    client: &Client,
    object: &RegisteredModel,
    place: Option<&Place>,
    action: &ModelAction,
) -> Result<(), ReasonMessage> {
    if let ModelAction::SetFinalizer { present } = action {
        let (metadata, name) = (&object.metadata, finalizer::REGISTERED_MODEL);
        return finalizer::set::<RegisteredModel>(client, metadata, name, *present).await;
    }
    let (name, polled) = place.ok_or_else(unplaced)?;
    let registry = polled.client(Priority::Poll)?;
    match action {
        ModelAction::SetFinalizer { .. } => Ok(()),
        ModelAction::CreateModel { description, tags, again: _ } => {
            registry.create_model(name, description, tags).await
        }
        ModelAction::SetDescription { description } => registry.set_description(name, description).await,
        ModelAction::SetTag { key, value } => registry.set_model_tag(name, key, value).await,
        ModelAction::DeleteTag { key } => registry.delete_model_tag(name, key).await,
        ModelAction::DeleteModel => registry.delete_model(name).await,
    }
    .map_err(|error| polled.explain(Some(name), &error))?;
    if *action == ModelAction::DeleteModel {
        polled.remember_deletion(name);
    }
    Ok(())
}

/// Reads the model after the writes: another client may have written at the same time, and the next reconcile
/// may come before the next poll.
async fn read_back(place: Option<&Place>) -> Result<ModelContent, ReasonMessage> {
    let (name, polled) = place.ok_or_else(unplaced)?;
    let found = polled.read_model(name, Priority::Poll).await.inspect_err(|_| polled.forget_model(name))?;
    found.map(ModelContent::from).ok_or_else(|| {
        let message = format!("the model {:?} was deleted from the registry just now", name.as_str());
        ReasonMessage::new(Reason::ModelNotFound, message)
    })
}

fn unplaced() -> ReasonMessage {
    ReasonMessage::new(Reason::RegistryNotConfigured, "the model's registry is not known")
}
