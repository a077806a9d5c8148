//! Challengers: other `ModelAliases` that get a share of this one's requests, or copies of them, for days or
//! weeks.
//!
//! The route names the Service of a challenger's name, which selects whatever version serves there. So the
//! challenger's promotions, rollbacks and failovers need no change of the route. What it cannot take goes to
//! the champion.
//!
//! Copies need no preparation: one write begins or ends them. A Service that gets copies must exist, or some
//! implementations answer no request at all, so they go only to one with a ready endpoint.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    ChallengerIntent, ChallengerService, ChallengerShare, Observed, ServingIntent, Shadow, ShareIntent,
    Shares,
    cluster_view::{ChampionView, RouteView},
};
use crate::api::condition::{Reason, ReasonMessage};

/// How long after the parents of a champion's route accepted it its data plane may still use a share that it
/// no longer has. Longer than that, the deletion of a challenger does not wait for.
const LEAVES: SignedDuration = SignedDuration::from_secs(5);

/// The interval between looks at the route of a champion that is waited for.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// For how long the deletion of a challenger waits until its champions send it no requests any more, and that
/// of any ModelAlias until the route of somebody else is handed back.
const LEAVE_DEADLINE: SignedDuration = SignedDuration::from_secs(30);

impl Observed {
    /// Returns the Service of a challenger, if a route may name it.
    fn ready_challenger(&self, name: &str) -> Option<ChallengerService> {
        let service = self.cluster.challengers.get(name)?.service;
        service.filter(|service| service.has_endpoints)
    }

    /// Whether the challenger may have a share, or copies, now.
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
        self.champion().zip(self.routes_awaited_until(since))
    }

    /// Until when a deletion waits for routes, if that is in the future.
    pub(super) fn routes_awaited_until(&self, since: Timestamp) -> Option<Timestamp> {
        let until = since.checked_add(LEAVE_DEADLINE).unwrap_or(Timestamp::MAX);
        (self.now < until).then_some(until)
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
    let desired = serving.challengers.iter().map(|challenger| &challenger.name);
    let all: BTreeSet<&String> = named.into_iter().flat_map(BTreeMap::keys).chain(desired).collect();
    let share = |name: &String| {
        // Without a ready pod it would answer with errors, so it does not stay for a moment either.
        let port = observed.ready_challenger(name)?.port;
        let due = weight_of(serving, name).filter(|_| observed.can_challenge(name));
        let weight = named.and_then(|named| named.get(name)).map_or(0, |share| share.weight);
        let weight = match (due, weight) {
            // Nothing can be lost.
            (Some(due), _) if route.is_none() => due,
            (Some(_), 0) => Shares::LEAST,
            (Some(_), Shares::LEAST) if !has_settled => Shares::LEAST,
            (Some(due), _) => due,
            (None, 0) => return None,
            (None, Shares::LEAST) if has_settled => return None,
            (None, _) => Shares::LEAST,
        };
        Some((name.clone(), ChallengerShare { port, weight }))
    };
    all.into_iter().filter_map(share).collect()
}

/// Returns the challengers that get copies of the requests now.
pub(super) fn shadows(observed: &Observed, serving: &ServingIntent) -> BTreeMap<String, Shadow> {
    let shadow = |challenger: &ChallengerIntent| {
        let per_cent = challenger.share.mirror()?;
        let service = observed.ready_challenger(&challenger.name)?;
        let shadow = Shadow { port: service.port, per_cent };
        observed.can_challenge(&challenger.name).then(|| (challenger.name.clone(), shadow))
    };
    serving.challengers.iter().filter_map(shadow).collect()
}

/// Returns the weight in the route that a challenger should have, if it should answer requests.
fn weight_of(serving: &ServingIntent, name: &str) -> Option<u32> {
    let weight = share_of(serving, name).map(ShareIntent::weight);
    weight.filter(|weight| *weight > 0)
}

