//! The decision: one pure function from observed state to actions, status and the next wake-up.
//!
//! ```text
//!                    ┌ goal ───────── which version should serve, or why the desired one may not
//!                    │   follow ───── what a follower chooses
//!                    │   gates ────── the promotion rules, before a version's first traffic
//! Observed ─ decide ─┼ blue_green │ rolling ── the next steps from the serving version to the goal
//!                    │   smoke_test ─ whether a version may get its first traffic
//!                    │   live ─────── whether its traffic lets a version go on, or sends it back
//!                    │   drift ────── whether its inputs are as in its training
//!                    ├ retention ──── keeps, scales down or deletes versions that do not serve
//!                    ├ route ──────── shares requests among versions, behind a Gateway
//!                    │   referred ─── in a route of somebody else
//!                    │   canary ───── what a version gets step by step, and who approved it
//!                    │   challengers ─ and other ModelAliases
//!                    ├ alias_plan ── the alias in the registry, after traffic
//!                    ├ audit ─────── the history in the registry, after the alias
//!                    └ protection ── the PodDisruptionBudget, last of all
//!                         │
//!                         ▼
//!                     Decision: ordered actions, a report, when to look again
//! ```
//!
//! The decision about a RegisteredModel is in [`registered_model`], that about a ModelExperiment in [`experiment`].
//!
//! It knows versions, readiness and traffic, but no Kubernetes client, no HTTP and no clock: the time is part
//! of the observation. Every action is safe to repeat, so a crash after any of them is just a new
//! observation. What must survive a crash is written to the status before anything depends on it.

mod action;
mod alias_only;
mod alias_plan;
mod attempt;
mod audit;
mod blue_green;
mod canary;
mod challengers;
mod cluster_view;
mod deletion;
mod drift;
pub mod experiment;
mod follow;
mod gates;
mod intent;
mod live;
mod observed;
mod pods_cause;
mod protection;
mod referred;
pub mod registered_model;
mod registry_view;
mod retention;
mod rolling;
mod route;
mod shares;
mod smoke_test;
mod step;
mod target;
#[cfg(test)]
pub(crate) mod tests;

pub use action::{Action, AliasRole, Decision, Readiness, Report};
pub use alias_plan::CONTENTION;
pub use attempt::{Attempt, SmokeReport, SmokeTest, SmokeTestSlot};
pub use cluster_view::{
    ChallengerService, ChallengerView, ChampionRoute, ChampionView, ClusterView, OwnObject, ReferredRoute,
    RouteView, Traffic, VersionService, Workload,
};
pub use deletion::REGISTRY_DEADLINE;
pub use drift::{DRIFT_TAGS, DriftReport, drift_versions};
pub use follow::{Candidate, Candidates, Choice, Follower, NEWEST, choose};
pub use gates::{
    Evidence, EvidenceFacts, GatesReport, Measured, Metrics, RuleFinding, RuleOutcome, examine, is_exempt,
};
pub use intent::{
    ApprovalIntent, Blocker, BlockerScope, ChallengerIntent, Desired, Intent, Lifecycle, ServingIntent,
    ShareIntent, SmokeTestIntent, StepIntent, StrategyIntent,
};
pub use live::{LiveReport, LiveView, LiveWatch, unknown_until};
pub use observed::Observed;
pub use registry_view::{FormerAlias, Outbox, RegistryView, VersionView};
#[cfg(test)]
use route::GRACE;
pub use shares::{ChallengerShare, Mirror, Shadow, Shares};
#[cfg(test)]
use smoke_test::SKIPPED_AFTER;
pub use target::desired;

pub use crate::api::model_alias::OnUnavailable;

use jiff::{SignedDuration, Timestamp};

use crate::api::condition::{ConditionStatus, Reason, ReasonMessage, counted};

/// Decides what to do next. The same observation always gives the same decision.
#[must_use]
pub fn decide(observed: &Observed) -> Decision {
    let decision = protection::add(observed, audit::add(observed, decide_now(observed)));
    let turns_later = follow::turns_later(observed);
    let wake = [decision.wake, alias_plan::contention_ends(observed), observed.reading_until(), turns_later];
    let wake = wake.into_iter().flatten().min();
    Decision { wake, ..decision }
}

fn decide_now(observed: &Observed) -> Decision {
    let decision = match observed.intent.lifecycle {
        Lifecycle::Deleting { since } => deletion::decide(observed, since),
        Lifecycle::Suspended => suspended(observed),
        Lifecycle::Active => match (&observed.intent.blocker, &observed.intent.serving) {
            (Some(blocker), Some(serving)) if blocker.scope != BlockerScope::Everything => {
                serve_blocked(observed, serving, blocker)
            }
            (Some(blocker), _) => blocked(observed, &blocker.cause),
            (None, Some(serving)) => return serve(observed, serving),
            (None, None) => alias_only::decide(observed),
        },
    };
    drift::add(observed, live::add(observed, canary::add(observed, None, decision)))
}

