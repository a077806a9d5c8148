//! The controller of ModelAliases.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef, watcher::Event},
};

use super::{AFTER_FAILURE, Error, unreadable, wake, write_status};
use crate::{
    api::{ModelAlias, ModelAliasStatus, condition::Reason},
    apply,
    cluster::Guarded,
    controllers::context::Context,
    decide::{Decision, Observed, decide},
    observe::observe,
    resolve::Subject,
    state::{Revision, retry_after},
    status::{self, Applied, Due},
};

/// How soon a ModelAlias checks again whether its registry's object was reconciled.
const REGISTRY_FIRST: Duration = Duration::from_millis(50);
/// How long after this process began to act it waits for that. Failover and scaling must not wait
/// indefinitely.
const FIRST_TURN: Duration = Duration::from_secs(5);

/// Reconciles a ModelAlias. Of one that was deleted in the meantime nothing is kept.
///
/// # Errors
/// When the status cannot be written; all other errors are in the status.
pub async fn reconcile(alias: Arc<Guarded<ModelAlias>>, context: Arc<Context>) -> Result<Action, Error> {
    let next = reconcile_once(&alias, &context).await;
    let there = context.aliases.get(&ObjectRef::from_obj(&*alias));
    if there.is_none_or(|there| there.uid() != alias.uid()) {
        context.forget_alias(&alias.uid().unwrap_or_default());
    }
    next
}

/// One reconcile: resolve (pure) → observe (client) → decide (pure) → apply (client) → status (pure, then one
/// patch).
///
/// # Errors
/// When the status cannot be written; all other errors are in the status.
async fn reconcile_once(alias: &Guarded<ModelAlias>, context: &Context) -> Result<Action, Error> {
    let alias = match &alias.0 {
        Ok(alias) => alias,
        Err(unreadable) => return unreadable::release::<ModelAlias>(context, unreadable).await,
    };
    let now = Timestamp::now();
    let subject = Subject::resolve(alias, context.references(), context.memory.recall(alias, now));
    // Right after a start, the registry's object is reconciled first: until then unknown facts mean nothing.
    let is_early = context.leadership.since().is_none_or(|since| since.elapsed() < FIRST_TURN);
    if is_early && subject.known_model().is_err_and(|cause| cause.reason == Reason::RegistryNotRead) {
        return Ok(Action::requeue(REGISTRY_FIRST));
    }
    context.memory.remember_model(&subject);
    let observed = observe(&context.sources(), &subject, now);
    let decision = decide(&observed);
    let revision = Revision::of(alias, decision.target);
    if let Some(pause) = context.throttle.after_failure(alias, &revision) {
        return Ok(Action::requeue(pause));
    }
    context.throttle.begin(&subject.uid, &revision);
    let applied = apply::apply(&context.effects(), &subject, &observed, &decision).await;
    let next = status::next(&observed, &decision, &applied, &subject.identity(observed.counted_traffic()));
    let published = publish(context, alias, &observed, &next, &applied).await;
    if published.is_err()
        || applied.failure.as_ref().is_some_and(|failure| failure.reason.is_api_server_error())
    {
        context.throttle.failed(alias, revision);
    }
    let held_until = published?;
    Ok(again(&decision, &applied, held_until, now))
}

/// Returns what follows an event of a ModelAlias: the memory of a deleted one is dropped, and those that have
/// to yield their alias now, or waited for it, are woken.
pub fn seen(context: &Arc<Context>) -> impl FnMut(&Event<Guarded<ModelAlias>>) + Send + 'static {
    let context = context.clone();
    move |event| {
        let affected = context.index().alias_event(event);
        if let Event::Delete(alias) = event {
            context.meters.forget(&alias.namespace().unwrap_or_default());
        }
        for uid in &affected.gone {
            context.forget_alias(uid);
        }
        if let Event::Apply(alias) | Event::InitApply(alias) | Event::Delete(alias) = event {
            let key = (alias.namespace().unwrap_or_default(), alias.name_any());
            context.index().experiments(&key).iter().for_each(|it| context.requeue.experiment(it));
            context.index().withdrawn_from(&key).iter().for_each(|it| context.requeue.alias(it));
        }
        wake::affected(&context, &affected);
    }
}

/// Returns when to reconcile again, if nothing happens before.
fn again(decision: &Decision, applied: &Applied, held_until: Option<Timestamp>, now: Timestamp) -> Action {
    let wake = decision.wake.into_iter().chain(held_until).min();
    let wake = wake.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
    // A wake-up a little late finds the time it was set for in the past.
    let wake = wake.map(|wake| wake + Duration::from_millis(50));
    let after_failure = applied.failure.as_ref().map(|_| AFTER_FAILURE);
    let unprotected = applied.unprotected.as_ref().map(retry_after);
    let soonest = [wake, after_failure, applied.postponed, unprotected].into_iter().flatten().min();
    soonest.map_or_else(Action::await_change, Action::requeue)
}

/// Writes one patch if the status changed, and publishes the Events for the change. What says only how far
/// something has got is held back for a moment: returns until when.
async fn publish(
    context: &Context,
    alias: &ModelAlias,
    observed: &Observed,
    after: &ModelAliasStatus,
    applied: &Applied,
) -> Result<Option<Timestamp>, Error> {
    let before = &observed.status;
    let events = status::events(before, after, applied);
    let must = !events.is_empty() || applied.failure.is_some();
    match context.memory.due(&alias.uid().unwrap_or_default(), before, after, must, observed.now) {
        Due::Never => {}
        Due::At(at) => return Ok(Some(at)),
        Due::Now => {
            if let Some(written) = write_status(context, alias, after).await? {
                context.memory.remember_status(&written, after);
            }
        }
    }
    context.publish_events(alias, events);
    Ok(None)
}
