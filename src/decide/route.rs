//! The HTTPRoute: it shares requests among versions, each behind a Service of its own.
//!
//! ```text
//! v1 all ── v2 may serve: enters at the least share ── accepted ──► v2 all, v1 the least share
//!               canary: from step to step                     │ one write leads back while it is warm
//!                                      v1 leaves the route ◄──┘
//!                                          │ accepted, and a grace for the data plane
//!                                          └──► v1 is scaled down
//! ```
//!
//! A share never goes through 0 in one step while the version beside it is ready: some implementations lose
//! requests in such a change. The Service of the alias's name selects the version with the largest share, and
//! moves with it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{
    Action, Observed, OwnObject, ServingIntent, StrategyIntent, Traffic, challengers,
    cluster_view::RouteView,
    referred,
    shares::{Mirror, Shares},
    smoke_test::{self, Proof},
    step::RolloutStep,
    target::Target,
};
use crate::api::{
    condition::{ConditionStatus, Reason, ReasonMessage},
    model_alias::TrafficShare,
    names::Version,
};

/// How long after the parents accepted a route the next change of its weights may follow.
pub(super) const STEP: SignedDuration = SignedDuration::from_secs(1);
/// How long after the parents accepted a route its data plane may still send requests as before. No condition
/// says when it has stopped.
pub(super) const GRACE: SignedDuration = SignedDuration::from_secs(30);

impl Observed {
    /// Whether an HTTPRoute is desired.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.intent.serving.as_ref().is_some_and(is_possible)
    }

    /// Whether Laurel is to render an HTTPRoute.
    #[must_use]
    pub fn renders_route(&self) -> bool {
        self.is_routed() && self.referred().is_none()
    }

    /// Returns when the parents of the route will have accepted its current revision for this long; `None`
    /// while they have not accepted it.
    fn route_settles(&self, route: &RouteView, after: SignedDuration) -> Option<Timestamp> {
        let known = self.status.route.as_ref().filter(|known| known.revision == route.revision);
        let accepted_at = known.map_or(self.now, |known| known.at);
        route.pending.is_none().then(|| accepted_at.checked_add(after).unwrap_or(Timestamp::MAX))
    }

    pub(super) fn has_settled(&self, route: &RouteView, after: SignedDuration) -> bool {
        self.route_settles(route, after).is_some_and(|at| at <= self.now)
    }

    /// Whether the data plane of the route sends no request to a version any more. A route that cannot be
    /// seen may name every version that has a Service of its own. Of one that has to be written again, the
    /// last that is known counts.
    pub(super) fn route_has_left(&self, version: Version) -> bool {
        let cluster = &self.cluster;
        match &cluster.route {
            Some(route) => !route.shares.names(version) && self.has_settled(route, GRACE),
            None if cluster.route_error.is_some() => !cluster.version_services.contains_key(&version),
            None => {
                let was_named = |share: &TrafficShare| share.alias_ref.is_none() && share.version == version;
                !self.is_routed() || !self.status.traffic.iter().any(was_named)
            }
        }
    }

    /// When the last change of the route counts as done, if that is in the future.
    pub(super) fn route_settles_later(&self) -> Option<Timestamp> {
        self.settles_later(self.cluster.route.as_ref()?, GRACE)
    }

    pub(super) fn settles_later(&self, route: &RouteView, after: SignedDuration) -> Option<Timestamp> {
        self.route_settles(route, after).filter(|at| *at > self.now)
    }

    /// Until when the parents may take to accept the route before that counts as lasting. Right after each
    /// write they have not accepted it.
    fn pending_until(&self) -> Timestamp {
        self.status.route_pending_since.unwrap_or(self.now).checked_add(STEP).unwrap_or(Timestamp::MAX)
    }

    /// When it does, if they have not accepted it yet.
    pub(super) fn sticks_later(&self, route: &RouteView) -> Option<Timestamp> {
        route.pending.as_ref().map(|_| self.pending_until()).filter(|until| *until > self.now)
    }

    /// Whether the parents have not accepted the route for longer than a moment.
    pub(super) fn is_stuck(&self, route: &RouteView) -> bool {
        route.pending.is_some() && self.pending_until() <= self.now
    }

    /// Returns the version with the largest share. Of two with the same share it is the one that serves.
    fn leader_of(&self, route: &RouteView) -> Option<Version> {
        if route.shares.follow_service() {
            return self.serves();
        }
        let serves = self.serves().filter(|serves| route.shares.is_largest(*serves));
        serves.or_else(|| route.shares.leader())
    }

    /// Returns the version with the largest share, if it is ready.
    fn served_through(&self, route: &RouteView) -> Option<Version> {
        self.leader_of(route).filter(|leader| self.is_ready(*leader))
    }

    /// Whether a route may begin to name the version: it has ready pods, which its Service has found.
    pub(super) fn can_enter(&self, version: Version) -> bool {
        let service = self.cluster.version_services.get(&version);
        self.is_ready(version) && service.is_some_and(|service| service.has_endpoints)
    }

    /// Whether the version may get the largest share with the next write. A version that has served does not
    /// wait for parents that accept nothing.
    fn may_lead(&self, serving: &ServingIntent, route: &RouteView, version: Version) -> bool {
        if self.lacks_approval(serving, version) {
            return false;
        }
        let Some(serves) = self.served_through(route) else { return self.can_enter(version) };
        let is_prepared = self.has_settled(route, STEP)
            || (self.has_served(version) && self.is_stuck(route))
            // On the way back everything is still in the route.
            || self.status.previous_version == Some(version)
            || self.status.version == Some(version);
        let is_shown = || self.canary(serving, route, version).is_none();
        let is_there = route.shares.of(version) > 0 && self.can_enter(version);
        serves == version || (is_there && is_prepared && is_shown())
    }
}

