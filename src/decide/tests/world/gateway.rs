//! The Gateway: an HTTPRoute, the Services that it names, a controller that accepts it, and a data plane that
//! uses old weights for a while after that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        model_alias::RouteRevision,
        names::Version,
    },
    decide::{
        ChallengerService, ChallengerView, ClusterView, ReferredRoute, RouteView, Shares, VersionService,
    },
};

/// The challengers that there are, by name.
pub(super) const RIVALS: [&str; 2] = ["rival-a", "rival-b"];

/// What becomes of a challenger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::decide::tests) enum RivalIs {
    /// The version that it serves has no ready pod.
    Down,
    /// It serves, and is being deleted.
    Deleted,
    /// There is none.
    Gone,
    /// It serves this version.
    #[serde(untagged)]
    Serving(u32),
}

/// For how long the data plane sends requests as before, after the controller accepted a change.
const LAG: SignedDuration = SignedDuration::from_secs(20);

/// How the Gateway's controller works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::decide::tests) enum GatewayIs {
    /// It accepts each change.
    #[default]
    Fine,
    /// It accepts no change. What it accepted before reaches the data plane in time: no condition says when
    /// that does not happen, so Laurel has to rely on it (`docs/traffic.md`, "What to know").
    Away,
    /// HTTPRoutes cannot be read; what exists goes on working.
    Hidden,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    pub(super) shares: Shares,
    pub(super) is_edited: bool,
    uid: (&'static str, u32),
    generation: i64,
    accepted: i64,
}

/// A route, and what becomes of its weights.
#[derive(Clone, Debug, Default)]
pub(super) struct Channel {
    pub(super) route: Option<Route>,
    /// What the data plane does.
    live: Shares,
    /// What it will do, and when.
    coming: VecDeque<(Timestamp, Shares)>,
    routes_made: u32,
}

impl Channel {
    fn write(&mut self, shares: Shares, whose: &'static str) {
        if let Some(route) = &mut self.route {
            route.generation += i64::from(route.shares != shares || route.is_edited);
            route.shares = shares;
            route.is_edited = false;
        } else {
            self.routes_made += 1;
            let uid = (whose, self.routes_made);
            self.route = Some(Route { shares, is_edited: false, uid, generation: 1, accepted: 0 });
        }
    }

    /// The route is deleted: nobody is answered through it any more.
    fn delete(&mut self) {
        self.route = None;
        self.live = Shares::default();
        self.coming.clear();
    }

    fn moment(&mut self, now: Timestamp, accepts: bool) {
        if let Some(route) = self.route.as_mut().filter(|route| accepts && route.accepted < route.generation)
        {
            route.accepted = route.generation;
            self.coming.push_back((now + LAG, route.shares.clone()));
        }
        while let Some((_, shares)) = self.coming.pop_front_if(|(at, _)| *at <= now) {
            self.live = shares;
        }
    }

    fn may_reach(&self, version: Version) -> bool {
        let written = self.route.iter().map(|route| &route.shares);
        let mut all = written.chain([&self.live]).chain(self.coming.iter().map(|(_, shares)| shares));
        all.any(|shares| shares.of(version) > 0 || shares.mirrored_to(version).is_some())
    }

    fn digest(&self, now: Timestamp) -> impl std::hash::Hash + use<> {
        let coming: Vec<(i64, Shares)> = self
            .coming
            .iter()
            .map(|(at, shares)| (at.duration_since(now).as_secs(), shares.clone()))
            .collect();
        let route = self
            .route
            .as_ref()
            .map(|route| (route.shares.clone(), route.is_edited, route.accepted == route.generation));
        (route, self.live.clone(), coming)
    }
}

/// The Gateway.
#[derive(Clone, Debug, Default)]
pub(in crate::decide::tests) struct Gateway {
    pub(super) is: GatewayIs,
    pub(super) rendered: Channel,
    /// The route of somebody else, to which the spec may refer.
    pub(super) theirs: Channel,
    /// Whether that is the one that is looked at now.
    pub(super) is_theirs: bool,
    /// It sends requests to something else as well.
    pub(super) has_foreign: bool,
    /// The Services of versions, and whether they have ready endpoints.
    pub(super) services: BTreeMap<Version, bool>,
    /// A quota, or a policy, does not let anybody create Services of versions.
    pub(super) refuses_services: bool,
    /// The challengers, with the version that each serves.
    pub(super) rivals: BTreeMap<&'static str, (Version, RivalIs)>,
}

impl Gateway {
    fn channel(&self, is_theirs: bool) -> &Channel {
        if is_theirs { &self.theirs } else { &self.rendered }
    }

    fn current(&mut self) -> &mut Channel {
        if self.is_theirs { &mut self.theirs } else { &mut self.rendered }
    }

    /// The route that is looked at now.
    pub(super) fn route(&self) -> Option<&Route> {
        self.channel(self.is_theirs).route.as_ref()
    }

    /// The weights in the route of somebody else.
    pub(in crate::decide::tests) fn their_shares(&self) -> Option<Shares> {
        self.theirs.route.as_ref().map(|route| route.shares.clone())
    }

    pub(super) fn write(&mut self, shares: Shares) {
        let whose = if self.is_theirs { "theirs" } else { "rendered" };
        self.current().write(shares, whose);
    }

    /// Somebody applies the manifest of their route: it sends everything to the Service.
    pub(super) fn apply_manifest(&mut self) {
        self.has_foreign = false;
        self.theirs.write(Shares::led_by_service([], BTreeMap::new()), "theirs");
    }

