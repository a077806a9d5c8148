//! The HTTPRoute of somebody else (`spec.traffic.routeRef`): how the Services of versions take the place of
//! the Service with the ModelAlias's name in it, and hand it back.
//!
//! ```text
//! the Service all ── v1 enters at the least share ── accepted ──► v1 all, the Service the least share
//!   ▲ ▲ somebody applies their manifest again                        │ accepted
//!   │ └──────────────────────────────────────────────────────────── v1 all: shared like any other route
//!   └─ routeRef is removed or changed: the same steps back; with the ModelAlias, in one write
//! ```
//!
//! While the route names the Service, it follows what that selects, so nothing waits for the route. The
//! status names the route before anything is written to it, and until it is handed back.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Action, BlockerScope, ChallengerShare, Lifecycle, Observed, ServingIntent, challengers,
    cluster_view::RouteView,
    route::{GRACE, STEP, kept},
    shares::Shares,
    step::RolloutStep,
};
use crate::api::{
    condition::{ConditionStatus, Reason, ReasonMessage},
    names::Version,
    traffic::RouteReference,
};

impl Observed {
    /// Returns the route of somebody else that is to share the requests.
    pub(super) fn referred(&self) -> Option<&RouteReference> {
        self.intent.serving.as_ref().filter(|_| self.is_routed())?.route_ref.as_ref()
    }

    /// Whether a route of somebody else is to be handed back.
    pub(super) fn hands_back(&self) -> bool {
        self.status.route_ref.is_some() && self.status.route_ref.as_ref() != self.referred()
    }

    /// Whether the route is the one that is to share the requests. If it belongs to somebody else, it is
    /// written only while the status names it, and the finalizer sees to it that it is handed back.
    pub(super) fn is_route_desired(&self, route: &RouteView) -> bool {
        let is_known = || self.status.route_ref.as_ref() == self.referred() && self.intent.has_finalizer;
        route.referred.is_some() == self.referred().is_some() && (route.referred.is_none() || is_known())
    }

    /// Returns the route of somebody else for the status: a new one once nothing is left of the one before.
    #[must_use]
    pub fn next_route_ref(&self) -> Option<RouteReference> {
        let known = self.status.route_ref.as_ref();
        let is_blind =
            self.intent.blocker.as_ref().is_some_and(|blocker| blocker.scope == BlockerScope::Everything);
        if self.intent.lifecycle != Lifecycle::Active || self.cluster.route_error.is_some() || is_blind {
            return known.cloned();
        }
        let route = self.cluster.route.as_ref();
        if known.is_some() {
            let is_done = !self.hands_back() || route.is_none_or(|route| self.is_back(route));
            return if is_done { self.referred() } else { known }.cloned();
        }
        // A route that Laurel rendered goes first.
        let is_free = route.is_none_or(|route| route.referred.is_some()) && self.intent.blocker.is_none();
        self.referred().filter(|_| is_free).cloned()
    }

    /// Whether the route sends nothing to the Services of versions any more.
    fn is_back(&self, route: &RouteView) -> bool {
        route.shares.are_handed_back() && self.has_settled(route, GRACE)
    }

    /// Hands the route back with one write, because everything that it could lead to goes.
    pub(super) fn hand_back_at_once(&self) -> Option<Action> {
        let route = self.cluster.route.as_ref().filter(|route| route.referred.is_some())?;
        let is_due = self.status.route_ref.is_some() && !route.shares.are_handed_back();
        is_due.then(|| Action::Share(handed_back()))
    }

    /// When the route counts as handed back, if that is in the future.
    pub(super) fn handed_back_later(&self) -> Option<Timestamp> {
        self.route_settles_later().filter(|_| self.hands_back())
    }
}

fn handed_back() -> Shares {
    Shares::led_by_service([], BTreeMap::new())
}

/// Returns the weights that let the Services of versions take the place of the Service with the ModelAlias's
/// name, one safe step at a time. Requests go where that one sends them meanwhile.
pub(super) fn take_over(
    observed: &Observed,
    serving: &ServingIntent,
    route: &RouteView,
    leads: Version,
    step: &mut RolloutStep,
) -> Option<Shares> {
    let can_lead = observed.can_enter(leads);
    let has_settled = observed.has_settled(route, STEP);
    let is_possible = |version| route.shares.of(version) > 0 || observed.can_enter(version);
    let others = kept(observed, step, leads, is_possible);
    let mut others: BTreeMap<Version, u32> =
        others.into_iter().map(|version| (version, Shares::LEAST)).collect();
    let challengers = challengers::staying(observed, route);
    let next = if can_lead && route.shares.of(leads) > 0 && has_settled {
        let shares = Shares::beside(leads, others).beside_challengers(leads, challengers);
        shares.beside_service(leads)
    } else {
        others.extend(can_lead.then_some((leads, Shares::LEAST)));
        Shares::led_by_service(others, challengers)
    };
    let next = next.with_shadows(challengers::shadows(observed, serving));
    step.wake_at_some(observed.settles_later(route, STEP));
    (next != route.shares || route.outdated).then_some(next)
}