/// Switches traffic among existing Deployments, and scales them; anything new waits until the blocker is
/// gone.
fn serve_blocked(observed: &Observed, serving: &ServingIntent, blocker: &Blocker) -> Decision {
    let serving = &ServingIntent { settings: None, ..serving.clone() };
    let target = target::choose_blocked(observed, serving, &blocker.cause);
    let mut step = strategy_step(observed, serving, &target);
    let serves_next = step.routed_to().or_else(|| observed.serves());
    retention::plan(observed, serving, &target, serves_next, &mut step);
    route::plan(observed, serving, &target, &mut step);
    step.actions.splice(..0, adopt(observed));
    step.actions.retain(|action| blocker.scope.allows(action));
    if observed.desired_is_new() {
        step.actions.clear();
    }
    let wait = blocked(observed, &blocker.cause);
    Decision {
        actions: step.actions,
        rejection: step.rejection,
        target: target.desired,
        wake: step.wake.into_iter().chain(wait.wake).min(),
        ..wait
    }
}

/// Returns the next steps from the serving version to the goal.
fn strategy_step(observed: &Observed, serving: &ServingIntent, target: &target::Target) -> step::RolloutStep {
    match serving.strategy {
        StrategyIntent::BlueGreen => blue_green::step(observed, serving, target),
        StrategyIntent::Rolling { max_surge } => rolling::step(observed, serving, target, max_surge),
    }
}

fn serve(observed: &Observed, serving: &ServingIntent) -> Decision {
    let target = target::choose(observed, serving);
    let smoke_test = smoke_test::wanted(observed, serving, target.number());
    let mut step = strategy_step(observed, serving, &target);
    let serves_next = step.routed_to().or_else(|| observed.serves());
    retention::plan(observed, serving, &target, serves_next, &mut step);
    route::plan(observed, serving, &target, &mut step);
    let answers_next =
        serves_next.filter(|_| observed.cluster.traffic != Traffic::Nowhere || step.routed_to().is_some());
    let alias_target = alias_plan::AliasTarget {
        version: answers_next,
        target: target.number(),
        awaited: target.spared,
        replaced: target.replaced.as_ref(),
    };
    let plan = alias_plan::plan(observed, alias_target);

    let mut actions = adopt(observed);
    actions.extend(finalizer(observed));
    actions.append(&mut step.actions);
    actions.extend(plan.actions);
    actions.extend(fill_in_replicas(serving));
    let rejected = answers_next.filter(|answers| Some(*answers) != target.desired).and_then(|_| {
        gates::rejection(observed, target.desired, target.blocker.as_ref(), serving.settings.as_deref())
    });
    if observed.desired_is_new() {
        actions.clear();
    }
    let is_transient = |cause: &ReasonMessage| cause.reason.is_transient();
    let waits = target.waiting.is_some() || plan.blocker.as_ref().is_some_and(is_transient);
    let readiness = match (target.blocker.or(step.stalled), step.progress.or(target.waiting), plan.blocker) {
        (None, Some(progress), _) => Readiness::Progressing(progress),
        (None, None, Some(blocker)) if is_transient(&blocker) => Readiness::Progressing(blocker),
        (Some(blocker), _, _) | (None, None, Some(blocker)) => Readiness::Stalled(blocker),
        (None, None, None) => match route::condition(observed).or_else(|| referred::handing_back(observed)) {
            // The champion does not depend on its challengers.
            Some((_, cause)) if cause.reason == Reason::ChallengerUnavailable => {
                Readiness::Settled(settled(observed, serves_next))
            }
            Some((ConditionStatus::False, cause)) if is_transient(&cause) => Readiness::Progressing(cause),
            Some((ConditionStatus::False, cause)) => Readiness::Stalled(cause),
            _ => Readiness::Settled(settled(observed, serves_next)),
        },
    };
    let decision = Decision {
        actions,
        rejection: step.rejection.or(rejected),
        target: target.desired,
        smoke_test,
        live: None,
        canary: None,
        approval: None,
        report: Report {
            readiness,
            serving: serving_condition(observed),
            registry: plan.condition,
            gates: target.gates,
            live: LiveReport::Unchanged,
            drift: DriftReport::Unchanged,
            traffic: route::condition(observed),
        },
        wake: step.wake.into_iter().chain(waits.then(|| look_again(observed))).min(),
    };
    drift::add(observed, live::add(observed, canary::add(observed, step.stepping, decision)))
}

