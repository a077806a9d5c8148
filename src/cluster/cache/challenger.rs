//! What a champion sees of the Service of a challenger, and a challenger of the route of its champion.

use super::{Cache, Claim, Owner};
use crate::{
    api::{
        model_alias::{AcceptedRoute, AliasKey},
        names::Version,
    },
    decide::{ChallengerService, ChampionRoute, Traffic},
};

/// How the Service of a ModelAlias is reached: what its champions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    owner: Owner,
    traffic: Traffic,
    port: Option<u16>,
    has_endpoints: bool,
}

impl Cache {
    /// Returns how the Service of a ModelAlias is reached; `None` without one.
    #[must_use]
    pub fn reachable(&self, alias: &AliasKey) -> Option<Reachable> {
        let aliases = self.lock();
        let objects = aliases.get(alias)?;
        let service = objects.service.as_ref()?;
        Some(Reachable {
            owner: service.owner.clone(),
            traffic: service.traffic,
            port: service.port(),
            has_endpoints: objects.slices.values().any(|slice| slice.is_ready),
        })
    }

    /// Returns the Service of the challenger with this claim, if it selects a version. While pods are
    /// exchanged that is `serves`.
    #[must_use]
    pub fn challenger(
        &self,
        alias: &AliasKey,
        claim: &Claim<'_>,
        serves: Option<Version>,
    ) -> Option<ChallengerService> {
        let service = self.reachable(alias).filter(|service| !service.owner.is_foreign(claim))?;
        let version = match service.traffic {
            Traffic::One(version) => version,
            Traffic::Shared => serves?,
            Traffic::Nowhere => return None,
        };
        Some(ChallengerService { version, port: service.port?, has_endpoints: service.has_endpoints })
    }

    /// Returns what a challenger depends on in the route of a champion, of which `accepted` is known; `None`
    /// without a route.
    #[must_use]
    pub fn champion_route(
        &self,
        champion: &AliasKey,
        accepted: Option<&AcceptedRoute>,
        challenger: &str,
    ) -> Option<ChampionRoute> {
        let route = self.route(champion)?;
        let accepted = accepted.filter(|accepted| route.is_accepted_as(&accepted.revision));
        Some(ChampionRoute {
            names_it: route.challengers(&champion.1).contains(challenger),
            accepted_at: accepted.map(|accepted| accepted.at),
        })
    }
}
