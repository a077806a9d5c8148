//! The HTTPRoute of somebody else that a ModelAlias refers to.

use std::{collections::BTreeSet, sync::Arc};

use kube::runtime::reflector::{ObjectRef, Store};

use crate::{
    api::{ModelAlias, ModelAliasSpec, ModelAliasStatus, model_alias::AliasKey, traffic::RouteReference},
    cluster::{
        Guarded,
        cache::{Cache, ReferableRoute},
    },
    render::Referrer,
};

/// A ModelAlias with its HTTPRoute.
pub struct Referral<'a> {
    key: &'a AliasKey,
    reference: &'a RouteReference,
    /// Its challengers, and those that it had: a route may still name them.
    challengers: BTreeSet<String>,
}

impl<'a> Referral<'a> {
    /// Returns the route that the status names, until it is handed back, or else the one in the spec.
    #[must_use]
    pub fn of(key: &'a AliasKey, spec: &'a ModelAliasSpec, status: &'a ModelAliasStatus) -> Option<Self> {
        let traffic = spec.traffic.as_ref();
        let desired = traffic.and_then(|traffic| traffic.route_ref.as_ref());
        let listed = traffic.into_iter().flat_map(|traffic| &traffic.challengers);
        let listed = listed.map(|challenger| challenger.alias_ref.name.clone());
        let known = status.traffic.iter().filter_map(|share| share.alias_ref.clone());
        Some(Self {
            key,
            reference: status.route_ref.as_ref().or(desired)?,
            challengers: listed.chain(known).collect(),
        })
    }

    /// Returns the namespace and the name of the route.
    #[must_use]
    pub fn route_key(&self) -> AliasKey {
        (self.key.0.clone(), self.reference.name.clone())
    }

    /// Returns the route.
    #[must_use]
    pub fn route(&self, cluster: &Cache) -> Option<Arc<ReferableRoute>> {
        cluster.referable_route(&self.route_key())
    }

    /// Returns what `route` is read and written for.
    #[must_use]
    pub fn referrer(&self, route: &ReferableRoute, aliases: &Store<Guarded<ModelAlias>>) -> Referrer<'_> {
        let is_alias = |name: &String| aliases.get(&ObjectRef::new(name).within(&self.key.0)).is_some();
        Referrer {
            namespace: &self.key.0,
            name: &self.key.1,
            rule: self.reference.rule.as_deref(),
            challengers: self.challengers.clone(),
            namesakes: route.version_services(&self.key.1).into_iter().filter(is_alias).collect(),
        }
    }
}