/// The API server accepts a route only with this strategy.
fn is_possible(serving: &ServingIntent) -> bool {
    serving.routed && serving.strategy == StrategyIntent::BlueGreen
}

/// Whether the decision manages a route.
fn is_managed(observed: &Observed, serving: &ServingIntent) -> bool {
    is_possible(serving) && observed.cluster.route_error.is_none()
}

/// Returns the route that traffic waits for. One that names the Service of the alias's name goes where that
/// leads.
fn awaited<'a>(observed: &'a Observed, serving: &ServingIntent) -> Option<&'a RouteView> {
    let route = observed.cluster.route.as_ref().filter(|_| is_managed(observed, serving))?;
    let follows = route.shares.follow_service() || route.shares.are_handed_back();
    let is_on_its_own = route.referred.is_none() || !follows;
    (is_on_its_own && observed.is_route_desired(route)).then_some(route)
}

/// Whether the Service will select a ready pod even if traffic does not move to the version.
fn others_answer(observed: &Observed, step: &RolloutStep, version: Version) -> bool {
    let to_another = |action: &Action| matches!(action, Action::Route(Traffic::One(to)) if *to != version);
    observed.somebody_answers() || step.actions.iter().any(to_another)
}

/// Whether the Service waits for the route. Clients inside the cluster need no Gateway for a failover, nor
/// for a rollback to a version whose own Service cannot be had.
fn waits_for_route(observed: &Observed, route: &RouteView, version: Version, step: &RolloutStep) -> bool {
    let has_served = observed.has_served(version);
    let is_urgent = !others_answer(observed, step, version);
    let lacks_service = !observed.cluster.version_services.contains_key(&version);
    let serves = observed.served_through(route).is_some();
    if has_served { !is_urgent && !lacks_service } else { !is_urgent || serves }
}

/// Drops the move to a version. A Service that somebody else changed is put back in any case.
fn drop_move(step: &mut RolloutStep, version: Version) {
    step.actions.retain(|action| *action != Action::Route(Traffic::One(version)));
}

