//! The shares of requests that versions get behind a route.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::names::Version;

/// The weight of each version that a route names, and of each challenger, and who gets copies of the
/// requests. The weights that Laurel writes add up to [`Shares::WHOLE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shares {
    #[serde(flatten)]
    weights: BTreeMap<Version, u32>,
    /// By the name of the ModelAlias, which is the name of its Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    challengers: BTreeMap<String, ChallengerShare>,
    /// The weight of the Service with the ModelAlias's name, in the route of somebody else. It leads to the
    /// version that the Service selects.
    #[serde(default, skip_serializing_if = "is_zero")]
    service: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror: Option<Mirror>,
    /// The challengers that get copies of the requests, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    shadows: BTreeMap<String, Shadow>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
fn is_zero(weight: &u32) -> bool {
    *weight == 0
}

/// The share of another ModelAlias, whose Service the route names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChallengerShare {
    /// The port of its Service.
    pub port: u16,
    /// Its weight.
    pub weight: u32,
}

/// A version that gets copies of the requests. Its answers to them are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mirror {
    /// The version.
    pub version: Version,
    /// How many of the requests are copied, in per cent.
    pub per_cent: u32,
}

/// Another ModelAlias whose Service gets copies of the requests. Its answers to them are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shadow {
    /// The port of its Service.
    pub port: u16,
    /// How many of the requests are copied, in per cent.
    pub per_cent: u32,
}

impl Shares {
    /// All requests.
    pub const WHOLE: u32 = 1_000_000;
    /// The smallest share: it keeps a version in the route without sending it a noticeable number of
    /// requests, so that the next change of weights does not go through 0.
    pub const LEAST: u32 = 1;

    /// Gives `leader` everything except for the least share of each of the others.
    #[must_use]
    pub fn led_by(leader: Version, others: impl IntoIterator<Item = Version>) -> Self {
        Self::beside(leader, others.into_iter().map(|version| (version, Self::LEAST)))
    }

    /// Gives `leader` everything that the others do not get.
    #[must_use]
    pub fn beside(leader: Version, others: impl IntoIterator<Item = (Version, u32)>) -> Self {
        let others = others.into_iter().filter(|(version, _)| *version != leader);
        let mut weights: BTreeMap<Version, u32> = others.collect();
        let given: u32 = weights.values().sum();
        weights.insert(leader, Self::WHOLE.saturating_sub(given));
        Self { weights, ..Self::default() }
    }

    /// Gives challengers their weights, and lets the versions share the rest in the proportions that they
    /// have among themselves. `leader` gets what rounding leaves.
    #[must_use]
    pub fn beside_challengers(
        mut self,
        leader: Version,
        challengers: BTreeMap<String, ChallengerShare>,
    ) -> Self {
        if challengers.is_empty() {
            return self;
        }
        let rest = rest(&challengers);
        let others = self.weights.iter_mut().filter(|(version, _)| **version != leader);
        others.filter(|(_, weight)| **weight > Self::LEAST).for_each(|(_, weight)| {
            *weight = scaled(*weight, rest, Self::WHOLE).max(Self::LEAST);
        });
        let others = self.weights.iter().filter(|(version, _)| **version != leader);
        let given = challengers.values().map(|share| share.weight).chain(others.map(|(_, weight)| *weight));
        let given = given.fold(0, u32::saturating_add);
        self.weights.insert(leader, Self::WHOLE.saturating_sub(given));
        Self { challengers, ..self }
    }

    /// Returns the challengers that the route names.
    #[must_use]
    pub fn challengers(&self) -> &BTreeMap<String, ChallengerShare> {
        &self.challengers
    }

    /// Returns the names of all challengers that the route names, with a weight or for copies.
    #[must_use]
    pub fn named_challengers(&self) -> BTreeSet<&String> {
        self.challengers.keys().chain(self.shadows.keys()).collect()
    }

    /// Names a challenger that the route has.
    pub fn add_challenger(&mut self, name: &str, share: ChallengerShare) {
        self.challengers.insert(name.to_owned(), share);
    }

    /// Copies requests to challengers as well.
    #[must_use]
    pub fn with_shadows(self, shadows: BTreeMap<String, Shadow>) -> Self {
        Self { shadows, ..self }
    }

    /// Returns the challengers that get copies of the requests.
    #[must_use]
    pub fn shadows(&self) -> &BTreeMap<String, Shadow> {
        &self.shadows
    }

    /// Gives the Service with the ModelAlias's name everything that the versions and challengers do not get.
    #[must_use]
    pub fn led_by_service(
        versions: impl IntoIterator<Item = (Version, u32)>,
        challengers: BTreeMap<String, ChallengerShare>,
    ) -> Self {
        let shares = Self { weights: versions.into_iter().collect(), challengers, ..Self::default() };
        let service = Self::WHOLE.saturating_sub(shares.sum());
        Self { service, ..shares }
    }

