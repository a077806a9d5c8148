//! The HTTPRoutes that `ModelAliases` can refer to: what is kept of each, whoever made it.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Cache, alias_of, revision, route::pending};
use crate::{
    api::{
        FIELD_MANAGER,
        http_route::HttpRoute,
        model_alias::{AcceptedRoute, AliasKey, RouteRevision},
    },
    decide::{ChampionRoute, ReferredRoute, RouteView},
    render::{self, Referrer},
};

/// What is kept of an HTTPRoute that somebody else manages.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferableRoute {
    name: String,
    resource_version: u64,
    revision: RouteRevision,
    /// The parts of its rules that name backends.
    rules: Vec<Value>,
    pending: Option<String>,
    written_by: Option<String>,
    /// The ModelAlias that Laurel rendered it for.
    rendered_for: Option<String>,
}

impl ReferableRoute {
    /// Returns what is kept of a route.
    #[must_use]
    pub fn of(route: &HttpRoute) -> Self {
        let rules = route.spec.rules.iter().filter_map(|rule| serde_json::to_value(rule).ok());
        let has_parents = !route.spec.parent_refs.is_empty();
        Self {
            name: route.name_any(),
            resource_version: revision(&route.metadata),
            revision: RouteRevision {
                uid: route.metadata.uid.clone().unwrap_or_default(),
                generation: route.metadata.generation.unwrap_or_default(),
            },
            rules: rules.map(|rule| render::projection(&rule)).collect(),
            pending: if has_parents { pending(route) } else { Some("it has no spec.parentRefs".to_owned()) },
            written_by: written_by(route.managed_fields()),
            rendered_for: alias_of(&route.metadata).map(|(_, name)| name),
        }
    }

    /// Returns what a challenger depends on in the route of its champion, which names the challengers
    /// `named`, and of which `accepted` is known.
    #[must_use]
    pub fn of_champion(
        &self,
        named: &[String],
        accepted: Option<&AcceptedRoute>,
        challenger: &str,
    ) -> ChampionRoute {
        let is_current = |it: &&AcceptedRoute| self.pending.is_none() && self.revision == it.revision;
        ChampionRoute {
            names_it: named.iter().any(|named| named == challenger),
            accepted_at: accepted.filter(is_current).map(|accepted| accepted.at),
        }
    }

    /// Returns the names of the Services of its namespace that look like those of versions of a ModelAlias.
    #[must_use]
    pub fn version_services(&self, model_alias: &str) -> Vec<String> {
        let backends = self.rules.iter().filter_map(|rule| rule["backendRefs"].as_array()).flatten();
        let names = backends.filter_map(|backend| backend["name"].as_str());
        names.filter(|name| render::is_version_service(name, model_alias)).map(str::to_owned).collect()
    }

    /// Returns the challengers of a ModelAlias that it names, be it for copies.
    #[must_use]
    pub fn challengers(&self, referrer: &Referrer<'_>) -> Vec<String> {
        render::read(&self.rules, referrer).shares.named_challengers().into_iter().cloned().collect()
    }

    /// Returns the route as the ModelAlias sees it that refers to it.
    #[must_use]
    pub fn view(&self, referrer: &Referrer<'_>) -> RouteView {
        let seen = render::read(&self.rules, referrer);
        let name = &self.name;
        let unusable = match &self.rendered_for {
            Some(alias) => Some(format!(
                "the HTTPRoute {name:?} is one that Laurel renders for the ModelAlias {alias:?}, by its \
                 label; name one of your own"
            )),
            None => seen.unusable.map(|why| format!("the HTTPRoute {name:?} {why}")),
        };
        RouteView {
            shares: seen.shares,
            outdated: seen.outdated,
            revision: self.revision.clone(),
            pending: self.pending.clone(),
            referred: Some(ReferredRoute {
                name: name.clone(),
                unusable,
                written_by: self.written_by.clone(),
            }),
        }
    }
}

