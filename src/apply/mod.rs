//! The second half of the effects: a decision's actions, done in their order.
//!
//! Each action is safe to repeat. The first one that fails ends the pass: what follows may depend on it, and the next
//! pass decides anew from what is there then.
#![expect(clippy::disallowed_methods, reason = "effects: waits before the same is written again")]

mod workloads;

use kube::ResourceExt;

use crate::{
    api::{
        ModelAlias,
        condition::{Note, Reason},
        names::Version,
    },
    cluster::finalizer,
    controllers::context::Context,
    decide::{Action, Attempt, Decision, ServingIntent, Traffic},
    observe::model_alias::{Model, Observation, key},
    state::{alias_writes, smoke_tests},
    status::{Announcement, Applied},
};

/// Does what was decided, as far as it goes.
pub async fn apply(
    context: &Context,
    alias: &ModelAlias,
    observation: &Observation,
    decision: &Decision,
) -> Applied {
    context.smoke.keep_only(&alias.uid().unwrap_or_default(), decision.smoke_test.as_ref());
    let mut applied = Applied::default();
    for action in &decision.actions {
        if let Some(pause) = context.haste.before(alias, action) {
            tokio::time::sleep(pause).await;
        }
        match act(context, alias, observation, action).await {
            Ok(Effect::Done) => {
                tracing::info!(?action, "done");
                context.metrics.action(action, true);
                if context.haste.done(alias, action) {
                    tell_quarrel(context, alias, action);
                }
                applied.actions.push(action.clone());
            }
            Ok(Effect::UnderWay) => {}
            Err(note) => {
                tracing::warn!(?action, reason = %note.reason, message = note.message, "failed");
                context.metrics.action(action, false);
                applied.failure = Some(note);
                break;
            }
        }
    }
    applied
}

/// Tells that somebody else goes on undoing what Laurel writes.
fn tell_quarrel(context: &Context, alias: &ModelAlias, action: &Action) {
    let what: &str = action.into();
    let message = format!(
        "something else goes on undoing what Laurel writes ({action:?}): see who else writes this ModelAlias's Service or \
         Deployments (kubectl get -o yaml --show-managed-fields), and stop it"
    );
    tracing::warn!(message, "a quarrel");
    let reason = Reason::Contested.to_string();
    context.announce(alias, vec![Announcement { warning: true, reason, action: what.to_owned(), message }]);
}

/// What came of an action that did not fail.
pub(crate) enum Effect {
    /// It is done; what runs beside the pass is begun.
    Done,
    /// It was begun in a pass before and has not ended.
    UnderWay,
}

/// How many ready pods the decision counted on when it sent requests there.
fn counted_on(observation: &Observation, traffic: Traffic) -> u32 {
    let workloads = &observation.observed.cluster.workloads;
    let selected = workloads.iter().filter(|(version, _)| match traffic {
        Traffic::One(one) => one == **version,
        Traffic::Shared => true,
        Traffic::Nowhere => false,
    });
    selected.map(|(_, workload)| workload.counted()).fold(0, u32::saturating_add).max(1)
}

/// The smoke test of an attempt at a version.
fn smoke_test(
    alias: &ModelAlias,
    model: &Model,
    serving: &ServingIntent,
    version: Version,
    attempt: &Attempt,
) -> smoke_tests::Request {
    smoke_tests::Request {
        uid: alias.uid().unwrap_or_default(),
        alias: key(alias),
        version,
        attempt: attempt.clone(),
        model: model.name.clone(),
        registry: model.registry.clone(),
        port: alias.spec.serving.as_ref().map_or(0, |serving| serving.port),
        timeout: serving.smoke_test.timeout.unsigned_abs(),
    }
}

async fn act(
    context: &Context,
    alias: &ModelAlias,
    observation: &Observation,
    action: &Action,
) -> Result<Effect, Note> {
    let now = observation.observed.now;
    let model = || {
        observation
            .model
            .as_ref()
            .ok_or_else(|| Note::new(Reason::RegisteredModelNotFound, "the model is not known"))
    };
    match action {
        Action::SetFinalizer { present } => {
            let (client, metadata) = (&context.client, &alias.metadata);
            finalizer::set::<ModelAlias>(client, metadata, finalizer::REGISTRY_ALIAS, *present).await
        }
        Action::Apply { version, model_uri, replicas } => {
            let start = workloads::Start { version: *version, model_uri, replicas: *replicas, at: now };
            workloads::apply_deployment(context, alias, model()?, start).await
        }
        Action::Scale { version, replicas } => {
            workloads::scale(context, alias, *version, *replicas, now).await
        }
        Action::SmokeTest { version, attempt } => {
            if let Some(serving) = &observation.observed.intent.serving {
                context.smoke.begin(smoke_test(alias, model()?, serving, *version, attempt));
            }
            Ok(())
        }
        Action::Route(traffic) => {
            workloads::route(context, alias, model()?, *traffic, counted_on(observation, *traffic)).await
        }
        Action::Delete { version } => workloads::delete_deployment(context, alias, *version).await,
        Action::DeleteService => workloads::delete_service(context, alias).await,
        Action::SetAlias { role, version, replaces, corrects: _ } => {
            return context.alias_writes.start(context, alias, model()?, *role, *version, *replaces);
        }
        Action::DeleteAlias { role, replaces } => {
            alias_writes::delete_alias(context, model()?, alias, *role, *replaces).await
        }
        Action::Record { version: _, at } => {
            return Ok(context.records.start(context, alias, model()?, &observation.observed, *at));
        }
    }
    .map(|()| Effect::Done)
}