    /// Leaves the Service with the ModelAlias's name the least share, which `leader` gives it.
    #[must_use]
    pub fn beside_service(mut self, leader: Version) -> Self {
        let lead = self.weights.entry(leader).or_default();
        *lead = lead.saturating_sub(Self::LEAST);
        Self { service: Self::LEAST, ..self }
    }

    /// Sets the weight of the Service with the ModelAlias's name.
    #[must_use]
    pub fn with_service(self, service: u32) -> Self {
        Self { service, ..self }
    }

    /// Returns the weight of the Service with the ModelAlias's name.
    #[must_use]
    pub fn service(&self) -> u32 {
        self.service
    }

    /// Whether requests go where the Service with the ModelAlias's name sends them, all but a few.
    #[must_use]
    pub fn follow_service(&self) -> bool {
        self.service > Self::LEAST
    }

    /// Whether nothing but that Service is named.
    #[must_use]
    pub fn are_handed_back(&self) -> bool {
        self.weights.is_empty()
            && self.challengers.is_empty()
            && self.mirror.is_none()
            && self.shadows.is_empty()
    }

    /// Returns the sum of all weights.
    fn sum(&self) -> u32 {
        let challengers = self.challengers.values().map(|share| share.weight);
        let all = self.weights.values().copied().chain(challengers).chain([self.service]);
        all.fold(0, u32::saturating_add)
    }

    /// Copies requests to a version as well.
    #[must_use]
    pub fn with_mirror(self, mirror: Option<Mirror>) -> Self {
        Self { mirror, ..self }
    }

    /// Returns the version that gets copies of the requests, if any.
    #[must_use]
    pub fn mirror(&self) -> Option<Mirror> {
        self.mirror
    }

    /// Returns how many of the requests are copied to the version, in per cent.
    #[must_use]
    pub fn mirrored_to(&self, version: Version) -> Option<u32> {
        self.mirror.filter(|mirror| mirror.version == version).map(|mirror| mirror.per_cent)
    }

    /// Whether the route names the version, with whatever weight, or for copies.
    #[must_use]
    pub fn names(&self, version: Version) -> bool {
        self.weights.contains_key(&version) || self.mirrored_to(version).is_some()
    }

    /// Returns the weight that a version has among the versions, as it would be without challengers; 0 if the
    /// route does not name it.
    #[must_use]
    pub fn of(&self, version: Version) -> u32 {
        let weight = self.weight(version);
        if weight <= Self::LEAST || self.challengers.is_empty() {
            return weight;
        }
        scaled(weight, Self::WHOLE, rest(&self.challengers)).min(Self::WHOLE)
    }

    /// Returns the weight of a version in the route.
    fn weight(&self, version: Version) -> u32 {
        self.weights.get(&version).copied().unwrap_or_default()
    }

    /// Returns the version with the largest share, if any gets requests.
    #[must_use]
    pub fn leader(&self) -> Option<Version> {
        let weights = self.weights.iter().filter(|(_, weight)| **weight > 0);
        weights.max_by_key(|(_, weight)| **weight).map(|(version, _)| *version)
    }

    /// Whether no other version has a larger share, apart from the least shares, which the version that gets
    /// the rest gives to the others.
    #[must_use]
    pub fn is_largest(&self, version: Version) -> bool {
        let share = self.weight(version);
        let challengers = self.challengers.values().map(|share| share.weight);
        let all = self.weights.values().copied().chain(challengers).chain([self.service]);
        let given: u32 = all.filter(|weight| *weight == Self::LEAST).sum();
        let others = self.weights.values().copied().chain([self.service]);
        share > Self::LEAST && others.max().is_none_or(|weight| weight <= share + given)
    }

    /// Returns the versions with their weights, in the order of the versions.
    pub fn iter(&self) -> impl Iterator<Item = (Version, u32)> {
        self.weights.iter().map(|(version, weight)| (*version, *weight))
    }

    /// Returns the share of a version in per cent of all weights, rounded; 0 for the least share.
    #[must_use]
    pub fn per_cent(&self, version: Version) -> u32 {
        self.per_cent_of(self.weight(version))
    }

    /// Returns what a weight is in per cent of all weights, rounded.
    #[must_use]
    pub fn per_cent_of(&self, weight: u32) -> u32 {
        let challengers = self.challengers.values().map(|share| share.weight);
        let all = self.weights.values().copied().chain(challengers).chain([self.service]);
        let sum: u64 = all.map(u64::from).sum();
        let share = (u64::from(weight) * 100 + sum / 2).checked_div(sum).unwrap_or_default();
        u32::try_from(share).unwrap_or(100)
    }
}

/// Returns the weight that is left beside challengers. What they have of the least shares counts as left, so
/// that an entering challenger changes no proportion.
fn rest(challengers: &BTreeMap<String, ChallengerShare>) -> u32 {
    let weights = challengers.values().map(|share| share.weight).filter(|weight| *weight > Shares::LEAST);
    Shares::WHOLE.saturating_sub(weights.fold(0, u32::saturating_add))
}