/// Returns how many of the requests should be copied to a challenger, in per cent.
fn copies_of(serving: &ServingIntent, name: &str) -> Option<u32> {
    share_of(serving, name).and_then(ShareIntent::mirror)
}

fn share_of(serving: &ServingIntent, name: &str) -> Option<ShareIntent> {
    let mut challengers = serving.challengers.iter();
    challengers.find(|challenger| challenger.name == name).map(|challenger| challenger.share)
}

/// Returns the challengers that can keep the share that they have.
pub(super) fn staying(observed: &Observed, route: &RouteView) -> BTreeMap<String, ChallengerShare> {
    let shares = route.shares.challengers().iter();
    let stays = shares.filter(|(name, _)| observed.ready_challenger(name).is_some());
    stays.map(|(name, share)| (name.clone(), *share)).collect()
}

/// Whether that is so for all of them.
pub(super) fn are_staying(observed: &Observed, route: &RouteView) -> bool {
    route.shares.challengers().keys().all(|name| observed.ready_challenger(name).is_some())
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
    let lacking: Vec<(&ChallengerIntent, String)> = serving
        .challengers
        .iter()
        .filter_map(|challenger| Some((challenger, cause(observed, &challenger.name)?)))
        .collect();
    if let Some(leader) = route.shares.leader().filter(|_| !lacking.is_empty()) {
        let causes = lacking.iter().map(|(ChallengerIntent { name, share }, cause)| match share {
            ShareIntent::Weight(weight) => {
                format!("the challenger {name:?} cannot take its {weight} % of the requests: {cause}")
            }
            ShareIntent::Mirror(_) => format!("the challenger {name:?} gets no copies of requests: {cause}"),
        });
        let causes = causes.collect::<Vec<_>>().join("; ");
        let is_answered_for = lacking.iter().any(|(it, _)| matches!(it.share, ShareIntent::Weight(_)));
        let instead =
            if is_answered_for { format!("; version {leader} answers instead") } else { String::new() };
        return Some(ReasonMessage::new(Reason::ChallengerUnavailable, causes + &instead));
    }
    let (weights, shadows) = (route.shares.challengers(), route.shares.shadows());
    let has_its_share = |ChallengerIntent { name, share }: &&ChallengerIntent| match share {
        ShareIntent::Weight(_) => weights.get(name).is_some_and(|it| it.weight == share.weight()),
        ShareIntent::Mirror(per_cent) => shadows.get(name).is_some_and(|it| it.per_cent == *per_cent),
    };
    let lacking = serving.challengers.iter().find(|challenger| !has_its_share(challenger));
    let answers = weights.keys().find(|name| weight_of(serving, name).is_none());
    let undesired = answers.or_else(|| shadows.keys().find(|name| copies_of(serving, name).is_none()));
    let message = match (lacking, undesired) {
        (Some(challenger), _) => format!("the challenger {:?} enters the HTTPRoute", challenger.name),
        (None, Some(name)) => format!("the challenger {name:?} leaves the HTTPRoute"),
        (None, None) => return None,
    };
    Some(ReasonMessage::new(Reason::TrafficPending, message))
}

/// Why a challenger can have neither a share nor copies.
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
pub(super) fn described(observed: &Observed, shares: &Shares) -> Vec<String> {
    let who = |name: &String| {
        let version = observed.cluster.challengers.get(name).and_then(|challenger| challenger.service);
        let version = version.map_or_else(String::new, |service| format!(" (version {})", service.version));
        format!("the challenger {name:?}{version}")
    };
    let answers = shares.challengers().iter();
    let answers = answers.map(|(name, it)| format!("{} gets {} %", who(name), shares.per_cent_of(it.weight)));
    let copies = shares.shadows().iter();
    let copies =
        copies.map(|(name, it)| format!("{} gets copies of {} % of the requests", who(name), it.per_cent));
    answers.chain(copies).collect()
}
