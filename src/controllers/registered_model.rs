//! The controller of RegisteredModels.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{controller::Action, watcher::Event},
};
use tracing::Instrument;

use super::{AFTER_FAILURE, Error, unreadable, wake, write_status};
use crate::{
    api::RegisteredModel,
    apply::registered_model::apply,
    cluster::Guarded,
    controllers::context::Context,
    decide::registered_model::{ModelAction, ModelDecision, ModelObserved, decide},
    observe::registered_model::{ModelObservation, observe, observe_deletion},
    state::object_writes::{Attempt, Begin, Target},
    status::{Due, ModelApplied, ModelOutcome, model_outcome},
};

/// Returns what follows an event of a RegisteredModel: the `ModelAliases` that refer to it are woken.
pub fn seen(context: &Arc<Context>) -> impl FnMut(&Event<Guarded<RegisteredModel>>) + Send + 'static {
    let context = context.clone();
    move |event| wake::affected(&context, &context.index().model_event(event))
}

/// Observe (client) → decide (pure) → apply (client) → outcome (pure): at most one patch of the status, and
/// the Events. What needs the registry runs beside the reconciles.
///
/// # Errors
/// When the status cannot be written; all other errors are in the status.
pub async fn reconcile(
    object: Arc<Guarded<RegisteredModel>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let model = match &object.0 {
        Ok(model) => model,
        Err(unreadable) => return unreadable::release::<RegisteredModel>(&context, unreadable).await,
    };
    if context.model_writes.postpones(&target(model).uid) {
        return Ok(Action::await_change());
    }
    if model.metadata.deletion_timestamp.is_some() {
        let attempt = Attempt::Deletion(model.resource_version());
        let work = delete(model.clone(), context.clone());
        return Ok(begin(&context, model, attempt, work));
    }
    let observation = observe(model, &context.model_sources(), Timestamp::now());
    let decision = decide(&observation.observed);
    if decision.actions.iter().any(ModelAction::is_to_registry) {
        let attempt = Attempt::Actions(decision.actions.clone());
        let work = complete(model.clone(), context.clone(), observation, decision);
        return Ok(begin(&context, model, attempt, work));
    }
    finish(model, &context, observation, &decision).await
}

fn target(model: &RegisteredModel) -> Target {
    Target {
        uid: model.uid().unwrap_or_default(),
        namespace: model.namespace().unwrap_or_default(),
        name: model.name_any(),
    }
}

/// Begins what needs the registry.
fn begin(
    context: &Context,
    model: &RegisteredModel,
    attempt: Attempt,
    work: impl Future<Output = Option<Duration>> + Send + 'static,
) -> Action {
    match context.model_writes.begin(target(model), attempt, work.in_current_span()) {
        Begin::Begun | Begin::UnderWay => Action::await_change(),
        Begin::Due(due) => Action::requeue(due),
    }
}

async fn delete(model: RegisteredModel, context: Arc<Context>) -> Option<Duration> {
    let observation = observe_deletion(&model, &context.model_sources(), Timestamp::now()).await;
    let decision = decide(&observation.observed);
    complete(model, context, observation, decision).await
}

/// Returns when to try again.
async fn complete(
    model: RegisteredModel,
    context: Arc<Context>,
    observation: ModelObservation,
    decision: ModelDecision,
) -> Option<Duration> {
    let now = observation.observed.now;
    match work(&model, &context, observation, &decision).await {
        Ok(wake) => wake_after(wake, now),
        Err(error) => {
            tracing::warn!(%error, "reconcile failed, retrying");
            Some(AFTER_FAILURE)
        }
    }
}

async fn finish(
    model: &RegisteredModel,
    context: &Context,
    observation: ModelObservation,
    decision: &ModelDecision,
) -> Result<Action, Error> {
    let now = observation.observed.now;
    let wake = work(model, context, observation, decision).await?;
    Ok(wake_after(wake, now).map_or_else(Action::await_change, Action::requeue))
}

fn wake_after(wake: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    wake.and_then(|at| Duration::try_from(at.duration_since(now)).ok())
}

/// Applies a decision and reports the outcome. Returns when to reconcile again.
async fn work(
    model: &RegisteredModel,
    context: &Context,
    observation: ModelObservation,
    decision: &ModelDecision,
) -> Result<Option<Timestamp>, Error> {
    let ModelObservation { observed, listing, place } = observation;
    let applied = apply(&context.client, model, place.as_ref(), decision).await;
    let outcome = model_outcome(&observed, listing, decision, &applied);
    let held_until = publish(model, context, &observed, &applied, &outcome).await?;
    if applied.has_released() {
        context.memory.forget_model(model);
    }
    Ok(outcome.wake.into_iter().chain(held_until).min())
}

/// Writes the status if it changed, and publishes the Events. What only describes the versions is held back
/// for a moment: returns until when.
async fn publish(
    model: &RegisteredModel,
    context: &Context,
    observed: &ModelObserved,
    applied: &ModelApplied,
    outcome: &ModelOutcome,
) -> Result<Option<Timestamp>, Error> {
    let uid = model.uid().unwrap_or_default();
    let before = observed.previous.clone().unwrap_or_default();
    let after = outcome.status.as_ref().unwrap_or(&before);
    let must = !outcome.events.is_empty() || *applied != ModelApplied::default();
    match context.memory.due(&uid, &before, after, must, observed.now) {
        Due::Never => {}
        Due::At(at) => return Ok(Some(at)),
        Due::Now => {
            if let Some(written) = write_status(context, model, after).await? {
                context.memory.remember_model_status(&written, after);
            }
        }
    }
    context.publish_events(model, outcome.events.clone());
    Ok(None)
}
