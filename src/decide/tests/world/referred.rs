//! The route of somebody else: who applies it, and what must hold of it.

use std::collections::BTreeSet;

use super::{GatewayIs, World, gateway::RIVALS};
use crate::{
    api::traffic::RouteReference,
    decide::{GRACE, Lifecycle, Observed, Shares, StrategyIntent},
};

/// What the spec names.
pub(super) fn reference() -> RouteReference {
    RouteReference { name: "theirs".to_owned(), rule: None }
}

impl World {
    /// Whether `spec.traffic` refers to the route of somebody else.
    fn refers(&self) -> bool {
        let serving = self.intent.serving.as_ref();
        let serving = serving.filter(|it| it.routed && it.strategy == StrategyIntent::BlueGreen);
        serving.is_some_and(|serving| serving.route_ref.is_some())
    }

    /// Lets the world look at the route that the operator looks at: that of somebody else until it is handed
    /// back, and before that the one that Laurel rendered.
    pub(super) fn look_at_route(&mut self) {
        let is_known = self.status.route_ref.is_some();
        let gateway = &self.cluster.gateway;
        let is_theirs = is_known || (self.refers() && gateway.rendered.route.is_none());
        self.cluster.gateway.is_theirs = is_theirs;
        self.has_lost_reference &= !is_known;
    }

    /// The status is lost, and with it which route has to be handed back.
    pub(super) fn lose_reference(&mut self) {
        self.has_lost_reference |= self.status.route_ref.is_some();
    }

    /// The backend of the route that belongs neither to this ModelAlias nor to one of its challengers.
    pub(super) fn foreign_backend(&self) -> Option<&'static str> {
        let gateway = &self.cluster.gateway;
        if gateway.has_foreign {
            return Some("other");
        }
        let desired = self.intent.serving.iter().flat_map(|serving| &serving.challengers);
        let known = self.status.traffic.iter().filter_map(|share| share.alias_ref.as_deref());
        let known: BTreeSet<&str> = desired.map(|challenger| challenger.name.as_str()).chain(known).collect();
        let named = gateway.theirs.route.as_ref()?.shares.challengers();
        RIVALS.into_iter().find(|rival| named.contains_key(*rival) && !known.contains(rival))
    }

    /// Whether the route that the spec refers to cannot be used.
    pub(super) fn route_is_unusable(&self) -> bool {
        self.refers() && (self.cluster.gateway.theirs.route.is_none() || self.foreign_backend().is_some())
    }

    /// Whether everything that the route leads to goes.
    fn ends(&self) -> bool {
        matches!(self.intent.lifecycle, Lifecycle::Deleting { .. }) || self.intent.serving.is_none()
    }

    /// Whether the route is being handed back, or everything behind it goes.
    pub(super) fn leaves_route(&self, observed: &Observed) -> bool {
        observed.hands_back() || self.ends()
    }

    /// Whether their route is handed back without steps: what it names goes, cannot answer, or is not all
    /// that it names.
    pub(super) fn leaves_route_at_once(&self, after: &Shares, observed: &Observed) -> bool {
        let route = observed.cluster.route.as_ref().filter(|route| route.referred.is_some());
        let can_answer = route.is_some_and(|route| {
            let is_up = |name: &String| {
                let view = observed.cluster.challengers.get(name).and_then(|view| view.service);
                view.is_some_and(|service| service.has_endpoints)
            };
            let has_endpoints = |version| {
                let service = observed.cluster.version_services.get(&version);
                service.is_some_and(|service| service.has_endpoints)
            };
            let is_there = |version| observed.is_ready(version) && has_endpoints(version);
            let is_awaited = route.pending.is_none() || !observed.is_stuck(route);
            is_awaited
                && route.shares.iter().all(|(version, _)| is_there(version))
                && route.shares.challengers().keys().all(is_up)
        });
        let is_over = self.ends() || self.foreign_backend().is_some() || !can_answer;
        after.are_handed_back() && self.leaves_route(observed) && is_over
    }

    /// Whether their route may not be written yet, or at all.
    pub(super) fn is_held_off_route(&self, observed: &Observed) -> bool {
        let route = observed.cluster.route.as_ref().filter(|route| route.referred.is_some());
        route.is_some_and(|route| {
            let is_written = observed.is_route_desired(route) || observed.hands_back();
            !is_written || self.foreign_backend().is_some()
        })
    }

    /// Before weights are written to it.
    pub(super) fn promise_of_their_route(&mut self, before: &Shares, after: &Shares, observed: &Observed) {
        if !self.cluster.gateway.is_theirs {
            return;
        }
        let is_there = self.cluster.gateway.theirs.route.is_some();
        self.promise(is_there, |_| "the route of somebody else is not created".into());
        let is_known = observed.status.route_ref.is_some() && self.intent.has_finalizer;
        self.promise(is_known, |_| "their route is written only if it will be handed back".into());
        let foreign = self.foreign_backend();
        self.promise(foreign.is_none() || after.are_handed_back(), |_| {
            format!("nothing is shared with {foreign:?} in one rule")
        });
        let is_ready = before.leader().is_some_and(|leader| observed.is_ready(leader));
        let is_calm = is_ready && !self.is_routed_by_others && !self.leaves_route_at_once(after, observed);
        let enters = before.service() == 0 && after.follow_service();
        let leaves = before.follow_service() && after.service() == 0;
        self.promise(!is_calm || (!enters && !leaves), |_| {
            let (before, after) = (before.service(), after.service());
            format!("the Service goes from {before} to {after} in one step")
        });
        let answers = self.answering() > 0 || !is_ready || self.ends() || foreign.is_some();
        let begins = after.follow_service() && !before.follow_service();
        self.promise(!begins || answers, |_| "requests go back to a Service that answers".into());
    }

    /// Before the ModelAlias goes: their route leads to its Service again, unless that took too long.
    pub(super) fn promise_of_handed_back_route(&mut self) {
        let Lifecycle::Deleting { since } = self.intent.lifecycle else { return };
        let gateway = &self.cluster.gateway;
        let can_be_known = self.status.route_ref.is_some() && gateway.is != GatewayIs::Hidden;
        let is_late = self.now.duration_since(since) >= GRACE;
        let route = gateway.theirs.route.as_ref().filter(|_| can_be_known && !is_late);
        let is_back = route.is_none_or(|route| route.shares.are_handed_back());
        self.promise(is_back, |_| "their route is handed back before the ModelAlias goes".into());
    }

    /// At rest, their route leads to the Service, unless it shares the requests.
    pub(super) fn their_route_is_met(&self) -> Result<(), String> {
        let gateway = &self.cluster.gateway;
        if self.refers() {
            let is_clear = gateway.rendered.route.is_none();
            return is_clear.then_some(()).ok_or_else(|| "the route that Laurel rendered is left".into());
        }
        let is_known = !self.has_lost_reference && gateway.is != GatewayIs::Hidden;
        let route = gateway.theirs.route.as_ref().filter(|_| is_known);
        match route.filter(|route| !route.shares.are_handed_back()) {
            Some(route) => Err(format!("their route is not handed back: {:?}", route.shares)),
            None if self.status.route_ref.is_some() && is_known && gateway.is != GatewayIs::Away => {
                Err("their route is still in the status".into())
            }
            None => Ok(()),
        }
    }
}
