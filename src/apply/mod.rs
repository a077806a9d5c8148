//! Performs a decision's actions in order.
//!
//! Each action is safe to repeat. One that fails ends the reconcile, because later ones may depend on it, and
//! the next reconcile decides again from the state it finds. Only what is known not to matter to later ones
//! does not hold them up: see [`Action::needs`].
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: writes to the cluster and to registries"
)]

mod budget;
mod deletion;
mod deployments;
pub mod experiment;
mod meter;
mod place;
mod referred_route;
pub mod registered_model;
mod routes;
mod workloads;

use kube::{Client, runtime::reflector::Store};

use crate::{
    api::{
        ModelAlias,
        condition::{Reason, ReasonMessage},
    },
    cluster::{Events, Guarded, cache::Cache, finalizer},
    decide::{Action, Decision, LiveReport, Observed, OwnObject, Traffic},
    resolve::Subject,
    state::{
        Effect, Meters, Throttle,
        alias_writes::AliasWrites,
        audit_writes::AuditWrites,
        counted::Source,
        live::{self, LiveWatches},
        smoke_tests::{self, SmokeTests},
    },
    status::{Applied, NewEvent},
    telemetry::metrics::{ActionOutcome, Metrics},
};

/// The part of the context that actions need.
#[derive(Clone, Copy)]
pub struct Effects<'a> {
    /// The client for the cluster.
    pub client: &'a Client,
    /// The cache of our own objects; updated with every write.
    pub cluster: &'a Cache,
    /// The smoke tests.
    pub smoke: &'a SmokeTests,
    /// The versions that are judged by their live traffic.
    pub live: &'a LiveWatches,
    /// Alias writes in progress.
    pub alias_writes: &'a AliasWrites,
    /// Audit writes in progress.
    pub audit_writes: &'a AuditWrites,
    /// Where the meter was written lately.
    pub meters: &'a Meters,
    /// Limits repeated writes.
    pub throttle: &'a Throttle,
    /// The metrics.
    pub metrics: &'a Metrics,
    /// Publishes Events.
    pub events: &'a Events,
    /// All `ModelAliases`.
    pub aliases: &'a Store<Guarded<ModelAlias>>,
}

/// Performs the actions in order, except for those that need one that failed or has to wait.
pub async fn apply(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    observed: &Observed,
    decision: &Decision,
) -> Applied {
    effects.smoke.keep_only(&subject.uid, decision.smoke_test.as_ref());
    follow_live(effects, subject, decision);
    let mut applied = Applied::default();
    let mut unmet: Vec<&Action> = Vec::new();
    for action in &decision.actions {
        if unmet.iter().any(|unmet| action.needs(unmet)) {
            continue;
        }
        if let Some(pause) = effects.throttle.pause(&subject.uid, action) {
            applied.postponed = Some(applied.postponed.map_or(pause, |other| other.min(pause)));
            unmet.push(action);
            continue;
        }
        if let Some(cause) = effects.throttle.rejection(&subject.uid, action) {
            applied.failed(action, cause);
            unmet.push(action);
            continue;
        }
        match act(effects, subject, observed, action).await {
            Ok(Effect::Done) => {
                tracing::info!(?action, "action applied");
                effects.metrics.action(action, ActionOutcome::Done);
                if effects.throttle.done(&subject.uid, action) {
                    report_contention(effects, subject, observed, action);
                }
                applied.done.push(action.clone());
            }
            Ok(Effect::Begun) => {
                tracing::info!(?action, "action begun");
                effects.metrics.action(action, ActionOutcome::Begun);
                applied.begun.push(action.clone());
            }
            Ok(Effect::UnderWay) => {}
            Err(cause) => {
                tracing::warn!(?action, reason = %cause.reason, message = cause.message, "action failed");
                effects.metrics.action(action, ActionOutcome::Failed);
                effects.throttle.rejected(&subject.uid, action, &cause);
                applied.failed(action, cause);
                unmet.push(action);
            }
        }
    }
    applied
}

/// Judges the version that the decision wants to be judged by its traffic, and no other.
fn follow_live(effects: &Effects<'_>, subject: &Subject<'_>, decision: &Decision) {
    let source = subject.spec().serving.as_ref().and_then(Source::of);
    match decision.live.clone().zip(source) {
        Some((watch, source)) => {
            let (uid, alias) = (subject.uid.clone(), subject.key.clone());
            effects.live.follow(live::Request { uid, alias, watch, source });
        }
        // While work is suspended or blocked, evidence is kept.
        None if decision.report.live == LiveReport::Unchanged => {}
        None => effects.live.forget(&subject.uid),
    }
}

