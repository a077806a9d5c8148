//! The next status of a ModelAlias.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    Applied,
    history::{add_history, cause, entry_of, remember_audit},
    kstatus, live,
};
use crate::{
    api::{
        ModelAliasStatus, RegistryStatus,
        condition::{
            ConditionStatus, ConditionType, DesiredCondition, Reason, ReasonMessage, merge_conditions,
            shortened,
        },
        model_alias::{
            AcceptedRoute, Cause, HistoryEntry, KeptAlias, KnownVersion, Outcome, PUT_BACK_MAX, Rejection,
            SmokeTestOutcome, TrafficShare,
        },
        names::{ModelUri, Version},
    },
    decide::{
        Action, CONTENTION, Decision, Desired, DriftReport, FormerAlias, GatesReport, LiveReport, Observed,
        Readiness, Shares, SmokeReport, Traffic, Workload,
    },
};

/// Maximum length of a rejection message in the history.
const WHY_MAX: usize = 500;
const REJECTED_MAX: usize = 5;

/// The parts of a status about the object itself, beside the decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectStatus {
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// The registry, if known.
    pub registry: Option<RegistryStatus>,
    /// The model's name in the registry, if known.
    pub model_name: Option<String>,
    /// The URL for predictions; `None` without `spec.serving`.
    pub endpoint: Option<String>,
    /// The selector of a version's pods, as text.
    pub selector: Option<String>,
}

/// Returns the status after `applied`. If nothing but time has changed, it equals the previous one.
#[must_use]
pub fn next(
    observed: &Observed,
    decision: &Decision,
    applied: &Applied,
    identity: &SubjectStatus,
) -> ModelAliasStatus {
    let mut status = observed.status.clone();
    if is_about_to_know_more(observed, decision, applied) {
        return status;
    }
    let now = observed.now;
    status.observed_generation = identity.generation;
    status.model_name = identity.model_name.clone().or(status.model_name);
    status.registry = identity.registry.clone().or(status.registry);
    if observed.intent.serving.is_none() && status.target_version != decision.target {
        status.registry_version = None;
    }
    status.target_version = decision.target;
    remember_workloads(observed, applied, &mut status);
    remember_audit(observed, &mut status);
    remember_rejection(observed, decision, &mut status);
    remember_traffic(observed, applied, &mut status);
    remember_route(observed, applied, &mut status);
    status.route_ref = observed.next_route_ref();
    status.canary.clone_from(&decision.canary);
    status.watch = live::watch(observed, decision);
    status.approval.clone_from(&decision.approval);
    remember_start(observed, decision, applied, &mut status);
    remember_registry(observed, decision, &mut status);
    remember_previous_alias(observed, decision, &mut status);
    remember_contention(observed, decision, applied, &mut status);
    release_rejections(observed, decision, &mut status);
    if observed.retry_is_asked() {
        status.retried.clone_from(&observed.intent.retry);
    }
    describe_serving(observed, identity, &mut status);
    status.conditions = merge_conditions(
        &status.conditions,
        conditions(&observed.status.conditions, decision, applied),
        identity.generation,
        now,
    );
    let is_suspended = matches!(decision.report.readiness, Readiness::Suspended(_));
    for (type_, stays) in [
        (ConditionType::GatesPassed, decision.report.gates != GatesReport::NoRules),
        (ConditionType::LiveRulesPassed, live::keeps_condition(observed, &decision.report.live)),
        (ConditionType::InputsAsTrained, decision.report.drift != DriftReport::NoRule),
        (ConditionType::TrafficSplit, decision.report.traffic.is_some()),
        (ConditionType::Suspended, is_suspended),
    ] {
        let type_: &str = type_.into();
        status.conditions.retain(|condition| stays || condition.type_ != type_);
    }
    status
}

/// Whether there is nothing to report but that an answer of the registry is awaited, which comes at any
/// moment. A new object is reported at once, and so is what has to be in the status before anything is done.
fn is_about_to_know_more(observed: &Observed, decision: &Decision, applied: &Applied) -> bool {
    let waits = matches!(&decision.report.readiness, Readiness::Progressing(cause)
        if cause.reason == Reason::RegistryNotRead);
    waits
        && observed.reading_until().is_some()
        && observed.status.observed_generation.is_some()
        && !observed.desired_is_new()
        && decision.rejection.is_none()
        && *applied == Applied::default()
}

