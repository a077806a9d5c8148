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
    decide::{ChallengerService, ChallengerView, ClusterView, RouteView, Shares, VersionService},
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
    uid: u32,
    generation: i64,
    accepted: i64,
}

/// The Gateway.
#[derive(Clone, Debug, Default)]
pub(in crate::decide::tests) struct Gateway {
    pub(super) is: GatewayIs,
    pub(super) route: Option<Route>,
    /// The Services of versions, and whether they have ready endpoints.
    pub(super) services: BTreeMap<Version, bool>,
    /// A quota, or a policy, does not let anybody create Services of versions.
    pub(super) refuses_services: bool,
    /// The challengers, with the version that each serves.
    pub(super) rivals: BTreeMap<&'static str, (Version, RivalIs)>,
    /// What the data plane does.
    live: Shares,
    /// What it will do, and when.
    coming: VecDeque<(Timestamp, Shares)>,
    routes_made: u32,
}

impl Gateway {
    pub(super) fn write(&mut self, shares: Shares) {
        if let Some(route) = &mut self.route {
            route.generation += i64::from(route.shares != shares || route.is_edited);
            route.shares = shares;
            route.is_edited = false;
        } else {
            self.routes_made += 1;
            let uid = self.routes_made;
            self.route = Some(Route { shares, is_edited: false, uid, generation: 1, accepted: 0 });
        }
    }

    /// Somebody changes the route by hand: its weights, or something else in it.
    pub(super) fn edit(&mut self, weights: Option<Shares>) {
        if let Some(route) = &mut self.route {
            route.is_edited |= weights.is_none();
            route.shares = weights.unwrap_or_else(|| route.shares.clone());
            route.generation += 1;
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

    /// The route is deleted: nobody is answered through it any more.
    pub(super) fn delete_route(&mut self) {
        self.route = None;
        self.live = Shares::default();
        self.coming.clear();
    }

    /// Runs the controller, the data plane and the endpoints of the Services.
    pub(super) fn moment(&mut self, now: Timestamp, is_ready: impl Fn(Version) -> bool) {
        for (version, has_endpoints) in &mut self.services {
            *has_endpoints = is_ready(*version);
        }
        let accepts = self.is != GatewayIs::Away;
        if let Some(route) = self.route.as_mut().filter(|route| accepts && route.accepted < route.generation)
        {
            route.accepted = route.generation;
            self.coming.push_back((now + LAG, route.shares.clone()));
        }
        while let Some((_, shares)) = self.coming.pop_front_if(|(at, _)| *at <= now) {
            self.live = shares;
        }
    }

    /// Whether the data plane sends requests to the version, or may do so without another write. Without its
    /// Service there is no way to its pods.
    pub(super) fn may_reach(&self, version: Version) -> bool {
        if !self.services.contains_key(&version) {
            return false;
        }
        let written = self.route.iter().map(|route| &route.shares);
        let mut all = written.chain([&self.live]).chain(self.coming.iter().map(|(_, shares)| shares));
        all.any(|shares| shares.of(version) > 0 || shares.mirrored_to(version).is_some())
    }

    /// Whether the controller has accepted the route as it is.
    pub(super) fn has_accepted(&self) -> bool {
        self.route.as_ref().is_some_and(|route| route.accepted == route.generation)
    }

    /// The versions that the data plane knows, with what it is about to know.
    pub(super) fn digest(&self, now: Timestamp) -> impl std::hash::Hash {
        let coming: Vec<(i64, Shares)> = self
            .coming
            .iter()
            .map(|(at, shares)| (at.duration_since(now).as_secs(), shares.clone()))
            .collect();
        let route = self
            .route
            .as_ref()
            .map(|route| (route.shares.clone(), route.is_edited, route.accepted == route.generation));
        let services = (self.services.clone(), self.refuses_services, self.rivals.clone());
        (self.is, route, services, self.live.clone(), coming)
    }

    /// Whether this revision of the route is the current one.
    pub(super) fn is_current(&self, revision: &RouteRevision) -> bool {
        self.route.as_ref().is_some_and(|route| route.revision() == *revision)
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
        view.route = self.route.as_ref().map(|route| {
            let seen = seen.route.as_ref().filter(|seen| seen.uid == route.uid);
            let is_accepted = seen.is_some_and(|seen| seen.accepted == route.generation);
            RouteView {
                shares: route.shares.clone(),
                outdated: route.is_edited,
                revision: route.revision(),
                pending: (!is_accepted).then(|| "the Gateway has not accepted it".to_owned()),
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
        self.route.iter().flat_map(|route| route.shares.iter()).map(|(version, _)| version).collect()
    }
}

impl Route {
    fn revision(&self) -> RouteRevision {
        RouteRevision { uid: self.uid.to_string(), generation: self.generation }
    }
}