/// Lets the Service stay for as long as the last change of the weights is not in effect.
pub(super) fn let_service_leave(
    observed: &Observed,
    route: &RouteView,
    leader: Version,
    next: Shares,
    step: &mut RolloutStep,
) -> Shares {
    if route.shares.service() == 0 || observed.has_settled(route, STEP) {
        return next;
    }
    step.wake_at_some(observed.settles_later(route, STEP));
    next.beside_service(leader)
}

/// Returns the weights that hand the route back, one safe step at a time.
pub(super) fn hand_back(observed: &Observed, route: &RouteView, step: &mut RolloutStep) -> Option<Shares> {
    let shares = &route.shares;
    step.wake_at_some(observed.handed_back_later());
    if shares.are_handed_back() {
        return None;
    }
    let ready = shares.iter().filter(|(version, weight)| *weight > 0 && observed.can_enter(*version));
    let ready: BTreeMap<Version, u32> = ready.collect();
    let leader = ready.iter().max_by_key(|(_, weight)| **weight).map(|(version, _)| *version);
    let is_usable = route.referred.as_ref().is_some_and(|route| route.unusable.is_none());
    let Some(leader) = leader.filter(|_| is_usable) else { return Some(handed_back()) };
    if !observed.somebody_answers() {
        return None;
    }
    // What cannot answer does not stay for a moment.
    let is_whole = ready.len() == shares.iter().count() && challengers::are_staying(observed, route);
    let least = ready.into_keys().map(|version| (version, Shares::LEAST));
    let challengers = challengers::staying(observed, route).into_iter();
    let challengers: BTreeMap<String, ChallengerShare> =
        challengers.map(|(name, share)| (name, ChallengerShare { weight: Shares::LEAST, ..share })).collect();
    let has_settled = observed.has_settled(route, STEP);
    if !has_settled {
        step.wake_at_some(observed.settles_later(route, STEP));
        step.wake_at_some(observed.sticks_later(route));
    }
    match shares.service() {
        // Nor is there anything to wait for from parents that accept nothing.
        _ if !is_whole || observed.is_stuck(route) => Some(handed_back()),
        0 => {
            let beside = Shares::beside(leader, least).beside_challengers(leader, challengers);
            Some(beside.beside_service(leader))
        }
        Shares::LEAST => has_settled.then(|| Shares::led_by_service(least, challengers)),
        _ => has_settled.then(handed_back),
    }
}

/// Returns what is waited for while the route of somebody else is handed back.
pub(super) fn handing_back(observed: &Observed) -> Option<(ConditionStatus, ReasonMessage)> {
    let is_seen = observed.hands_back() && observed.cluster.route_error.is_none();
    unmet(observed).filter(|_| is_seen).map(|cause| (ConditionStatus::False, cause))
}

/// Returns why the route of somebody else does not share the requests, if it does not.
pub(super) fn unmet(observed: &Observed) -> Option<ReasonMessage> {
    let pending = |message: String| Some(ReasonMessage::new(Reason::TrafficPending, message));
    if let Some(known) = observed.status.route_ref.as_ref().filter(|_| observed.hands_back()) {
        let why = observed.cluster.route.as_ref().and_then(|route| route.pending.as_ref());
        let why = why.map_or_else(String::new, |why| format!("; {why}"));
        return pending(format!(
            "the HTTPRoute {:?} is handed back: its requests go to the Service with the name of this \
             ModelAlias again{why}",
            known.name
        ));
    }
    let reference = observed.referred()?;
    let Some(route) = &observed.cluster.route else {
        let message = format!(
            "spec.traffic.routeRef: there is no HTTPRoute {:?} in this namespace; create it, with the \
             Service that has the name of this ModelAlias as a backend; until then Laurel moves traffic by \
             that Service alone, and a canary waits",
            reference.name
        );
        return Some(ReasonMessage::new(Reason::RouteUnusable, message));
    };
    let Some(referred) = &route.referred else {
        return pending("the HTTPRoute that Laurel rendered is deleted first".to_owned());
    };
    if let Some(why) = &referred.unusable {
        return Some(ReasonMessage::new(Reason::RouteUnusable, format!("spec.traffic.routeRef: {why}")));
    }
    if route.pending.is_some() || !(route.shares.follow_service() || route.shares.are_handed_back()) {
        return None;
    }
    let by = referred.written_by.as_ref().map_or_else(String::new, |by| format!(", last written by {by:?},"));
    pending(format!(
        "the HTTPRoute {:?}{by} names the Service with the name of this ModelAlias; the Services of versions \
         take its place once they have a ready endpoint, one step at a time",
        referred.name
    ))
}