/// Keeps one entry for each existing Deployment.
fn remember_workloads(observed: &Observed, applied: &Applied, status: &mut ModelAliasStatus) {
    let mut identities: Vec<(Version, ModelUri)> = observed
        .cluster
        .workloads
        .iter()
        .map(|(version, workload)| (*version, workload.model_uri.clone()))
        .collect();
    for action in &applied.done {
        match action {
            Action::Apply { version, model_uri, .. } => {
                identities.retain(|(known, _)| known != version);
                identities.push((*version, model_uri.clone()));
            }
            Action::Delete { version } => identities.retain(|(known, _)| known != version),
            _ => {}
        }
    }
    let serves = observed.serves();
    status.versions.retain(|held| {
        identities.iter().any(|(version, _)| *version == held.version) || Some(held.version) == serves
    });
    for (version, model_uri) in identities {
        entry(status, version).model_uri = Some(model_uri);
    }
    status.versions.sort_by_key(|held| std::cmp::Reverse(held.version));
}

fn entry(status: &mut ModelAliasStatus, version: Version) -> &mut KnownVersion {
    let known = status.versions.iter().position(|held| held.version == version);
    let index = known.unwrap_or_else(|| {
        status.versions.push(KnownVersion {
            version,
            model_uri: None,
            started_at: None,
            settings: None,
            served_at: None,
            idle_since: None,
            smoke_test: None,
        });
        status.versions.len() - 1
    });
    &mut status.versions[index]
}

/// Updates start times and smoke test results.
///
/// A version that is scaled to zero or serves in full has no start: later events do not count from an earlier
/// start.
fn remember_start(
    observed: &Observed,
    decision: &Decision,
    applied: &Applied,
    status: &mut ModelAliasStatus,
) {
    let now = observed.now;
    let retried = decision.target.filter(|_| observed.retry_is_asked());
    for held in &mut status.versions {
        let workload = observed.cluster.workloads.get(&held.version);
        let before = workload.map_or(0, |workload| workload.desired);
        let sized = applied.done.iter().rev().find_map(|action| match action {
            Action::Apply { version, replicas, .. } if *version == held.version => Some((*replicas, true)),
            Action::Scale { version, replicas } if *version == held.version => Some((*replicas, false)),
            _ => None,
        });
        let (after, renewed) = sized.unwrap_or((before, false));
        let settings = match (&observed.intent.serving, workload) {
            (Some(serving), _) if renewed => serving.settings.clone(),
            (_, workload) => workload.map(|workload| workload.settings.clone()),
        };
        let other = held.settings != settings;
        // The reconcile that started it was cut short: the Deployment has the time.
        let is_unwritten = held.settings.is_none() && held.started_at.is_none() && held.served_at.is_none();
        let begun = workload.and_then(|workload| workload.started_at).filter(|_| is_unwritten);
        held.settings = settings;
        let complete = held.served_at.is_some() && workload.is_some_and(|workload| workload.rolled_out);
        held.started_at = match held.started_at {
            _ if after == 0 => None,
            _ if renewed || (before == 0 && after > 0) || retried == Some(held.version) => Some(now),
            _ if complete => None,
            _ if other => Some(begun.unwrap_or(now)),
            Some(started) => Some(started),
            None => Some(now),
        };
        held.smoke_test = match observed.smoke_report(held.version) {
            _ if renewed => None,
            Some(SmokeReport::Passed) => Some(SmokeTestOutcome::Passed),
            Some(SmokeReport::NoInputExample) => Some(SmokeTestOutcome::NoInputExample),
            _ => held.smoke_test,
        };
    }
}

