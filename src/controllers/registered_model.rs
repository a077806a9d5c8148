//! The controller of RegisteredModels.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::runtime::{controller::Action, watcher::Event};

use super::{Error, unreadable, wake, write_status};
use crate::{
    api::RegisteredModel, apply::registered_model::apply, cluster::Guarded, controllers::context::Context,
    decide::registered_model::decide, observe::registered_model::observe, status::model_outcome,
};

/// Returns what follows an event of a RegisteredModel: the `ModelAliases` that refer to it are woken.
pub fn seen(context: &Arc<Context>) -> impl FnMut(&Event<Guarded<RegisteredModel>>) + Send + 'static {
    let context = context.clone();
    move |event| wake::affected(&context, &context.index().model_event(event))
}

/// Observe (client) → decide (pure) → apply (client) → outcome (pure): at most one patch of the status, and
/// the Events.
///
/// # Errors
/// When the status cannot be written; all other errors are in the status.
pub async fn reconcile(
    object: Arc<Guarded<RegisteredModel>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let object = match &object.0 {
        Ok(object) => object,
        Err(unreadable) => return unreadable::release::<RegisteredModel>(&context, unreadable).await,
    };
    let now = Timestamp::now();
    let observation = observe(object, &context.model_sources(), now).await;
    let decision = decide(&observation.observed);
    let applied = apply(&context.client, object, observation.place.as_ref(), &decision).await;
    let outcome = model_outcome(&observation.observed, observation.listing, &decision, &applied);
    if let Some(status) = &outcome.status {
        write_status(&context, object, status).await?;
    }
    context.publish_events(object, outcome.events);
    if applied.has_released() {
        context.memory.forget_model(object);
    }
    let wake = outcome.wake.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
    Ok(wake.map_or_else(Action::await_change, Action::requeue))
}
