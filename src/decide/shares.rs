//! The shares of requests that versions get behind a route.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::names::Version;

/// The weight of each version that a route names, and the version that gets copies of the requests. The
/// weights that Laurel writes add up to [`Shares::WHOLE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shares {
    #[serde(flatten)]
    weights: BTreeMap<Version, u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror: Option<Mirror>,
}

/// A version that gets copies of the requests. Its answers to them are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mirror {
    /// The version.
    pub version: Version,
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
        Self { weights, mirror: None }
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

    /// Returns the weight of a version; 0 if the route does not name it.
    #[must_use]
    pub fn of(&self, version: Version) -> u32 {
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
        let share = self.of(version);
        let given: u32 = self.weights.values().filter(|weight| **weight == Self::LEAST).sum();
        share > Self::LEAST && self.weights.values().all(|weight| *weight <= share + given)
    }

    /// Returns the versions with their weights, in the order of the versions.
    pub fn iter(&self) -> impl Iterator<Item = (Version, u32)> {
        self.weights.iter().map(|(version, weight)| (*version, *weight))
    }

    /// Returns the share of a version in per cent of all weights, rounded; 0 for the least share.
    #[must_use]
    pub fn per_cent(&self, version: Version) -> u32 {
        let sum: u64 = self.weights.values().map(|weight| u64::from(*weight)).sum();
        let share = (u64::from(self.of(version)) * 100 + sum / 2).checked_div(sum).unwrap_or_default();
        u32::try_from(share).unwrap_or(100)
    }
}

impl FromIterator<(Version, u32)> for Shares {
    fn from_iter<I: IntoIterator<Item = (Version, u32)>>(weights: I) -> Self {
        Self { weights: weights.into_iter().collect(), mirror: None }
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