fn scaled(weight: u32, to: u32, from: u32) -> u32 {
    let scaled = (u64::from(weight) * u64::from(to) + u64::from(from) / 2).checked_div(u64::from(from));
    scaled.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(u32::MAX)
}

impl FromIterator<(Version, u32)> for Shares {
    fn from_iter<I: IntoIterator<Item = (Version, u32)>>(weights: I) -> Self {
        Self { weights: weights.into_iter().collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32) -> Version {
        Version::new(number).unwrap()
    }

    #[test]
    fn the_weights_add_up_to_the_whole() {
        let shares = Shares::led_by(version(2), [1, 2, 3].map(version));
        assert_eq!(shares.iter().map(|(_, weight)| weight).sum::<u32>(), Shares::WHOLE);
        assert_eq!(shares.leader(), Some(version(2)));
        let per_cent = [1, 2, 3, 4].map(|number| shares.per_cent(version(number)));
        assert_eq!(per_cent, [0, 100, 0, 0]);
        assert_eq!(shares.of(version(1)), Shares::LEAST);
        assert!(!shares.names(version(4)));
    }

    fn challengers(weights: &[(&str, u32)]) -> BTreeMap<String, ChallengerShare> {
        let share = |&(name, weight): &(&str, u32)| (name.to_owned(), ChallengerShare { port: 8080, weight });
        weights.iter().map(share).collect()
    }

    #[test]
    fn versions_share_what_challengers_leave_and_the_sum_is_whole() {
        let (one, two) = (version(1), version(2));
        for weights in [vec![], vec![100_000], vec![100_000, 70_000, 1], vec![1, 1, 1, 1], vec![500_000]] {
            let names = ["a", "b", "c", "d"];
            let challengers = challengers(&names.into_iter().zip(weights.clone()).collect::<Vec<_>>());
            for canary in [1, 10_000, 50_000, 490_000, 500_000] {
                let own = Shares::beside(one, [(two, canary)]);
                let shares = own.clone().beside_challengers(one, challengers.clone());
                let given: u32 = weights.iter().sum();
                let versions: u32 = shares.iter().map(|(_, weight)| weight).sum();
                assert_eq!(given + versions, Shares::WHOLE, "{shares:?}");
                assert_eq!(shares.of(two), canary, "{shares:?}");
                assert_eq!(*shares.challengers(), challengers);
                assert!(shares.is_largest(one), "{shares:?}");
            }
        }
    }

    #[test]
    fn a_share_is_in_per_cent_of_all_requests() {
        let shares = Shares::beside(version(1), [(version(2), 500_000)]);
        let shares = shares.beside_challengers(version(1), challengers(&[("a", 100_000), ("b", 1)]));
        assert_eq!([1, 2].map(|number| shares.per_cent(version(number))), [45, 45]);
        let of = |name: &str| shares.per_cent_of(shares.challengers()[name].weight);
        assert_eq!(["a", "b"].map(of), [10, 0]);
    }

    #[test]
    fn a_mirror_is_no_share_but_the_route_names_it() {
        let mirror = Mirror { version: version(2), per_cent: 100 };
        let shares = Shares::led_by(version(1), []).with_mirror(Some(mirror));
        assert_eq!((shares.of(version(2)), shares.per_cent(version(2))), (0, 0));
        assert_eq!([1, 2].map(|number| shares.mirrored_to(version(number))), [None, Some(100)]);
        assert!(shares.names(version(2)) && !shares.names(version(3)));
        let read: Shares = serde_json::from_str(&serde_json::to_string(&shares).unwrap()).unwrap();
        assert_eq!(read, shares);
    }

    #[test]
    fn least_shares_that_a_version_gives_do_not_make_another_one_larger() {
        let half: Shares =
            [(version(1), 1), (version(2), 499_999), (version(3), 500_000)].into_iter().collect();
        assert_eq!([1, 2, 3].map(|number| half.is_largest(version(number))), [false, true, true]);
        let more: Shares =
            [(version(1), 1), (version(2), 499_998), (version(3), 500_001)].into_iter().collect();
        assert_eq!([2, 3].map(|number| more.is_largest(version(number))), [false, true]);
        let hardly: Shares = [(version(1), 1), (version(2), 1)].into_iter().collect();
        assert!(!hardly.is_largest(version(1)), "one that only gets the least share leads nothing");
    }

    #[test]
    fn weights_that_somebody_else_set_are_shown_in_per_cent_of_their_sum() {
        let shares: Shares = [(version(1), 2), (version(2), 1), (version(3), 0)].into_iter().collect();
        assert_eq!([1, 2, 3].map(|number| shares.per_cent(version(number))), [67, 33, 0]);
        let nobody: Shares = [(version(1), 0)].into_iter().collect();
        assert_eq!((nobody.leader(), nobody.per_cent(version(1))), (None, 0));
    }
}