/// While the route is not prepared for the version that traffic is to move to, the Service stays as well.
pub(super) fn hold_back(observed: &Observed, serving: &ServingIntent, step: &mut RolloutStep) {
    let moves_to = step.routed_to().filter(|version| observed.cluster.traffic != Traffic::One(*version));
    let Some(version) = moves_to else { return };
    let Some(route) = awaited(observed, serving) else {
        return hold_canary_without_route(observed, serving, version, step);
    };
    let is_held =
        observed.lacks_approval(serving, version) || waits_for_route(observed, route, version, step);
    if observed.may_lead(serving, route, version) || !is_held {
        return;
    }
    drop_move(step, version);
    if let Some(cause) = observed.unapproved_in_time(serving, version) {
        return step.reject(observed, serving, version, cause);
    }
    if let Some(cause) = referred::unmet(observed) {
        step.stalled = Some(cause);
        return;
    }
    step.entering = Some(version);
    let canary = observed.canary(serving, route, version).filter(|_| route.shares.names(version));
    match &route.pending {
        _ if !observed.can_enter(version) => step.progress(Reason::WaitingForPods, no_endpoint(version)),
        Some(pending) => {
            let is_soon = observed.has_served(version) && !observed.is_stuck(route);
            step.wake_at_some(is_soon.then(|| observed.pending_until()));
            step.progress(Reason::TrafficPending, pending_message(pending));
        }
        None => {
            step.wake_at_some(observed.settles_later(route, STEP));
            if let Some(canary) = canary {
                step.stepping = Some(version);
                let at_least = serving.steps[canary.index].at_least;
                step.wake_at_some(observed.settles_later(route, at_least));
                step.wake_at_some(observed.step_ends(serving, version));
                step.progress = Some(observed.step_message(serving, route, version, canary.index));
            } else {
                let message = format!("version {version} enters the HTTPRoute before traffic moves to it");
                step.progress(Reason::MovingTraffic, message);
            }
        }
    }
}

/// A version that has not served gets no request beyond the steps that it has to go through, so it waits for
/// the route.
fn hold_canary_without_route(
    observed: &Observed,
    serving: &ServingIntent,
    version: Version,
    step: &mut RolloutStep,
) {
    let is_free = serving.steps.is_empty() || observed.has_served(version);
    let is_held = observed.lacks_approval(serving, version) || others_answer(observed, step, version);
    if is_free || !is_held {
        return;
    }
    drop_move(step, version);
    match condition(observed) {
        Some((_, cause)) if !cause.reason.is_transient() => step.stalled = Some(cause),
        Some((_, cause)) => step.progress = Some(cause),
        None => step.progress(Reason::TrafficPending, "the HTTPRoute is written before the canary begins"),
    }
}

/// Plans the route and the Services that it names, once it is known which versions are kept.
pub(super) fn plan(observed: &Observed, serving: &ServingIntent, target: &Target, step: &mut RolloutStep) {
    if observed.hands_back() {
        let route = observed.cluster.route.as_ref();
        if is_managed(observed, serving) {
            correct_services(observed, step);
        }
        if let Some(shares) = route.and_then(|route| referred::hand_back(observed, route, step)) {
            share(observed, shares, step);
        }
    } else if is_managed(observed, serving) && !is_misplaced(observed) {
        step.pausing = pausing(observed, serving, target, step);
        // Without Service and status, the route alone knows what serves.
        let through_route = || observed.served_through(observed.cluster.route.as_ref()?);
        // What only the alias in the registry named has not served.
        let serves = observed.serves().filter(|serves| observed.has_served(*serves));
        let leads = step.routed_to().or(serves).or_else(through_route);
        correct_services(observed, step);
        if let Some(shares) = leads.and_then(|version| next_shares(observed, serving, version, step)) {
            share(observed, shares, step);
        }
    } else if is_own_route(observed) {
        step.act(Action::DeleteRoute);
    }
    delete_services(observed, serving, step);
}

/// Whether the route was rendered by Laurel, and that of somebody else is to take its place.
fn is_misplaced(observed: &Observed) -> bool {
    let route = observed.cluster.route.as_ref();
    observed.referred().is_some() && route.is_some_and(|route| route.referred.is_none())
}

/// Whether there is a route that this ModelAlias may delete.
pub(super) fn is_own_route(observed: &Observed) -> bool {
    let cluster = &observed.cluster;
    let is_rendered = cluster.route.as_ref().is_some_and(|route| route.referred.is_none());
    is_rendered && cluster.route_error.is_none() && !cluster.orphans.contains(&OwnObject::Route)
}

/// Writes the weights. They are the first write, unless no version answers: then the Service goes first,
/// which needs nobody else.
fn share(observed: &Observed, shares: Shares, step: &mut RolloutStep) {
    let first = if observed.somebody_answers() {
        0
    } else {
        step.actions.iter().position(|action| matches!(action, Action::Route(_))).map_or(0, |index| index + 1)
    };
    step.actions.insert(first, Action::Share(shares));
}