/// Returns the client that wrote the rules last, if it is another one.
fn written_by(managers: &[ManagedFieldsEntry]) -> Option<String> {
    let writes = managers.iter().filter(|entry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:rules").is_some())
    });
    let last = writes.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
    last.manager.clone().filter(|manager| manager != FIELD_MANAGER)
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct ReferableRoutes(Mutex<HashMap<AliasKey, Arc<ReferableRoute>>>);

fn key(route: &HttpRoute) -> AliasKey {
    (route.namespace().unwrap_or_default(), route.name_any())
}

impl Cache {
    /// Keeps a route. Something older than what is known is passed over. Returns its namespace and name.
    pub fn keep_route(&self, route: &HttpRoute) -> AliasKey {
        let (key, kept) = (key(route), ReferableRoute::of(route));
        let mut routes = self.routes.0.lock();
        if routes.get(&key).is_none_or(|known| known.resource_version <= kept.resource_version) {
            routes.insert(key.clone(), Arc::new(kept));
        }
        key
    }

    /// Forgets a route. Returns its namespace and name.
    pub fn forget_route(&self, route: &HttpRoute) -> AliasKey {
        let key = key(route);
        self.routes.0.lock().remove(&key);
        key
    }

    /// Forgets all routes but those that were listed. Returns the namespaces and names of the others.
    pub fn keep_only_routes(&self, is_listed: impl Fn(&AliasKey) -> bool) -> Vec<AliasKey> {
        let mut routes = self.routes.0.lock();
        routes.extract_if(|key, _| !is_listed(key)).map(|(key, _)| key).collect()
    }

