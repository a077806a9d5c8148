//! What must hold of the shares of challengers: at each write, right after it, and at rest.

use std::collections::BTreeMap;

use super::{World, gateway::RIVALS};
use crate::{
    api::condition::Reason,
    decide::{
        BlockerScope, ChallengerIntent, ChallengerShare, Lifecycle, Observed, Shadow, ShareIntent, Shares,
    },
};

impl World {
    /// Sets the weights of the challengers in the spec. The API server accepts them only with a route.
    pub(super) fn set_challengers(&mut self, weights: &[u32]) {
        let is_routed = self.serving().routed;
        let named = RIVALS.iter().zip(weights).filter(|_| is_routed);
        let challengers = named.map(|(name, weight)| ChallengerIntent {
            name: (*name).to_owned(),
            share: ShareIntent::Weight(*weight),
        });
        self.serving().challengers = challengers.collect();
    }

    /// Makes a challenger one that only gets copies of so many requests, or none if it gets none.
    pub(super) fn set_shadow(&mut self, index: usize, per_cent: u32) {
        let name = RIVALS[index % RIVALS.len()];
        let is_routed = self.serving().routed;
        let challengers = &mut self.serving().challengers;
        challengers.retain(|challenger| challenger.name != name);
        if is_routed && per_cent > 0 {
            let share = ShareIntent::Mirror(per_cent);
            challengers.push(ChallengerIntent { name: name.to_owned(), share });
        }
    }

    fn share_of_challenger(&self, name: &str) -> Option<ShareIntent> {
        let mut challengers = self.intent.serving.iter().flat_map(|serving| &serving.challengers);
        challengers.find(|it| it.name == name).map(|it| it.share)
    }

    fn weight_of_challenger(&self, name: &str) -> u32 {
        match self.share_of_challenger(name) {
            Some(ShareIntent::Weight(weight)) => weight * (Shares::WHOLE / 100),
            _ => 0,
        }
    }

    fn copies_of_challenger(&self, name: &str) -> Option<u32> {
        match self.share_of_challenger(name) {
            Some(ShareIntent::Mirror(per_cent)) => Some(per_cent),
            _ => None,
        }
    }

    /// Before copies to challengers are written: some implementations answer no request at all while a
    /// Service that gets copies does not exist.
    fn promise_of_shadows(&mut self, after: &Shares, observed: &Observed) {
        for (name, shadow) in after.shadows() {
            let view = observed.cluster.challengers.get(name);
            let can_take = view.is_some_and(|view| {
                view.excluded.is_none() && view.service.is_some_and(|service| service.has_endpoints)
            });
            self.promise(can_take, |_| format!("the challenger {name} cannot take copies"));
            let due = self.copies_of_challenger(name);
            self.promise(due == Some(shadow.per_cent), |_| {
                format!("the challenger {name} gets {shadow:?}, but {due:?} is asked for")
            });
        }
    }

    /// Before weights are written.
    pub(super) fn promise_of_challengers(&mut self, before: &Shares, after: &Shares, observed: &Observed) {
        let of = |shares: &Shares, name: &str| shares.challengers().get(name).map_or(0, |share| share.weight);
        self.promise_of_shadows(after, observed);
        let serves = before.leader().filter(|leader| observed.is_ready(*leader));
        for name in RIVALS {
            let (had, gets) = (of(before, name), of(after, name));
            let view = &observed.cluster.challengers[name];
            let is_ready = view.service.is_some_and(|service| service.has_endpoints);
            let due = self.weight_of_challenger(name);
            self.promise(gets <= had || (is_ready && view.excluded.is_none()), |_| {
                format!("the challenger {name} cannot take a share of {gets}")
            });
            self.promise(gets <= due.max(Shares::LEAST).max(had), |_| {
                format!("the challenger {name} gets {gets}, but {due} is asked for")
            });
            let is_calm = !self.is_routed_by_others && !self.leaves_route_at_once(after, observed);
            if serves.is_some() && is_calm {
                let enters = had == 0 && gets > Shares::LEAST;
                let leaves = had > Shares::LEAST && gets == 0 && is_ready;
                self.promise(!enters && !leaves, |_| {
                    format!("the share of the challenger {name} goes from {had} to {gets} in one step")
                });
            }
        }
    }

    /// After all writes of a reconcile: the route names no challenger that was seen not to be ready, as long
    /// as a version can take its share.
    pub(super) fn promise_of_no_lost_share(&mut self, observed: &Observed) {
        let scope = self.intent.blocker.as_ref().map(|blocker| blocker.scope);
        let is_managed = self.intent.serving.as_ref().is_some_and(|serving| serving.routed)
            && self.intent.lifecycle == Lifecycle::Active
            && scope.is_none_or(|scope| scope == BlockerScope::Changes)
            && observed.cluster.route_error.is_none()
            && !observed.desired_is_new()
            && !self.is_held_off_route(observed);
        let route = self.cluster.gateway.route().filter(|_| is_managed);
        let Some(shares) = route.map(|route| route.shares.clone()) else { return };
        if shares.leader().is_none_or(|leader| !observed.is_ready(leader)) {
            return;
        }
        for name in shares.named_challengers() {
            let view = observed.cluster.challengers.get(name);
            let is_ready = view.and_then(|view| view.service).is_some_and(|service| service.has_endpoints);
            self.promise(is_ready, |_| {
                format!("the route sends requests to the challenger {name}, which cannot answer")
            });
        }
    }

    /// The shares of the challengers at rest: what is asked for, where that can be had.
    pub(super) fn challengers_at_rest(&self) -> BTreeMap<String, ChallengerShare> {
        let gateway = &self.cluster.gateway;
        let share = |name: &&str| {
            let weight = self.weight_of_challenger(name);
            let has_share = weight > 0 && gateway.can_challenge(name);
            has_share.then(|| ((*name).to_owned(), ChallengerShare { port: 8080, weight }))
        };
        RIVALS.iter().filter_map(share).collect()
    }

    /// The copies that the challengers get at rest.
    pub(super) fn shadows_at_rest(&self) -> BTreeMap<String, Shadow> {
        let shadow = |name: &&str| {
            let per_cent =
                self.copies_of_challenger(name).filter(|_| self.cluster.gateway.can_challenge(name))?;
            Some(((*name).to_owned(), Shadow { port: 8080, per_cent }))
        };
        RIVALS.iter().filter_map(shadow).collect()
    }

    /// At rest, the condition names the challengers that cannot take their share, and nothing else depends on
    /// them.
    pub(super) fn unavailable_challengers_are_reported(&self) -> Result<(), String> {
        let gateway = &self.cluster.gateway;
        let lacking = RIVALS.iter().filter(|name| self.share_of_challenger(name).is_some());
        let lacking: Vec<&&str> = lacking.filter(|name| !gateway.can_challenge(name)).collect();
        let split = self.status.conditions.iter().find(|condition| condition.type_ == "TrafficSplit");
        let reported = Reason::ChallengerUnavailable.to_string();
        let is_reported = split.is_some_and(|split| split.reason == reported);
        let is_named = |name: &&&str| split.is_some_and(|split| split.message.contains(**name));
        if is_reported == lacking.is_empty() || !lacking.iter().all(is_named) {
            return Err(format!("{lacking:?} cannot take their share, but: {split:?}"));
        }
        Ok(())
    }
}