/// Updates traffic: the serving version, the previous one, and when traffic left a version.
fn remember_traffic(observed: &Observed, applied: &Applied, status: &mut ModelAliasStatus) {
    let now = observed.now;
    let routed = applied.done.iter().rev().find_map(|action| match action {
        Action::Route(traffic) => Some(*traffic),
        Action::DeleteService => Some(Traffic::Nowhere),
        _ => None,
    });
    let traffic = routed.unwrap_or(observed.cluster.traffic);
    let (Traffic::One(serves), true) = (traffic, observed.intent.serving.is_some()) else { return };
    // The selected version counts once it answers: somebody else may have pointed the Service there.
    if !observed.is_ready(serves) {
        return;
    }
    if status.version != Some(serves) {
        let is_given_up = status.rejected.iter().any(|rejection| {
            rejection.active
                && rejection.reason == Reason::Regressed
                && status.version == Some(rejection.version)
        });
        let fails_over =
            status.target_version != Some(serves) && (is_given_up || !observed.somebody_answers());
        let returns = status.versions.iter().any(|held| held.version == serves && held.served_at.is_some());
        let held = status.versions.iter().find(|held| held.version == serves);
        // The Deployment has a start time that the status lacks. Without any status, traffic may have moved
        // long ago.
        let is_known = routed.is_some() || observed.status.target_version == Some(serves);
        let workload = || observed.cluster.workloads.get(&serves).filter(|_| is_known)?.started_at;
        let duration = held
            .and_then(|held| held.started_at)
            .or_else(workload)
            .filter(|_| !returns)
            .and_then(|started| Duration::try_from(now.duration_since(started)).ok());
        let entry = HistoryEntry {
            duration: duration.map(|duration| {
                Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).into()
            }),
            ..entry_of(
                observed,
                status,
                serves,
                if fails_over { Cause::Failure } else { cause(observed) },
                if returns { Outcome::RolledBack } else { Outcome::Promoted },
            )
        };
        add_history(status, entry);
        status.previous_version = status.version;
        status.version = Some(serves);
        status.registry_version = None;
    }
    for held in &mut status.versions {
        if held.version == serves {
            held.served_at.get_or_insert(now);
            held.idle_since = None;
        } else if held.served_at.is_some() && observed.cluster.traffic == Traffic::One(held.version) {
            held.idle_since = Some(now);
        } else if held.served_at.is_some() {
            held.idle_since.get_or_insert(now);
        }
    }
}

/// Updates the shares, and when the parents accepted the route as it is. While a route cannot be seen, the
/// last that was known of it counts.
fn remember_route(observed: &Observed, applied: &Applied, status: &mut ModelAliasStatus) {
    let written = applied.done.iter().rev().find_map(|action| match action {
        Action::Share(shares) => Some(shares),
        _ => None,
    });
    let route = observed.cluster.route.as_ref();
    if let Some(shares) = written.or_else(|| route.map(|route| &route.shares)) {
        status.traffic = traffic_shares(observed, shares);
        status.shares = Some(in_one_line(&status.traffic)).filter(|line| !line.is_empty());
    } else if observed.cluster.route_error.is_none() && !observed.renders_route() {
        status.traffic.clear();
        status.shares = None;
        status.route = None;
    }
    let is_pending = route.is_some_and(|route| route.pending.is_some());
    let since = status.route_pending_since.unwrap_or(observed.now);
    status.route_pending_since = is_pending.then_some(since);
    let Some(route) = route.filter(|route| route.pending.is_none()) else { return };
    if status.route.as_ref().is_none_or(|known| known.revision != route.revision) {
        status.route = Some(AcceptedRoute { revision: route.revision.clone(), at: observed.now });
    }
}

/// Returns the shares as a list. A challenger is listed with the version that its Service selects, also if it
/// only gets copies.
fn traffic_shares(observed: &Observed, shares: &Shares) -> Vec<TrafficShare> {
    // The Service with the ModelAlias's name leads to what it selects.
    let selected = observed.serves().filter(|_| shares.follow_service());
    let own = |version| TrafficShare {
        alias_ref: None,
        version,
        weight: if selected == Some(version) {
            shares.per_cent(version) + shares.per_cent_of(shares.service())
        } else {
            shares.per_cent(version)
        },
        mirror: shares.mirrored_to(version),
    };
    let challenger = |name: &String| {
        let version = observed.cluster.challengers.get(name)?.service?.version;
        Some(TrafficShare {
            alias_ref: Some(name.clone()),
            version,
            weight: shares.challengers().get(name).map_or(0, |share| shares.per_cent_of(share.weight)),
            mirror: shares.shadows().get(name).map(|shadow| shadow.per_cent),
        })
    };
    let copied = shares.mirror().map(|mirror| mirror.version);
    let versions: BTreeSet<Version> =
        shares.iter().map(|(version, _)| version).chain(copied).chain(selected).collect();
    let challengers = shares.named_challengers().into_iter().filter_map(challenger);
    versions.into_iter().map(own).chain(challengers).collect()
}

/// Returns the shares for a column: `4: 95 %; 5: 5 %; fraud-challenger 7: 10 %`.
fn in_one_line(traffic: &[TrafficShare]) -> String {
    let share = |share: &TrafficShare| {
        let TrafficShare { alias_ref, version, weight, mirror } = share;
        let alias = alias_ref.as_ref().map_or_else(String::new, |name| format!("{name} "));
        match mirror {
            Some(mirror) => format!("{alias}{version}: {weight} %, copies of {mirror} %"),
            None => format!("{alias}{version}: {weight} %"),
        }
    };
    traffic.iter().map(share).collect::<Vec<_>>().join("; ")
}