    /// Returns the route with this namespace and name.
    #[must_use]
    pub fn referable_route(&self, key: &AliasKey) -> Option<Arc<ReferableRoute>> {
        self.routes.0.lock().get(key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;
    use crate::{api::names::Version, decide::Shares};

    fn referrer() -> Referrer<'static> {
        Referrer {
            namespace: "risk",
            name: "fraud",
            rule: None,
            challengers: BTreeSet::new(),
            namesakes: BTreeSet::new(),
        }
    }

    /// A route of this revision that sends everything to one backend, after `change`.
    fn route(revision: u32, backend: &str, change: impl FnOnce(&mut Value)) -> HttpRoute {
        let parent = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public" });
        let conditions: Vec<Value> = ["Accepted", "ResolvedRefs"]
            .map(|type_| json!({ "type": type_, "status": "True", "observedGeneration": 3 }))
            .into();
        let backend = json!({ "group": "", "kind": "Service", "name": backend, "port": 8080, "weight": 1 });
        let mut route = json!({
            "metadata": { "name": "public", "namespace": "risk", "uid": "u", "generation": 3,
                "resourceVersion": revision.to_string() },
            "spec": { "parentRefs": [parent], "rules": [{ "matches": [{}], "backendRefs": [backend] }] },
            "status": { "parents": [{ "parentRef": parent, "conditions": conditions }] },
        });
        change(&mut route);
        serde_json::from_value(route).unwrap()
    }

    fn view(route: &HttpRoute) -> RouteView {
        let cache = Cache::default();
        let key = cache.keep_route(route);
        cache.referable_route(&key).unwrap().view(&referrer())
    }

    fn unusable(route: &HttpRoute) -> String {
        view(route).referred.unwrap().unusable.unwrap_or_default()
    }

    #[test]
    fn a_route_of_somebody_else_is_seen_as_shares_with_its_acceptance() {
        let seen = view(&route(1, "fraud", |_| {}));
        assert!(seen.shares.follow_service() && !seen.outdated && seen.pending.is_none(), "{seen:?}");
        assert_eq!(seen.revision.generation, 3);
        let led = view(&route(1, "fraud-v4", |_| {}));
        assert_eq!(led.shares.leader(), Version::new(4));
        assert!(led.outdated, "the port and the weight are not Laurel's");
        assert_eq!(view(&route(1, "fraud", |route| route["status"] = json!({}))).pending.is_some(), true);
        let orphan = view(&route(1, "fraud", |route| route["spec"]["parentRefs"] = json!([])));
        assert_eq!(orphan.pending.as_deref(), Some("it has no spec.parentRefs"));
    }

    #[test]
    fn a_route_that_cannot_be_used_is_named_with_the_cause() {
        assert_eq!(unusable(&route(1, "fraud", |_| {})), "");
        let other = unusable(&route(1, "other", |_| {}));
        assert!(other.starts_with("the HTTPRoute \"public\" has no rule"), "{other}");
        let label = json!({ "laurel.dev/model-alias": "churn" });
        let rendered = unusable(&route(1, "fraud", |route| route["metadata"]["labels"] = label));
        assert!(rendered.contains("renders for the ModelAlias \"churn\""), "{rendered}");
    }

    #[test]
    fn a_challenger_is_named_by_its_weight_or_by_its_copies() {
        let copies = json!({ "type": "RequestMirror", "requestMirror": { "backendRef": {
            "group": "", "kind": "Service", "name": "shadow", "port": 8080 } } });
        let rival = json!({ "group": "", "kind": "Service", "name": "rival", "port": 8080, "weight": 1 });
        let route = ReferableRoute::of(&route(1, "fraud-v4", |route| {
            let rule = &mut route["spec"]["rules"][0];
            rule["filters"] = json!([copies]);
            rule["backendRefs"].as_array_mut().unwrap().push(rival);
        }));
        let challengers = BTreeSet::from(["rival".to_owned(), "shadow".to_owned()]);
        assert_eq!(route.challengers(&Referrer { challengers, ..referrer() }), ["rival", "shadow"]);
        assert_eq!(route.challengers(&referrer()), [] as [String; 0], "they are not this ModelAlias's");
    }

    #[test]
    fn the_last_other_client_that_wrote_the_rules_is_named() {
        let entry = |manager: &str, second: u32, fields: Value| {
            json!({ "manager": manager, "operation": "Update", "time": format!("2026-01-01T00:00:0{second}Z"),
                "fieldsType": "FieldsV1", "fieldsV1": fields })
        };
        let rules = || json!({ "f:spec": { "f:rules": {} } });
        let by = |entries: Vec<Value>| {
            let route = route(1, "fraud", |route| route["metadata"]["managedFields"] = entries.into());
            view(&route).referred.unwrap().written_by
        };
        assert_eq!(by(vec![]), None);
        let theirs = entry("argocd-controller", 2, rules());
        assert_eq!(
            by(vec![entry("kubectl", 1, rules()), theirs.clone()]).as_deref(),
            Some("argocd-controller")
        );
        assert_eq!(by(vec![theirs.clone(), entry(FIELD_MANAGER, 3, rules())]), None);
        let hosts = entry("kubectl", 3, json!({ "f:spec": { "f:hostnames": {} } }));
        assert_eq!(by(vec![theirs, hosts]).as_deref(), Some("argocd-controller"));
    }

    #[test]
    fn an_older_event_does_not_hide_our_own_write_and_what_is_not_listed_is_forgotten() {
        let cache = Cache::default();
        let key = cache.keep_route(&route(7, "fraud-v4", |_| {}));
        cache.keep_route(&route(5, "fraud", |_| {}));
        let shares = |cache: &Cache| cache.referable_route(&key).map(|route| route.view(&referrer()).shares);
        assert_eq!(shares(&cache).map(|shares| shares.follow_service()), Some(false));
        assert_eq!(cache.keep_only_routes(|listed| *listed == key), [] as [AliasKey; 0]);
        let gone = cache.keep_only_routes(|_| false);
        assert_eq!((gone.first(), gone.len()), (Some(&key), 1));
        assert_eq!(shares(&cache), None::<Shares>);
    }
}