/// Returns the weights to write now, if they have to change: towards `leads`, one safe step at a time.
fn next_shares(
    observed: &Observed,
    serving: &ServingIntent,
    leads: Version,
    step: &mut RolloutStep,
) -> Option<Shares> {
    let Some(route) = &observed.cluster.route else {
        // That of somebody else cannot be created.
        if observed.referred().is_some() {
            return None;
        }
        // Nothing can be lost.
        let others = kept(observed, step, leads, |version| observed.can_enter(version));
        let challengers = challengers::next(observed, serving, None, true);
        let next = Shares::led_by(leads, others).beside_challengers(leads, challengers);
        let next = next.with_shadows(challengers::shadows(observed, serving));
        return observed.can_enter(leads).then_some(next);
    };
    let is_usable = route.referred.as_ref().is_none_or(|route| route.unusable.is_none());
    if !is_usable || !observed.is_route_desired(route) {
        return None;
    }
    if route.shares.follow_service() {
        return referred::take_over(observed, serving, route, leads, step);
    }
    let serves = observed.served_through(route);
    let (leader, next) = if observed.may_lead(serving, route, leads) {
        // What had the requests until now stays in the route for a moment.
        let moves = serves.filter(|serves| *serves != leads);
        let others = kept(observed, step, leads, |version| {
            let may_return = moves.is_none() && observed.can_enter(version);
            is_named(route, version) || may_return
        });
        let share = |version| (version, share_beside(observed, serving, route, step, version));
        let shares = others.into_iter().chain(moves).map(share).filter(|(_, share)| *share > 0);
        let mirror = mirror_beside(observed, serving, route, step).filter(|mirror| mirror.version != leads);
        (leads, Shares::beside(leads, shares).with_mirror(mirror))
    } else if let Some(serves) = serves {
        let is_there = is_named(route, leads) && observed.is_ready(leads);
        let enters = (is_there || observed.can_enter(leads)).then_some(leads);
        let others = kept(observed, step, serves, |version| is_named(route, version));
        let share = |version| (version, share_beside(observed, serving, route, step, version));
        let shares = others.into_iter().chain(enters).map(share).filter(|(_, share)| *share > 0);
        (serves, Shares::beside(serves, shares).with_mirror(mirror_beside(observed, serving, route, step)))
    } else {
        // No version that the route names is ready, nor is another one that may lead.
        let leader = route.shares.leader()?;
        let named = route.shares.iter().map(|(version, _)| (version, Shares::LEAST));
        let entering = step.entering.filter(|version| {
            *version != leader && observed.lacks_approval(serving, *version) && observed.can_enter(*version)
        });
        // It has to be in its step to be approved.
        let enters = entering.map(|version| (version, share_beside(observed, serving, route, step, version)));
        let shares = named.filter(|(version, _)| entering != Some(*version));
        let shares = shares.chain(enters).filter(|(_, share)| *share > 0);
        let mirror = entering.and_then(|_| mirror_beside(observed, serving, route, step));
        let next = Shares::beside(leader, shares).with_mirror(mirror);
        let next = next.beside_challengers(leader, route.shares.challengers().clone());
        let next = next.with_shadows(challengers::shadows(observed, serving));
        let is_possible = next
            .iter()
            .all(|(version, share)| observed.is_ready(version) || share <= route.shares.of(version));
        let is_due = route.outdated
            || next.shadows() != route.shares.shadows()
            || (entering.is_some() && next != route.shares && is_possible);
        return is_due.then_some(next);
    };
    let next = let_leave(observed, route, leader, next, step);
    let challengers = challengers::next(observed, serving, Some(route), observed.has_settled(route, STEP));
    if challengers::are_moving(&challengers) {
        step.wake_at_some(observed.settles_later(route, STEP));
    }
    let next = next.beside_challengers(leader, challengers);
    let next = next.with_shadows(challengers::shadows(observed, serving));
    let next = referred::let_service_leave(observed, route, leader, next, step);
    (next != route.shares || route.outdated).then_some(next)
}