/// Returns the version that the alias named when it was last read to match the serving version.
fn remember_registry(observed: &Observed, decision: &Decision, status: &mut ModelAliasStatus) {
    let Some(named) = observed.registry.alias.filter(|_| observed.registry.error.is_none()) else { return };
    if observed.intent.serving.is_none()
        && !decision.report.gates.holds_back()
        && status.target_version == Some(named)
        && status.version != Some(named)
    {
        let entry = entry_of(observed, status, named, cause(observed), Outcome::Promoted);
        add_history(status, entry);
        status.previous_version = status.version;
        status.version = Some(named);
    }
    if status.version == Some(named) {
        status.registry_version = Some(named);
    }
}

/// How many versions are kept for an alias that the registry does not name as it should.
const KEPT_VERSIONS_MAX: usize = 10;

/// The alias that is kept on what served before. It is written down before the registry is, and forgotten
/// when the registry does not name what Laurel set any more.
fn remember_previous_alias(observed: &Observed, decision: &Decision, status: &mut ModelAliasStatus) {
    let registry = &observed.registry;
    if observed.former_alias().is_some() {
        let is_known = registry.error.is_none()
            && matches!(registry.former_alias, Some(FormerAlias::Claimed | FormerAlias::Names(_)));
        if !is_known || observed.former_alias_names().is_some() {
            return;
        }
        status.previous_alias = None;
    }
    let Some(alias) = &observed.intent.previous_alias else { return };
    let is_ahead = observed.intent.serving.is_none() && decision.target.is_some();
    let previous = status
        .version
        .filter(|version| is_ahead && decision.target != Some(*version))
        .or(status.previous_version);
    let kept =
        status.previous_alias.get_or_insert_with(|| KeptAlias { alias: alias.clone(), versions: Vec::new() });
    if registry.error.is_none() {
        kept.versions.retain(|version| registry.previous_alias == Some(*version));
    }
    if let Some(previous) = previous {
        kept.versions.retain(|version| *version != previous);
        kept.versions.insert(0, previous);
    }
    kept.versions.truncate(KEPT_VERSIONS_MAX);
}

/// Updates when the alias was recently put back.
fn remember_contention(
    observed: &Observed,
    decision: &Decision,
    applied: &Applied,
    status: &mut ModelAliasStatus,
) {
    let now = observed.now;
    let other_desired =
        observed.intent.desired != Desired::Registry && decision.target != observed.status.target_version;
    let forgotten = |at: &Timestamp| now.duration_since(*at) >= CONTENTION;
    let agrees = observed.registry.alias.is_some() && observed.registry.alias == status.registry_version;
    let is_over = agrees && status.put_back_at.first().is_some_and(forgotten);
    if other_desired || is_over || observed.retry_is_asked() {
        status.put_back_at.clear();
    }
    if applied.begun.iter().any(|action| matches!(action, Action::SetAlias { corrects: true, .. })) {
        status.put_back_at.retain(|at| !forgotten(at));
        status.put_back_at.insert(0, now);
        status.put_back_at.truncate(PUT_BACK_MAX);
    }
}

/// Old rejections become inactive once another version is requested, or a retry.
fn release_rejections(observed: &Observed, decision: &Decision, status: &mut ModelAliasStatus) {
    let asked = observed.retry_is_asked();
    let is_old = |rejection: &&mut Rejection| decision.rejection.as_ref() != Some(&**rejection);
    for rejection in status.rejected.iter_mut().filter(is_old) {
        let another = decision.target.is_some_and(|target| target != rejection.version);
        let is_let_in = rejection.reason == Reason::GatesFailed && decision.report.gates.lets_in();
        if rejection.active && (another || asked || is_let_in) {
            rejection.active = false;
            if let Some(held) = status.versions.iter_mut().find(|held| held.version == rejection.version) {
                held.started_at = None;
            }
        }
    }
}

/// A new rejection is active.
fn remember_rejection(observed: &Observed, decision: &Decision, status: &mut ModelAliasStatus) {
    let Some(rejection) = &decision.rejection else { return };
    let known = |other: &Rejection| {
        other.version == rejection.version && other.active && other.settings == rejection.settings
    };
    if status.rejected.iter().any(known) {
        return;
    }
    status.rejected.retain(|other| other.version != rejection.version);
    status.rejected.insert(0, rejection.clone());
    status.rejected.truncate(REJECTED_MAX);
    let cause = if rejection.reason == Reason::BecameUnready { Cause::Failure } else { cause(observed) };
    let entry = HistoryEntry {
        from: observed.serves().filter(|serves| *serves != rejection.version),
        at: rejection.at,
        reason: Some(rejection.reason),
        message: Some(shortened(&rejection.message, WHY_MAX)),
        ..entry_of(observed, status, rejection.version, cause, Outcome::Rejected)
    };
    add_history(status, entry);
}

