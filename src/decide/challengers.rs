//! Challengers: other `ModelAliases` that get a share of this one's requests, for days or weeks.
//!
//! The route names the Service of a challenger's name, which selects whatever version serves there. So the
//! challenger's promotions, rollbacks and failovers need no change of the route. What it cannot take goes to
//! the champion.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    ChallengerIntent, ChallengerService, ChallengerShare, Observed, ServingIntent, Shares,
    cluster_view::{ChampionView, RouteView},
};
use crate::api::condition::{Reason, ReasonMessage};

/// How long after the parents of a champion's route accepted it its data plane may still use a share that it
/// no longer has. Longer than that, the deletion of a challenger does not wait for.
const LEAVES: SignedDuration = SignedDuration::from_secs(5);

/// The interval between looks at the route of a champion that is waited for.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// For how long the deletion of a challenger waits until its champions send it no requests any more.
const LEAVE_DEADLINE: SignedDuration = SignedDuration::from_secs(30);

impl Observed {
    /// Returns the Service of a challenger, if a route may name it.
    fn ready_challenger(&self, name: &str) -> Option<ChallengerService> {
        let service = self.cluster.challengers.get(name)?.service;
        service.filter(|service| service.has_endpoints)
    }

    /// Whether the challenger may have a share now.
    fn can_challenge(&self, name: &str) -> bool {
        let challenger = self.cluster.challengers.get(name);
        challenger.is_some_and(|challenger| challenger.excluded.is_none())
            && self.ready_challenger(name).is_some()
    }

    /// Returns the champion whose route sends requests to this ModelAlias, or did until a moment ago, if any
    /// does.
    pub(super) fn champion(&self) -> Option<&str> {
        let reaches = |champion: &&ChampionView| {
            champion.route.as_ref().is_some_and(|route| {
                let left_at = route.accepted_at.and_then(|at| at.checked_add(LEAVES).ok());
                route.names_it || left_at.is_none_or(|left_at| self.now < left_at)
            })
        };
        let mut champions = self.cluster.champions.iter();
        champions.find(|(_, champion)| reaches(champion)).map(|(name, _)| name.as_str())
    }

    /// Returns the champion that the deletion waits for, and until when.
    pub(super) fn leaves_champion(&self, since: Timestamp) -> Option<(&str, Timestamp)> {
        let until = since.checked_add(LEAVE_DEADLINE).unwrap_or(Timestamp::MAX);
        self.champion().filter(|_| self.now < until).map(|champion| (champion, until))
    }

    /// When to look again whether a champion has left: nothing that is watched shows that here.
    pub(super) fn champion_leaves(&self) -> Timestamp {
        self.now.checked_add(LOOK_AGAIN).unwrap_or(Timestamp::MAX)
    }
}

/// Returns the shares of the challengers for the next write: towards what is desired, one safe step at a
/// time.
pub(super) fn next(
    observed: &Observed,
    serving: &ServingIntent,
    route: Option<&RouteView>,
    has_settled: bool,
) -> BTreeMap<String, ChallengerShare> {
    let named = route.map(|route| route.shares.challengers());
    let desired = || serving.challengers.iter().map(|challenger| &challenger.name);
    let all: BTreeSet<&String> = named.into_iter().flat_map(BTreeMap::keys).chain(desired()).collect();
    let share = |name: &String| {
        // Without a ready pod it would answer with errors, so it does not stay for a moment either.
        let port = observed.ready_challenger(name)?.port;
        let challenger = desired_of(serving, name).filter(|_| observed.can_challenge(name));
        let weight = named.and_then(|named| named.get(name)).map_or(0, |share| share.weight);
        let weight = match (challenger, weight) {
            // Nothing can be lost.
            (Some(challenger), _) if route.is_none() => challenger.share(),
            (Some(_), 0) => Shares::LEAST,
            (Some(_), Shares::LEAST) if !has_settled => Shares::LEAST,
            (Some(challenger), _) => challenger.share(),
            (None, 0) => return None,
            (None, Shares::LEAST) if has_settled => return None,
            (None, _) => Shares::LEAST,
        };
        Some((name.clone(), ChallengerShare { port, weight }))
    };
    all.into_iter().filter_map(share).collect()
}

fn desired_of<'a>(serving: &'a ServingIntent, name: &str) -> Option<&'a ChallengerIntent> {
    serving.challengers.iter().find(|challenger| challenger.name == name)
}

/// Whether a challenger waits for the route to settle.
pub(super) fn are_moving(next: &BTreeMap<String, ChallengerShare>) -> bool {
    next.values().any(|share| share.weight == Shares::LEAST)
}

/// Returns why not every challenger has the share that it should have.
pub(super) fn unmet(
    observed: &Observed,
    serving: &ServingIntent,
    route: &RouteView,
) -> Option<ReasonMessage> {
    let shares = route.shares.challengers();
    let causes: Vec<String> = serving
        .challengers
        .iter()
        .filter_map(|ChallengerIntent { name, weight }| {
            let cause = cause(observed, name)?;
            Some(format!("the challenger {name:?} cannot take its {weight} % of the requests: {cause}"))
        })
        .collect();
    if let Some(leader) = route.shares.leader().filter(|_| !causes.is_empty()) {
        let message = format!("{}; version {leader} answers instead", causes.join("; "));
        return Some(ReasonMessage::new(Reason::ChallengerUnavailable, message));
    }
    let has_its_share = |challenger: &&ChallengerIntent| {
        shares.get(&challenger.name).is_some_and(|share| share.weight == challenger.share())
    };
    let lacking = serving.challengers.iter().find(|challenger| !has_its_share(challenger));
    let undesired = shares.keys().find(|name| desired_of(serving, name).is_none());
    let message = match (lacking, undesired) {
        (Some(challenger), _) => format!("the challenger {:?} enters the HTTPRoute", challenger.name),
        (None, Some(name)) => format!("the challenger {name:?} leaves the HTTPRoute"),
        (None, None) => return None,
    };
    Some(ReasonMessage::new(Reason::TrafficPending, message))
}

/// Why a challenger cannot have a share.
fn cause(observed: &Observed, name: &str) -> Option<String> {
    let view = observed.cluster.challengers.get(name);
    let Some(view) = view else { return Some("it has not been observed yet".to_owned()) };
    match (&view.excluded, view.service) {
        (Some(excluded), _) => Some(excluded.clone()),
        (None, None) => Some("its Service selects no version; see its conditions".to_owned()),
        (None, Some(service)) if !service.has_endpoints => {
            Some(format!("its version {} has no ready pod; see its conditions", service.version))
        }
        (None, Some(_)) => None,
    }
}

/// Returns what the challengers get, for the condition.
pub(super) fn described(observed: &Observed, shares: &Shares) -> impl Iterator<Item = String> {
    shares.challengers().iter().map(|(name, share)| {
        let version = observed.cluster.challengers.get(name).and_then(|challenger| challenger.service);
        let version = version.map_or_else(String::new, |service| format!(" (version {})", service.version));
        format!("the challenger {name:?}{version} gets {} %", shares.per_cent_of(share.weight))
    })
}
