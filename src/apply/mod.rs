//! The second half of the effects: a decision's actions, done in their order.
//!
//! Each action is safe to repeat. The first one that fails ends the pass: what follows may depend on it, and the next
//! pass decides anew from what is there then.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: writes to the cluster and to registries"
)]

pub mod registered_model;
mod workloads;

use kube::Client;

use crate::{
    api::{
        ModelAlias,
        condition::{Reason, ReasonMessage},
    },
    cluster::{Events, cache::Cache, finalizer},
    decide::{Action, AliasRole, Decision, Lifecycle, Observed, OwnObject, Traffic},
    resolve::Subject,
    state::{
        Effect, Throttle,
        alias_writes::{self, AliasWrites},
        audit_writes::AuditWrites,
        smoke_tests::{self, SmokeTests},
    },
    status::{Applied, NewEvent},
    telemetry::metrics::Metrics,
};

/// What actions are performed with.
#[derive(Clone, Copy)]
pub struct Effects<'a> {
    /// The client for the cluster.
    pub client: &'a Client,
    /// What our own objects look like there; what is written is noted in it.
    pub cluster: &'a Cache,
    /// The smoke tests.
    pub smoke: &'a SmokeTests,
    /// The aliases that are being set in registries.
    pub alias_writes: &'a AliasWrites,
    /// What is being written into the tags of versions.
    pub audit_writes: &'a AuditWrites,
    /// What was done a moment ago.
    pub throttle: &'a Throttle,
    /// The metrics.
    pub metrics: &'a Metrics,
    /// Publishes Events.
    pub events: &'a Events,
}

/// Does what was decided, as far as it goes.
pub async fn apply(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    observed: &Observed,
    decision: &Decision,
) -> Applied {
    effects.smoke.keep_only(&subject.uid, decision.smoke_test.as_ref());
    let mut applied = Applied::default();
    for action in &decision.actions {
        if !effects.throttle.may_write(&subject.uid, action).await {
            break;
        }
        match act(effects, subject, observed, action).await {
            Ok(Effect::Done) => {
                tracing::info!(?action, "done");
                effects.metrics.action(action, true);
                if effects.throttle.done(&subject.uid, action) {
                    report_contention(effects, subject, action);
                }
                applied.actions.push(action.clone());
            }
            Ok(Effect::UnderWay) => {}
            Err(cause) => {
                tracing::warn!(?action, reason = %cause.reason, message = cause.message, "failed");
                effects.metrics.action(action, false);
                applied.failure = Some(cause);
                break;
            }
        }
    }
    applied
}

/// Reports that another client keeps reverting what Laurel writes.
fn report_contention(effects: &Effects<'_>, subject: &Subject<'_>, action: &Action) {
    let what: &str = action.into();
    let message = format!(
        "another client keeps reverting what Laurel writes ({}): see who else writes this ModelAlias's Service, \
         PodDisruptionBudget or Deployments (kubectl get -o yaml --show-managed-fields), and stop it",
        described(action)
    );
    tracing::warn!(message, "write contested");
    let reason = Reason::Contested.to_string();
    effects.events.publish(
        subject.reference(),
        vec![NewEvent { warning: true, reason, action: what.to_owned(), message }],
    );
}

/// What an action writes, for people.
fn described(action: &Action) -> String {
    match action {
        Action::SetFinalizer { .. } => "the finalizer of the ModelAlias".to_owned(),
        Action::Apply { version, .. } => format!("the Deployment of version {version}"),
        Action::Scale { version, replicas } => {
            format!("the size of the Deployment of version {version}: {replicas}")
        }
        Action::Route(Traffic::One(version)) => format!("the Service, which selects version {version}"),
        Action::Route(Traffic::Shared | Traffic::Nowhere) => {
            "the Service, which selects all versions".to_owned()
        }
        Action::Delete { version } => format!("the deletion of the Deployment of version {version}"),
        Action::Adopt(OwnObject::Budget) => "the owner of the PodDisruptionBudget".to_owned(),
        Action::Protect(_) => "the PodDisruptionBudget".to_owned(),
        Action::DeleteBudget => "the deletion of the PodDisruptionBudget".to_owned(),
        Action::Adopt(OwnObject::Service) => "the owner of the Service".to_owned(),
        Action::Adopt(OwnObject::Deployment(version)) => {
            format!("the owner of the Deployment of version {version}")
        }
        Action::DeleteService => "the deletion of the Service".to_owned(),
        Action::FillInReplicas { replicas } => format!("spec.serving.replicas: {replicas}"),
        Action::SmokeTest { version, .. } => format!("the smoke test of version {version}"),
        Action::SetAlias { version, .. } => {
            format!("the alias in the registry, which names version {version}")
        }
        Action::DeleteAlias { .. } => "the removal of the alias from the registry".to_owned(),
        Action::Record { version, .. } => format!("the audit tags of version {version}"),
    }
}

