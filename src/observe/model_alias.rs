//! Assembles the input of a decision about one ModelAlias.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use jiff::Timestamp;

use super::{
    awaited::Awaited,
    blockers::{Claimant, blocker, claimant, hides_registry},
    candidates::candidates,
    challengers,
    evidence::{self, similar},
    sources::Sources,
};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{AliasName, Version},
    },
    audit::was_live,
    cluster::{
        Readiness, pod_causes,
        watch::{BUDGETS, ROUTES},
    },
    decide::{
        AliasRole, Choice, ClusterView, FormerAlias, Observed, RegistryView, RouteView, VersionView, choose,
    },
    registry::{RegisteredModelFacts, VersionFacts, VersionState, limiter::Priority, polled::ModelView},
    resolve::{Model, Subject, follower},
    state::{ReadKey, Waiter},
};

/// Observes everything about a ModelAlias.
#[must_use]
pub fn observe(sources: &Sources<'_>, subject: &Subject<'_>, now: Timestamp) -> Observed {
    let blocker = blocker(sources, subject);
    let blocking = blocker.as_ref().filter(|blocker| hides_registry(blocker));
    let registry = match (&subject.model, blocking) {
        (Ok(model), None) => registry_view(sources, subject, model, now),
        (_, blocking) => {
            RegistryView { error: blocking.map(|blocker| blocker.cause.clone()), ..RegistryView::default() }
        }
    };
    let mut intent = subject.intent(blocker);
    if !sources.trusts_changed_by {
        intent.changed_by = None;
    }
    let rendering = subject.service_rendering();
    let smoke = |version| sources.smoke.of(&subject.uid, version);
    let mut cluster = sources.cluster.view(&subject.key, &subject.claim(), rendering.as_ref(), smoke);
    cluster.budget_is_unknown = !sources.readiness.knows(BUDGETS);
    cluster.route = route(sources, subject, cluster.route.take());
    let has_traffic = subject.spec().traffic.is_some() || subject.status.route_ref.is_some();
    if let Some(error) = route_error(sources.manages_routes, sources.readiness)
        .filter(|_| needs_routes(sources.manages_routes, has_traffic, &cluster))
    {
        cluster.route = None;
        cluster.route_error = Some(error);
    }
    cluster.challengers = challengers::challengers(sources, subject);
    cluster.champions = challengers::champions(sources, subject);
    explain_pods(sources, subject, &mut cluster);
    if let Some(serving) = intent.serving.as_mut().filter(|serving| serving.size_is_open) {
        serving.replicas = cluster.size(&subject.status);
    }
    let outbox = sources.audit_writes.outbox(&subject.uid, &subject.status);
    let live = sources.live.of(&subject.uid);
    let status = subject.status.clone();
    let mut observed = Observed { now, intent, registry, cluster, outbox, live, status };
    if let Ok(model) = &subject.model {
        evidence::gather(sources, &mut observed, subject, model);
        evidence::gather_drift(&mut observed, model);
    }
    observed
}

/// Returns the route that shares the requests. One that Laurel rendered goes before that of somebody else is
/// used.
fn route(sources: &Sources<'_>, subject: &Subject<'_>, rendered: Option<RouteView>) -> Option<RouteView> {
    if rendered.is_some() && subject.status.route_ref.is_none() {
        return rendered;
    }
    let Some(referral) = subject.referral() else { return rendered };
    let route = referral.route(sources.cluster)?;
    Some(route.view(&referral.referrer(&route, sources.aliases)))
}

/// Whether it matters that HTTPRoutes cannot be used. Without `spec.traffic`, nothing is to be managed where
/// Laurel manages no HTTPRoutes, unless one may be left.
fn needs_routes(manages_routes: bool, has_traffic: bool, cluster: &ClusterView) -> bool {
    manages_routes || has_traffic || !cluster.version_services.is_empty()
}

/// Returns why HTTPRoutes cannot be used.
fn route_error(manages_routes: bool, readiness: &Readiness) -> Option<ReasonMessage> {
    let why = if !manages_routes {
        "this Laurel does not manage HTTPRoutes; install it with gatewayAPI.enabled, or, where spec.traffic was \
         removed, delete the HTTPRoute and then the Services of the versions (one of your own: let it name \
         the Service with the name of this ModelAlias again)"
            .to_owned()
    } else if readiness.knows(ROUTES) {
        return None;
    } else {
        let error = readiness.error_of(ROUTES).unwrap_or_else(|| "they have not been read".to_owned());
        format!(
            "Laurel cannot watch HTTPRoutes ({error}); install the CRDs of the Gateway API, and compare Laurel's \
             role with the chart's"
        )
    };
    let message = format!(
        "spec.traffic: {why}; until then Laurel moves traffic by the Service alone, and a canary waits"
    );
    Some(ReasonMessage::new(Reason::TrafficUnsupported, message))
}

/// Adds what Events say about pods that are not ready, as far as it has been read, and has them read again.
fn explain_pods(sources: &Sources<'_>, subject: &Subject<'_>, cluster: &mut ClusterView) {
    let (uid, events) = (&subject.uid, sources.pod_events);
    let awaited = sources.cluster.awaited_pods(&subject.key, &subject.claim());
    events.follow(uid, &subject.key, &awaited);
    pod_causes::explain(cluster, &awaited, |pod| events.of(uid, pod));
}