    /// Somebody changes the route by hand: its weights, or something else in it.
    pub(super) fn edit(&mut self, weights: Option<Shares>) {
        let is_theirs = self.is_theirs;
        if let Some(route) = &mut self.current().route {
            // What else there is in a route of theirs is their own.
            route.is_edited |= weights.is_none() && !is_theirs;
            route.shares = weights.unwrap_or_else(|| route.shares.clone());
            route.generation += 1;
        }
    }

    /// Somebody adds another backend to their route, or removes it.
    pub(super) fn set_foreign(&mut self, there: bool) {
        if let Some(route) = self.theirs.route.as_mut().filter(|_| there != self.has_foreign) {
            route.generation += 1;
            self.has_foreign = there;
        }
    }

    /// A challenger comes, goes or changes.
    pub(super) fn change_rival(&mut self, index: usize, is: RivalIs) {
        let name = RIVALS[index % RIVALS.len()];
        let before = self.rivals.remove(name).map(|(version, _)| version);
        let version = match is {
            RivalIs::Gone => None,
            RivalIs::Serving(number) => Some(super::version(number)),
            RivalIs::Down | RivalIs::Deleted => before,
        };
        self.rivals.extend(version.map(|version| (name, (version, is))));
    }

    /// Whether a challenger can have a share.
    pub(super) fn can_challenge(&self, name: &str) -> bool {
        self.rivals.get(name).is_some_and(|(_, is)| matches!(is, RivalIs::Serving(_)))
    }

    /// The route is deleted.
    pub(super) fn delete_route(&mut self) {
        self.has_foreign &= !self.is_theirs;
        self.current().delete();
    }

    /// Runs the controller, the data plane and the endpoints of the Services.
    pub(super) fn moment(&mut self, now: Timestamp, is_ready: impl Fn(Version) -> bool) {
        for (version, has_endpoints) in &mut self.services {
            *has_endpoints = is_ready(*version);
        }
        let accepts = self.is != GatewayIs::Away;
        self.rendered.moment(now, accepts);
        self.theirs.moment(now, accepts);
    }

    /// Whether the data plane sends requests to the version, or may do so without another write. Without its
    /// Service there is no way to its pods.
    pub(super) fn may_reach(&self, version: Version) -> bool {
        if !self.services.contains_key(&version) {
            return false;
        }
        self.rendered.may_reach(version) || self.theirs.may_reach(version)
    }

    /// Whether the controller has accepted the route as it is.
    pub(super) fn has_accepted(&self) -> bool {
        self.route().is_some_and(|route| route.accepted == route.generation)
    }

    /// The versions that the data plane knows, with what it is about to know.
    pub(super) fn digest(&self, now: Timestamp) -> impl std::hash::Hash {
        let services = (self.services.clone(), self.refuses_services, self.rivals.clone());
        let theirs = (self.is_theirs, self.has_foreign, self.theirs.digest(now));
        (self.is, self.rendered.digest(now), theirs, services)
    }

    /// Whether this revision of the route is the current one.
    pub(super) fn is_current(&self, revision: &RouteRevision) -> bool {
        self.route().is_some_and(|route| route.revision() == *revision)
    }

    /// Adds what is visible of it. The controller's answer and endpoints may be older: those of `seen`.
    pub(super) fn show(&self, seen: &Self, view: &mut ClusterView) {
        let service = |(version, _): (&Version, &bool)| {
            let has_endpoints = seen.services.get(version).copied().unwrap_or_default();
            (*version, VersionService { outdated: false, has_endpoints })
        };
        view.version_services = self.services.iter().map(service).collect();
        view.challengers = RIVALS.iter().map(|name| ((*name).to_owned(), seen.show_rival(name))).collect();
        if self.is == GatewayIs::Hidden {
            let message = "Laurel is not allowed to watch HTTPRoutes";
            view.route_error = Some(ReasonMessage::new(Reason::TrafficUnsupported, message));
            return;
        }
        view.route = self.route().map(|route| {
            let seen = seen.channel(self.is_theirs).route.as_ref().filter(|seen| seen.uid == route.uid);
            let is_accepted = seen.is_some_and(|seen| seen.accepted == route.generation);
            RouteView {
                shares: route.shares.clone(),
                outdated: route.is_edited,
                revision: route.revision(),
                pending: (!is_accepted).then(|| "the Gateway has not accepted it".to_owned()),
                referred: self.is_theirs.then(ReferredRoute::default),
            }
        });
    }

    fn show_rival(&self, name: &str) -> ChallengerView {
        let Some((version, is)) = self.rivals.get(name) else {
            return ChallengerView { excluded: Some("there is none".to_owned()), service: None };
        };
        let has_endpoints = *is != RivalIs::Down;
        ChallengerView {
            service: Some(ChallengerService { version: *version, port: 8080, has_endpoints }),
            excluded: (*is == RivalIs::Deleted).then(|| "it is being deleted".to_owned()),
        }
    }

    /// The versions that the route names.
    pub(super) fn named(&self) -> BTreeSet<Version> {
        self.route().into_iter().flat_map(|route| route.shares.iter()).map(|(version, _)| version).collect()
    }
}

impl Route {
    fn revision(&self) -> RouteRevision {
        RouteRevision { uid: format!("{}-{}", self.uid.0, self.uid.1), generation: self.generation }
    }
}