fn describe_serving(observed: &Observed, identity: &SubjectStatus, status: &mut ModelAliasStatus) {
    status.endpoint.clone_from(&identity.endpoint);
    status.selector.clone_from(&identity.selector);
    if observed.intent.serving.is_none() {
        status.replicas = None;
        status.ready_replicas = None;
        return;
    }
    status.desired_replicas = observed.intent.serving.as_ref().map(|serving| serving.replicas);
    // A manual edit can set the largest number that the Deployment's field holds; the sum must not overflow.
    let total = |of: fn(&Workload) -> u32| {
        let workloads = observed.counted_workloads().map(of);
        Some(workloads.fold(0, u32::saturating_add).min(i32::MAX.unsigned_abs()))
    };
    status.replicas = total(|workload| workload.desired);
    status.ready_replicas = total(|workload| workload.ready);
}

/// Suspension is not a failure: `Ready` and other conditions of the rollout stay as they were. An object
/// without `Ready` gets one that is unknown.
fn suspended(before: &[Condition], cause: &ReasonMessage) -> Vec<DesiredCondition> {
    let condition = |type_, status| DesiredCondition { type_, status, cause: cause.clone() };
    let mut conditions = vec![
        condition(ConditionType::Reconciling, ConditionStatus::False),
        condition(ConditionType::Stalled, ConditionStatus::False),
        condition(ConditionType::Suspended, ConditionStatus::True),
    ];
    if !has_condition(before, ConditionType::Ready) {
        conditions.push(condition(ConditionType::Ready, ConditionStatus::Unknown));
    }
    conditions
}

fn has_condition(conditions: &[Condition], type_: ConditionType) -> bool {
    let name: &str = type_.into();
    conditions.iter().any(|condition| condition.type_ == name)
}

/// What serves without a PodDisruptionBudget serves, and its status says so.
fn with_protection(readiness: Readiness, applied: &Applied) -> Readiness {
    match (readiness, &applied.unprotected) {
        (Readiness::Settled(cause), Some(unprotected)) => Readiness::Settled(ReasonMessage {
            message: format!("{}; not protected from disruption: {}", cause.message, unprotected.message),
            ..cause
        }),
        (readiness, _) => readiness,
    }
}

fn conditions(before: &[Condition], decision: &Decision, applied: &Applied) -> Vec<DesiredCondition> {
    let report = &decision.report;
    let readiness = match &applied.failure {
        Some(_) if matches!(report.readiness, Readiness::Stalled(_)) => report.readiness.clone(),
        Some(failure) if failure.reason.is_transient() => Readiness::Progressing(failure.clone()),
        Some(failure) => Readiness::Stalled(failure.clone()),
        None => with_protection(report.readiness.clone(), applied),
    };
    let condition = |type_, (status, cause): &(ConditionStatus, ReasonMessage)| DesiredCondition {
        type_,
        status: *status,
        cause: cause.clone(),
    };
    if let Readiness::Suspended(cause) = &readiness {
        let mut conditions = suspended(before, cause);
        conditions.push(condition(ConditionType::Serving, &report.serving));
        conditions.extend(report.traffic.iter().map(|split| condition(ConditionType::TrafficSplit, split)));
        return conditions;
    }
    let mut conditions = kstatus(&readiness);
    conditions.push(condition(ConditionType::Serving, &report.serving));
    conditions.extend(report.traffic.iter().map(|traffic| condition(ConditionType::TrafficSplit, traffic)));
    // Right after a start the registry has not been read: this does not change what is known of the alias.
    let is_new = report.registry.1.reason != Reason::RegistryNotRead
        || !has_condition(before, ConditionType::RegistrySynced);
    if is_new {
        conditions.push(condition(ConditionType::RegistrySynced, &report.registry));
    }
    if let GatesReport::Reported(status, cause) = &report.gates {
        conditions.push(DesiredCondition {
            type_: ConditionType::GatesPassed,
            status: *status,
            cause: cause.clone(),
        });
    }
    if let LiveReport::Reported(status, cause) = &report.live {
        conditions.push(condition(ConditionType::LiveRulesPassed, &(*status, cause.clone())));
    }
    if let DriftReport::Reported(status, cause) = &report.drift {
        conditions.push(condition(ConditionType::InputsAsTrained, &(*status, cause.clone())));
    }
    conditions
}