/// Returns the state of the aliases and of every relevant version in the registry.
fn registry_view(
    sources: &Sources<'_>,
    subject: &Subject<'_>,
    model: &Model,
    now: Timestamp,
) -> RegistryView {
    let status = &subject.status;
    let facts = match model.registry.model(&model.name) {
        ModelView::Unknown(error) => {
            return RegistryView { error: Some(error), ..RegistryView::default() };
        }
        ModelView::Absent => {
            let message = format!(
                "the model {:?} does not exist in the registry; see the conditions of its RegisteredModel",
                model.name.as_str()
            );
            return RegistryView {
                error: Some(ReasonMessage::new(Reason::ModelNotFound, message)),
                ..RegistryView::default()
            };
        }
        ModelView::Present(facts) => facts,
    };
    let spec = subject.spec();
    let named = facts.aliases.get(&spec.alias).copied();
    let follower = follower(spec);
    let candidates = follower.as_ref().map(|follower| candidates(follower, model)).unwrap_or_default();
    let desired = match follower.map(|follower| choose(&follower, &candidates)) {
        Some(Choice::Version(version)) => Some(version),
        Some(Choice::Unknown(_)) => status.target_version,
        Some(Choice::Nobody(_)) => None,
        None => spec.version.or(named),
    };
    let previous = spec.previous_alias.as_ref().and_then(|alias| facts.aliases.get(alias).copied());
    let mut awaited = Awaited::new(now);
    let recorded = [status.target_version, status.version, status.previous_version];
    let wanted: BTreeSet<Version> =
        [desired, named, previous].into_iter().chain(recorded).flatten().collect();
    let is_pinned =
        |version| status.versions.iter().any(|held| held.version == version && held.model_uri.is_some());
    let view = |version| {
        // An error is of interest only where the version cannot be started without an answer.
        let is_needed = desired == Some(version) && !is_pinned(version);
        let priority = if is_needed { Priority::Decision } else { Priority::Poll };
        let view = match version_view_of(sources, subject, model, &facts, version, priority) {
            Ok(view) => view,
            Err(begun) => {
                if is_needed {
                    awaited.add(begun);
                }
                return None;
            }
        };
        (is_needed || !matches!(view, VersionView::Unread(_))).then_some((version, view))
    };
    let versions = wanted.into_iter().filter_map(view).collect();
    RegistryView {
        error: None,
        alias: named,
        previous_alias: previous,
        former_alias: former_alias(sources, subject, model, &facts.aliases),
        versions,
        candidates,
        similar_alias: if named.is_none() { similar(&spec.alias, &facts) } else { None },
        similar_aliases: BTreeMap::new(),
        reading_since: awaited.since(),
        aliases: BTreeMap::new(),
        evidence: BTreeMap::new(),
        drift: BTreeMap::new(),
        written: sources.alias_writes.last_written(&subject.uid, AliasRole::Main),
        previous_written: sources.alias_writes.last_written(&subject.uid, AliasRole::Previous),
        writing: sources.alias_writes.running(&subject.uid),
    }
}

/// What the registry says of the alias that the spec does not name any more. While a write runs, that is not
/// known: it may be one of this alias.
fn former_alias(
    sources: &Sources<'_>,
    subject: &Subject<'_>,
    model: &Model,
    aliases: &BTreeMap<AliasName, Version>,
) -> Option<FormerAlias> {
    let former = subject.former_alias()?;
    match claimant(sources, subject, model, former) {
        Claimant::Known => return Some(FormerAlias::Claimed),
        Claimant::Possible { by } => return Some(FormerAlias::MayBeClaimed { by }),
        Claimant::None => {}
    }
    let is_known = sources.alias_writes.running(&subject.uid).is_empty();
    is_known.then(|| FormerAlias::Names(aliases.get(former).copied()))
}

/// Returns the state of a version in the registry. What is not known is read beside the reconcile, and wakes
/// it.
///
/// # Errors
/// When that read was begun.
fn version_view_of(
    sources: &Sources<'_>,
    subject: &Subject<'_>,
    model: &Model,
    facts: &RegisteredModelFacts,
    version: Version,
    priority: Priority,
) -> Result<VersionView, Instant> {
    let alias = &subject.spec().alias;
    let (registry, name) = (model.registry.clone(), model.name.clone());
    let key = ReadKey::version(&registry, facts, version, priority);
    let remembered = registry.remembered_version(&name, version).map(Ok);
    let read = async move { registry.read_version(&name, version, priority).await };
    Ok(match sources.version_reads.last(key, &Waiter::Alias(subject.key.clone()), remembered, read)? {
        Ok(facts) => version_view(alias, facts),
        Err(cause) => VersionView::Unread(cause),
    })
}

fn version_view(alias: &AliasName, facts: Option<VersionFacts>) -> VersionView {
    match facts {
        None => VersionView::Absent,
        Some(facts) => match facts.state {
            VersionState::Pending => VersionView::Pending,
            VersionState::Failed => VersionView::Failed,
            VersionState::Ready => {
                VersionView::Ready { model_uri: facts.model_uri, was_live: was_live(alias, &facts.tags) }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::VersionService;

    #[test]
    fn an_operator_without_routes_says_what_to_do_about_one_that_may_be_left_behind() {
        let readiness = Readiness::default();
        let mut cluster = ClusterView::default();
        assert!(!needs_routes(false, false, &cluster), "no traffic was ever shared");
        cluster.version_services.insert(Version::new(1).unwrap(), VersionService::default());
        assert!(needs_routes(false, false, &cluster), "a route may name this Service");
        let error = route_error(false, &readiness).unwrap();
        assert_eq!(error.reason, Reason::TrafficUnsupported);
        for part in ["gatewayAPI.enabled", "delete the HTTPRoute and then the Services of the versions"] {
            assert!(error.message.contains(part), "{part:?} is missing: {}", error.message);
        }
        readiness.expect(ROUTES);
        let error = route_error(true, &readiness).unwrap();
        assert!(
            error.message.contains("cannot watch HTTPRoutes (they have not been read)"),
            "{}",
            error.message
        );
        readiness.read(ROUTES);
        assert_eq!(route_error(true, &readiness), None);
    }
}