/// Returns the version that may be in a canary and neither goes on nor has a reason to lose its share: it is
/// not known whether it passes the promotion rules, something blocks changes, or it gets another size.
fn pausing(
    observed: &Observed,
    serving: &ServingIntent,
    target: &Target,
    step: &RolloutStep,
) -> Option<Version> {
    let version =
        target.spared.or_else(|| target.number()).filter(|version| step.entering != Some(*version))?;
    let workload = observed.cluster.workloads.get(&version)?;
    let is_rejected = observed.rejection(version, None).is_some() || step.rejection.is_some();
    let goal = target.version.as_ref().filter(|(goal, _)| *goal == version);
    let restarts = goal.is_some_and(|(_, model_uri)| serving.replaces(workload, model_uri));
    let is_as_tested = workload.outdated == 0
        && !workload.edited
        && matches!(smoke_test::proof(observed, serving, version), Proof::Given);
    let keeps = is_as_tested && !workload.has_failed && !is_rejected && !restarts;
    (keeps && !observed.has_served(version)).then_some(version)
}

/// Returns the share of a version that does not lead: that of its step while it goes through a canary.
fn share_beside(
    observed: &Observed,
    serving: &ServingIntent,
    route: &RouteView,
    step: &RolloutStep,
    version: Version,
) -> u32 {
    let share = route.shares.of(version);
    if share > 0 && step.pausing == Some(version) {
        return observed.paused_weight(serving, version, share);
    }
    let canary = observed.canary(serving, route, version).filter(|_| step.entering == Some(version));
    match canary {
        Some(canary) if share > 0 || canary.weight <= Shares::LEAST => canary.weight,
        _ => Shares::LEAST,
    }
}

/// Returns the version that gets copies of the requests, while its Service leads to a ready pod: some
/// implementations answer no request at all while a Service that gets copies does not exist.
fn mirror_beside(
    observed: &Observed,
    serving: &ServingIntent,
    route: &RouteView,
    step: &RolloutStep,
) -> Option<Mirror> {
    let mirror = match (step.entering, step.pausing) {
        (Some(version), _) => observed.canary(serving, route, version)?.mirror(version),
        (None, Some(version)) => observed.paused_mirror(serving, version, route.shares.mirrored_to(version)?),
        (None, None) => None,
    };
    mirror.filter(|mirror| observed.can_enter(mirror.version))
}

/// A ready version leaves the route from the least share, and not before that is in effect.
fn let_leave(
    observed: &Observed,
    route: &RouteView,
    leader: Version,
    next: Shares,
    step: &mut RolloutStep,
) -> Shares {
    let leaves = |version: &Version| {
        is_named(route, *version) && next.of(*version) == 0 && observed.is_ready(*version)
    };
    let leaving: Vec<Version> = route.shares.iter().map(|(version, _)| version).filter(leaves).collect();
    let may_leave =
        |version: &Version| route.shares.of(*version) <= Shares::LEAST && observed.has_settled(route, STEP);
    if leaving.iter().all(may_leave) {
        return next;
    }
    step.wake_at_some(observed.settles_later(route, STEP));
    let lingering: Vec<Version> = leaving.into_iter().filter(|version| !may_leave(version)).collect();
    let mirror = next.mirror().filter(|mirror| !lingering.contains(&mirror.version));
    let lingering = lingering.into_iter().map(|version| (version, Shares::LEAST));
    Shares::beside(leader, next.iter().chain(lingering).collect::<Vec<_>>()).with_mirror(mirror)
}

/// Returns the versions beside `leads` that stay in the route, or come back, ready to take over.
pub(super) fn kept(
    observed: &Observed,
    step: &RolloutStep,
    leads: Version,
    is_possible: impl Fn(Version) -> bool,
) -> BTreeSet<Version> {
    let versions = step.kept.iter().copied().filter(|version| *version != leads);
    let entering = |version: &Version| step.entering == Some(*version);
    versions
        .filter(|version| observed.is_ready(*version) && is_possible(*version))
        .filter(|version| {
            let is_there = observed.cluster.route.as_ref().is_some_and(|route| is_named(route, *version));
            observed.has_served(*version) || entering(version) || is_there
        })
        .collect()
}

fn is_named(route: &RouteView, version: Version) -> bool {
    route.shares.of(version) > 0
}

/// Each version with pods has a Service of its own, before the route names it.
fn correct_services(observed: &Observed, step: &mut RolloutStep) {
    let running = observed.cluster.workloads.iter().filter(|(_, workload)| workload.desired > 0);
    let missing = running.map(|(version, _)| *version).filter(|version| {
        observed.cluster.version_services.get(version).is_none_or(|service| service.outdated)
    });
    for version in missing.collect::<Vec<_>>() {
        step.act(Action::ApplyVersionService { version });
    }
}

