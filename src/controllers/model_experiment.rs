//! The controller of `ModelExperiments`.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef, watcher::Event},
};
use tracing::Instrument;

use super::{AFTER_FAILURE, Error, unreadable, wake, write_status};
use crate::{
    api::{ModelExperiment, ModelExperimentStatus},
    apply::experiment::apply,
    cluster::Guarded,
    controllers::context::Context,
    decide::experiment::{ExperimentAction, ExperimentDecision, decide},
    observe::experiment::{ExperimentObservation, Places, observe},
    state::object_writes::{Begin, Target},
    status::{ExperimentApplied, experiment_events, next_experiment},
};

/// How long after a write to the registry that failed the same is attempted again.
const RETRY: Duration = Duration::from_secs(15);

/// Returns what follows an event of a ModelExperiment: the champion of one that withdraws a challenger is woken,
/// and nothing is kept of one that is gone.
pub fn seen(context: &Arc<Context>) -> impl FnMut(&Event<Guarded<ModelExperiment>>) + Send + 'static {
    let context = context.clone();
    move |event| {
        let affected = context.index().experiment_event(event);
        for uid in &affected.gone {
            context.experiments.forget(uid);
            context.memory.forget_experiment(uid);
        }
        wake::affected(&context, &affected);
    }
}

/// One reconcile: observe → decide (pure) → apply (client) → status (pure, then one patch). What needs the
/// registry runs beside the reconciles.
///
/// # Errors
/// When the status cannot be written; all other errors are in the status.
pub async fn reconcile(
    object: Arc<Guarded<ModelExperiment>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let experiment = match &object.0 {
        Ok(experiment) => experiment,
        Err(unreadable) => return unreadable::release::<ModelExperiment>(&context, unreadable).await,
    };
    let target = target(experiment);
    if experiment.metadata.deletion_timestamp.is_some() {
        context.experiments.forget(&target.uid);
        return Ok(Action::await_change());
    }
    let observation = observe(experiment, &context.experiment_sources(), Timestamp::now());
    let decision = decide(&observation.observed);
    match observation.request(experiment, &decision.contests) {
        Some(request) => context.experiments.follow(request),
        None => context.experiments.forget(&target.uid),
    }
    let there = context.experiment_objects.get(&ObjectRef::from_obj(&*object));
    if there.is_none_or(|there| there.uid() != experiment.uid()) {
        context.experiments.forget(&target.uid);
        return Ok(Action::await_change());
    }
    if decision.actions.is_empty() {
        let after = next_experiment(&observation.observed, &decision, &ExperimentApplied::default());
        publish(&context, experiment, &observation.observed.status, &after).await?;
        return Ok(wake_after(&decision, &observation).map_or_else(Action::await_change, Action::requeue));
    }
    // What it says of the versions does not wait for the registry: a challenger may have to be withdrawn.
    let before = &observation.observed.status;
    let after = ModelExperimentStatus { conditions: before.conditions.clone(), ..decision.status.clone() };
    publish(&context, experiment, before, &after).await?;
    if context.experiment_writes.postpones(&target.uid) {
        return Ok(Action::await_change());
    }
    let work = write(experiment.clone(), context.clone(), observation.places, decision.actions.clone());
    Ok(match context.experiment_writes.begin(target, decision.actions, work.in_current_span()) {
        Begin::Begun | Begin::UnderWay => Action::await_change(),
        Begin::Due(due) => Action::requeue(due),
    })
}

fn target(experiment: &ModelExperiment) -> Target {
    Target {
        uid: experiment.uid().unwrap_or_default(),
        namespace: experiment.namespace().unwrap_or_default(),
        name: experiment.name_any(),
    }
}

/// Writes to the registry, and what is known by then to the status. Returns when to try again; a change of the
/// status is followed by a reconcile anyway.
async fn write(
    experiment: ModelExperiment,
    context: Arc<Context>,
    places: Places,
    actions: Vec<ExperimentAction>,
) -> Option<Duration> {
    let applied = apply(&experiment.spec.champion_ref.name, &places, &actions).await;
    let observation = observe(&experiment, &context.experiment_sources(), Timestamp::now());
    let decision = decide(&observation.observed);
    let after = next_experiment(&observation.observed, &decision, &applied);
    match publish(&context, &experiment, &observation.observed.status, &after).await {
        Ok(()) if applied.failure.is_none() => None,
        Ok(()) => Some(RETRY),
        Err(error) => {
            tracing::warn!(%error, "reconcile failed, retrying");
            Some(AFTER_FAILURE)
        }
    }
}

fn wake_after(decision: &ExperimentDecision, observation: &ExperimentObservation) -> Option<Duration> {
    let wake = decision.wake?;
    Duration::try_from(wake.duration_since(observation.observed.now)).ok()
}

/// Writes the status if it changed, and publishes the Events for the change.
async fn publish(
    context: &Context,
    experiment: &ModelExperiment,
    before: &ModelExperimentStatus,
    after: &ModelExperimentStatus,
) -> Result<(), Error> {
    if after == before {
        return Ok(());
    }
    if let Some(written) = write_status(context, experiment, after).await? {
        context.memory.remember_experiment_status(&written, after);
        context.publish_events(experiment, experiment_events(before, after));
    }
    Ok(())
}