/// Before anything else, what was restored from a backup gets its owner: Kubernetes collects an object whose
/// owner is gone, and takes no second one.
fn adopt(observed: &Observed) -> Vec<Action> {
    let orphans = observed.cluster.orphans.iter().copied();
    orphans.filter(|object| *object != OwnObject::Budget).map(Action::Adopt).collect()
}

/// The finalizer is set exactly while the policy is to delete the alias with the object, another ModelAlias
/// sends requests here, or the route of somebody else has to be handed back. It is there before the first
/// write to the registry or to that route.
fn finalizer(observed: &Observed) -> Vec<Action> {
    let Intent { deletes_alias, has_finalizer, .. } = observed.intent;
    let refers = observed.status.route_ref.is_some() || observed.referred().is_some();
    let present = deletes_alias || refers || !observed.cluster.champions.is_empty();
    (present != has_finalizer).then_some(Action::SetFinalizer { present }).into_iter().collect()
}

/// Fills in an unset size for autoscalers: the API server serves no scale subresource without one. Comes
/// last, because nothing depends on it.
fn fill_in_replicas(serving: &ServingIntent) -> Option<Action> {
    serving.size_is_open.then_some(Action::FillInReplicas { replicas: serving.replicas })
}

fn suspended(observed: &Observed) -> Decision {
    let cause = ReasonMessage::new(
        Reason::Suspended,
        "spec.suspend is true: nothing is changed, here or in the registry, until it is false",
    );
    still(observed, Readiness::Suspended(cause))
}

/// A blocker may disappear without an event here: another namespace, a role.
fn blocked(observed: &Observed, blocker: &ReasonMessage) -> Decision {
    let wake = Some(look_again(observed));
    Decision { wake, ..still(observed, Readiness::Stalled(blocker.clone())) }
}

/// A decision to do nothing.
fn still(observed: &Observed, readiness: Readiness) -> Decision {
    let cause = readiness.cause().clone();
    Decision {
        actions: Vec::new(),
        rejection: None,
        target: observed.status.target_version,
        smoke_test: None,
        live: None,
        canary: None,
        approval: None,
        report: Report {
            readiness,
            serving: serving_condition(observed),
            registry: (ConditionStatus::Unknown, cause),
            gates: GatesReport::Unchanged,
            live: LiveReport::Unchanged,
            drift: DriftReport::Unchanged,
            traffic: route::condition(observed),
        },
        wake: None,
    }
}

/// The interval between attempts while the registry has not answered. A poll that finds nothing new wakes
/// nobody.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

fn look_again(observed: &Observed) -> Timestamp {
    observed.now.checked_add(ASK_AGAIN).unwrap_or(Timestamp::MAX)
}

fn settled(observed: &Observed, serves: Option<crate::api::names::Version>) -> ReasonMessage {
    let ready = serves
        .and_then(|version| observed.cluster.workloads.get(&version))
        .map_or(0, |workload| workload.ready);
    match serves {
        Some(version) => {
            let message = format!("version {version} serves with {}", counted(ready, "ready pod"));
            ReasonMessage::new(Reason::Serving, message)
        }
        None => ReasonMessage::new(Reason::AsDesired, "no version is requested"),
    }
}

/// Whether a ready version answers now.
fn serving_condition(observed: &Observed) -> (ConditionStatus, ReasonMessage) {
    let ready: u32 = observed.answering().map(|(_, workload)| workload.ready).sum();
    let selected = match observed.cluster.traffic {
        Traffic::One(version) => Some(version),
        Traffic::Shared | Traffic::Nowhere => observed.serves(),
    };
    match selected {
        Some(version) if ready > 0 => (
            ConditionStatus::True,
            ReasonMessage::new(
                Reason::Serving,
                format!("version {version} answers with {}", counted(ready, "ready pod")),
            ),
        ),
        Some(version) => (
            ConditionStatus::False,
            ReasonMessage::new(
                Reason::BecameUnready,
                format!("version {version} is selected but has no ready pod"),
            ),
        ),
        None if observed.intent.serving.is_none() && observed.intent.blocker.is_none() => (
            ConditionStatus::False,
            ReasonMessage::new(
                Reason::AliasSet,
                "spec.serving is not set: only the alias in the registry is kept",
            ),
        ),
        None => {
            (ConditionStatus::False, ReasonMessage::new(Reason::WaitingForPods, "no version has served yet"))
        }
    }
}