/// How many ready pods the decision counted on when it sent requests there.
fn counted_on(observed: &Observed, traffic: Traffic) -> u32 {
    let workloads = &observed.cluster.workloads;
    let selected = workloads.iter().filter(|(version, _)| traffic.reaches(**version));
    selected.map(|(_, workload)| workload.counted()).fold(0, u32::saturating_add).max(1)
}

async fn act(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    observed: &Observed,
    action: &Action,
) -> Result<Effect, ReasonMessage> {
    let now = observed.now;
    match action {
        Action::SetFinalizer { present } => {
            let (client, metadata) = (effects.client, subject.metadata());
            finalizer::set::<ModelAlias>(client, metadata, finalizer::REGISTRY_ALIAS, *present).await
        }
        Action::Apply { version, model_uri, replicas } => {
            let start = workloads::Start { version: *version, model_uri, replicas: *replicas, at: now };
            workloads::apply_deployment(effects, subject, start).await
        }
        Action::Scale { version, replicas } => {
            let begins = (*replicas > 0 && observed.is_at_rest(*version)).then_some(now);
            workloads::scale(effects, subject, *version, *replicas, begins).await
        }
        Action::SmokeTest { version, attempt } => {
            if let (Some(serving), Some(intent)) = (&subject.spec().serving, &observed.intent.serving) {
                let model = subject.known_model()?;
                effects.smoke.begin(smoke_tests::Request {
                    uid: subject.uid.clone(),
                    alias: subject.key.clone(),
                    version: *version,
                    attempt: attempt.clone(),
                    model: model.name.clone(),
                    registry: model.registry.clone(),
                    port: serving.port,
                    timeout: intent.smoke_test.timeout.unsigned_abs(),
                });
            }
            Ok(())
        }
        Action::Route(traffic) => {
            workloads::route(effects, subject, *traffic, counted_on(observed, *traffic)).await
        }
        Action::Delete { version } => workloads::delete_deployment(effects, subject, *version).await,
        Action::Protect(traffic) => return workloads::protect(effects, subject, *traffic).await,
        Action::DeleteBudget => workloads::delete_budget(effects, subject).await,
        Action::Adopt(object) => workloads::adopt(effects, subject, *object).await,
        Action::DeleteService => workloads::delete_service(effects, subject).await,
        Action::FillInReplicas { replicas } => workloads::fill_in_replicas(effects, subject, *replicas).await,
        Action::SetAlias { role, version, replaces, corrects: _ } => {
            return effects.alias_writes.start(
                subject,
                subject.known_model()?,
                *role,
                Some(*version),
                *replaces,
            );
        }
        // Only a deletion waits for the registry.
        Action::DeleteAlias { role: role @ AliasRole::Former, replaces }
            if observed.intent.lifecycle == Lifecycle::Active =>
        {
            let model = subject.known_model()?;
            let begun = effects.alias_writes.start(subject, model, *role, None, Some(*replaces));
            return begun.map(|_| Effect::UnderWay);
        }
        Action::DeleteAlias { role, replaces } => {
            alias_writes::delete_alias(
                effects.alias_writes,
                subject,
                subject.known_model()?,
                *role,
                *replaces,
            )
            .await
        }
        Action::Record { version: _, at } => {
            return Ok(effects.audit_writes.start(subject, subject.known_model()?, observed, *at));
        }
    }
    .map(|()| Effect::Done)
}