/// Reports that another client keeps reverting what Laurel writes.
fn report_contention(effects: &Effects<'_>, subject: &Subject<'_>, observed: &Observed, action: &Action) {
    let what: &str = action.into();
    let message = format!(
        "another client{} keeps reverting what Laurel writes ({}): see who else writes this ModelAlias's \
         Services, HTTPRoute, PodDisruptionBudget or Deployments (kubectl get -o yaml --show-managed-fields), and stop it",
        other_writer(observed, action),
        described(action)
    );
    tracing::warn!(message, "write contested");
    let reason = Reason::Contested.to_string();
    effects.events.publish(
        subject.reference(),
        vec![NewEvent { warning: true, reason, action: what.to_owned(), message }],
    );
}

/// Names the client that wrote the route of somebody else last.
fn other_writer(observed: &Observed, action: &Action) -> String {
    let route = observed.cluster.route.as_ref().and_then(|route| route.referred.as_ref());
    let route = route.filter(|_| matches!(action, Action::Share(_)));
    let writer = route.and_then(|route| Some((route.written_by.as_ref()?, &route.name)));
    writer.map_or_else(String::new, |(by, name)| {
        format!(", {by:?} by its field manager in the HTTPRoute {name:?},")
    })
}

/// Describes what an action writes, for people.
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
        Action::Share(_) => "the HTTPRoute".to_owned(),
        Action::DeleteRoute => "the deletion of the HTTPRoute".to_owned(),
        Action::ApplyVersionService { version } => format!("the Service of version {version}"),
        Action::DeleteVersionService { version } => {
            format!("the deletion of the Service of version {version}")
        }
        Action::Adopt(OwnObject::Route) => "the owner of the HTTPRoute".to_owned(),
        Action::Adopt(OwnObject::VersionService(version)) => {
            format!("the owner of the Service of version {version}")
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
        Action::DeleteAlias { .. } => "the deletion of the alias from the registry".to_owned(),
        Action::WriteAudit { version, .. } => format!("the audit tags of version {version}"),
    }
}

/// Returns the number of ready pods that the decision to route traffic there was based on.
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
            let start = deployments::Start { version: *version, model_uri, replicas: *replicas, at: now };
            deployments::apply_deployment(effects, subject, start).await
        }
        Action::Scale { version, replicas } => {
            let begins = (*replicas > 0 && observed.is_at_rest(*version)).then_some(now);
            deployments::scale(effects, subject, *version, *replicas, begins).await
        }
        Action::SmokeTest { version, attempt } => {
            if let (Some(serving), Some(intent)) = (&subject.spec().serving, &observed.intent.serving) {
                let model = subject.known_model()?;
                let has_begun = effects.smoke.begin(smoke_tests::Request {
                    uid: subject.uid.clone(),
                    alias: subject.key.clone(),
                    version: *version,
                    attempt: attempt.clone(),
                    model: model.name.clone(),
                    registry: model.registry.clone(),
                    port: serving.port,
                    timeout: intent.smoke_test.timeout.unsigned_abs(),
                });
                return Ok(if has_begun { Effect::Begun } else { Effect::UnderWay });
            }
            Ok(())
        }
        Action::Route(traffic) => {
            workloads::route(effects, subject, *traffic, counted_on(observed, *traffic)).await
        }
        Action::Share(shares) => routes::share(effects, subject, observed, shares).await,
        Action::DeleteRoute => routes::delete_route(effects, subject).await,
        Action::ApplyVersionService { version } => {
            routes::apply_version_service(effects, subject, *version).await
        }
        Action::DeleteVersionService { version } => {
            routes::delete_version_service(effects, subject, *version).await
        }
        Action::Delete { version } => deployments::delete_deployment(effects, subject, *version).await,
        Action::Protect(traffic) => return budget::protect(effects, subject, *traffic).await,
        Action::DeleteBudget => budget::delete_budget(effects, subject).await,
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
        Action::DeleteAlias { role, replaces } => {
            let model = subject.known_model()?;
            return effects.alias_writes.start(subject, model, *role, None, Some(*replaces));
        }
        Action::WriteAudit { version: _, at } => {
            return Ok(effects.audit_writes.start(subject, subject.known_model()?, observed, *at));
        }
    }
    .map(|()| Effect::Done)
}