/// The Service of a version is deleted after its Deployment, once no route sends requests to it.
fn delete_services(observed: &Observed, serving: &ServingIntent, step: &mut RolloutStep) {
    let cluster = &observed.cluster;
    let is_needed = |version: &Version| is_possible(serving) && cluster.workloads.contains_key(version);
    let is_own = |version: &Version| !cluster.orphans.contains(&OwnObject::VersionService(*version));
    for version in cluster.version_services.keys().filter(|version| !is_needed(version) && is_own(version)) {
        if observed.route_has_left(*version) {
            step.act(Action::DeleteVersionService { version: *version });
        } else {
            step.wake_at_some(observed.route_settles_later());
        }
    }
}

fn no_endpoint(version: Version) -> String {
    format!("waiting until the Service of version {version} has a ready endpoint")
}

fn pending_message(pending: &str) -> String {
    format!("the HTTPRoute is not in effect yet: {pending}")
}

/// Whether the route shares the requests as desired; `None` without one.
pub(super) fn condition(observed: &Observed) -> Option<(ConditionStatus, ReasonMessage)> {
    let serving = observed.intent.serving.as_ref().filter(|serving| serving.routed);
    if let Some(error) = &observed.cluster.route_error {
        let may_be_left = !observed.cluster.version_services.is_empty();
        return (serving.is_some() || may_be_left).then(|| (ConditionStatus::False, error.clone()));
    }
    if !is_possible(serving?) {
        let message = "spec.traffic needs the strategy BlueGreen or Canary (spec.rollout.strategy); requests \
                       go through the Service";
        let cause = ReasonMessage::new(Reason::TrafficUnsupported, message);
        return Some((ConditionStatus::False, cause));
    }
    if let Some(cause) = referred::unmet(observed) {
        return Some((ConditionStatus::False, cause));
    }
    let pending =
        |message: String| Some((ConditionStatus::False, ReasonMessage::new(Reason::TrafficPending, message)));
    let Some(route) = &observed.cluster.route else {
        return pending("the HTTPRoute is written once the Service of a version has a ready endpoint".into());
    };
    if let Some(why) = &route.pending {
        return pending(pending_message(why));
    }
    let Some(leader) = observed.leader_of(route) else {
        return pending("the HTTPRoute sends requests nowhere".into());
    };
    if let Some(serves) = observed.answers_alone().filter(|serves| !route.shares.is_largest(*serves)) {
        let cause =
            if observed.can_enter(serves) { String::new() } else { format!(": {}", no_endpoint(serves)) };
        return pending(format!(
            "version {leader} gets {} % of the requests, but version {serves} serves{cause}",
            route.shares.per_cent(leader)
        ));
    }
    if let Some(cause) = serving.and_then(|serving| challengers::unmet(observed, serving, route)) {
        return Some((ConditionStatus::False, cause));
    }
    let canary = observed.canary_message(serving?, route);
    let is_canary = |version: Version| canary.as_ref().is_some_and(|(canary, _)| *canary == version);
    let beside =
        |version: &Version| *version != leader && route.shares.of(*version) > 0 && !is_canary(*version);
    let versions = route.shares.iter().map(|(version, _)| version).filter(beside);
    let (sharing, kept): (Vec<Version>, Vec<Version>) =
        versions.partition(|version| route.shares.of(*version) > Shares::LEAST);
    let gets = |version: Version| {
        format!("version {version} gets {} % of the requests", route.shares.per_cent(version))
    };
    let mut parts: Vec<String> = [leader].into_iter().chain(sharing).map(gets).collect();
    parts.extend(challengers::described(observed, &route.shares));
    if let Some(mirror) = route.shares.mirror().filter(|mirror| !is_canary(mirror.version)) {
        parts
            .push(format!("version {} gets copies of {} % of the requests", mirror.version, mirror.per_cent));
    }
    if !kept.is_empty() {
        let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
        parts.push(format!("version {} is kept in the route, ready to take over", kept.join(", ")));
    }
    parts.extend(canary.map(|(_, message)| message));
    Some((ConditionStatus::True, ReasonMessage::new(Reason::TrafficSplit, parts.join("; "))))
}
