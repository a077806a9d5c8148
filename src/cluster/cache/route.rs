//! What is kept of an HTTPRoute: its weights, and whether its parents have accepted it.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Cache, OwnMetadata, Owner, Projected, revision};
use crate::{
    api::{
        condition::shortened,
        http_route::{HttpRoute, HttpRouteSpec, ParentStatus, RouteParent},
        model_alias::{AliasKey, RouteRevision},
    },
    decide::RouteView,
    render::{self, ServiceRendering},
};

/// What is kept of an HTTPRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteObject {
    /// Its UID.
    pub uid: Option<String>,
    /// Its revision.
    pub resource_version: u64,
    /// Who controls it.
    pub owner: Owner,
    /// Those who own it beside its controller.
    other_owners: Vec<OwnerReference>,
    metadata: OwnMetadata,
    revision: RouteRevision,
    spec: HttpRouteSpec,
    pending: Option<String>,
}

impl RouteObject {
    /// The patch that makes `owner` the controller of this revision, in place of the one that is gone. The
    /// API server merges no lists in objects of a CRD, so it names all owners.
    #[must_use]
    pub fn with_owner(&self, owner: &OwnerReference) -> Value {
        let others = self.other_owners.iter().filter(|other| other.uid != owner.uid);
        let owners: Vec<&OwnerReference> = others.chain([owner]).collect();
        let version = self.resource_version.to_string();
        json!({ "metadata": { "resourceVersion": version, "ownerReferences": owners } })
    }

    /// Whether its parents have accepted it as it is, and it is this revision.
    pub(super) fn is_accepted_as(&self, revision: &RouteRevision) -> bool {
        self.pending.is_none() && self.revision == *revision
    }

    /// Returns the challengers that it names, be it for copies.
    #[must_use]
    pub fn challengers(&self, model_alias: &str) -> BTreeSet<String> {
        render::shares(&self.spec, model_alias).named_challengers().into_iter().cloned().collect()
    }

    pub(super) fn view(&self, model_alias: &str, rendering: Option<&ServiceRendering>) -> RouteView {
        let shares = render::shares(&self.spec, model_alias);
        let due = rendering.and_then(|rendering| render::http_route(rendering, &shares));
        RouteView {
            outdated: due.is_some_and(|due| !self.metadata.has(&due.metadata) || due.spec != self.spec),
            shares,
            revision: self.revision.clone(),
            pending: self.pending.clone(),
            referred: None,
        }
    }
}

/// Why not every parent has accepted the route as it is; `None` if all have. Several controllers may have an
/// entry for one parent.
pub(super) fn pending(route: &HttpRoute) -> Option<String> {
    let namespace = route.namespace().unwrap_or_default();
    let entries = route.status.as_ref().map(|status| status.parents.as_slice()).unwrap_or_default();
    route.spec.parent_refs.iter().find_map(|parent| {
        let its = entries.iter().filter(|entry| is_same(&entry.parent_ref, parent, &namespace));
        let (mut its, others): (Vec<_>, Vec<_>) = its.partition(|entry| has_accepted(entry));
        let described = described(parent, &namespace);
        // Policies have entries of their own, which say nothing about that.
        if its.is_empty() {
            its = others;
        }
        if its.is_empty() {
            return Some(format!(
                "no controller has answered for {described}: see that it exists and that its controller runs"
            ));
        }
        its.into_iter()
            .find_map(|entry| missing(entry, route.metadata.generation))
            .map(|why| format!("{described} {why}"))
    })
}

fn has_accepted(entry: &ParentStatus) -> bool {
    entry.conditions.iter().any(|condition| condition.type_ == "Accepted")
}

/// What the entry of a parent lacks.
fn missing(entry: &ParentStatus, generation: Option<i64>) -> Option<String> {
    const MESSAGE_MAX: usize = 300;
    ["Accepted", "ResolvedRefs"].into_iter().find_map(|type_| {
        let Some(condition) = entry.conditions.iter().find(|condition| condition.type_ == type_) else {
            return Some(format!("has not reported the condition {type_} yet"));
        };
        if condition.observed_generation != generation {
            return Some("has not seen its last change yet".to_owned());
        }
        let (reason, message) = (&condition.reason, shortened(&condition.message, MESSAGE_MAX));
        let status = &condition.status;
        (status != "True").then(|| format!("reports {type_} as {status}: {reason}: {message}"))
    })
}

fn described(parent: &RouteParent, namespace: &str) -> String {
    let namespace = parent.namespace.as_deref().unwrap_or(namespace);
    format!("the {} {namespace}/{}", parent.kind, parent.name)
}

fn is_same(entry: &RouteParent, parent: &RouteParent, namespace: &str) -> bool {
    let in_full = |parent: &RouteParent| RouteParent {
        namespace: Some(parent.namespace.clone().unwrap_or_else(|| namespace.to_owned())),
        ..parent.clone()
    };
    in_full(entry) == in_full(parent)
}

impl Projected for HttpRoute {
    const IS_ROUTE: bool = true;
    fn as_route(&self) -> Option<&HttpRoute> {
        Some(self)
    }
    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        if self.name_any() != alias.1 {
            return;
        }
        let route = RouteObject {
            uid: self.metadata.uid.clone(),
            resource_version: revision(&self.metadata),
            owner: Owner::of(&self.metadata, alias, &alias.1),
            other_owners: self
                .owner_references()
                .iter()
                .filter(|owner| owner.controller != Some(true))
                .cloned()
                .collect(),
            metadata: OwnMetadata::of(&self.metadata),
            revision: RouteRevision {
                uid: self.metadata.uid.clone().unwrap_or_default(),
                generation: self.metadata.generation.unwrap_or_default(),
            },
            spec: self.spec.clone(),
            pending: pending(self),
        };
        cache.edit(alias, |objects| {
            if objects.route.as_ref().is_none_or(|known| known.resource_version <= route.resource_version) {
                objects.route = Some(route);
            }
        });
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        if name == alias.1 {
            cache.edit(alias, |objects| objects.route = None);
        }
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        let aliases = cache.lock();
        let known = aliases.iter().filter(|(_, objects)| objects.route.is_some());
        known.map(|(key, _)| (key.clone(), key.1.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::tests::claim, *};
    use crate::{
        api::{
            ModelAliasSpec,
            http_route::{BackendReference, RouteRule},
        },
        decide::{ChallengerShare, Mirror, Shadow, Shares},
        render::fixture::{Fixture, version},
    };

    const TRAFFIC: &str = "{gateway: {parentRefs: [{name: public, namespace: infra}, {name: inner}], \
                           hostnames: [fraud.example.com], path: /fraud}}";

    fn fixture() -> Fixture {
        let mut fixture = Fixture::serving("");
        fixture.spec = ModelAliasSpec { traffic: serde_yaml::from_str(TRAFFIC).unwrap(), ..fixture.spec };
        fixture
    }

    /// A route that gives version 4 all requests but the least share of version 3, after `change`.
    fn view(change: impl FnOnce(&mut HttpRoute)) -> RouteView {
        let fixture = fixture();
        let rendering = fixture.rendering().service();
        let shares = Shares::led_by(version(4), [version(3)]);
        let mut route = render::http_route(&rendering, &shares).unwrap();
        route.metadata.generation = Some(7);
        change(&mut route);
        let cache = Cache::default();
        let key = (rendering.namespace.to_owned(), rendering.name.to_owned());
        // As it comes from the API server.
        let route: HttpRoute = serde_json::from_value(serde_json::to_value(&route).unwrap()).unwrap();
        route.insert(&cache, &key);
        cache.view(&key, &claim("6d1b"), Some(&rendering), |_| None).route.unwrap()
    }

    fn conditions(accepted: &str, resolved: &str, generation: i64) -> Value {
        let condition = |type_: &str, status: &str| {
            let reason = "NoMatchingParent";
            json!({ "type": type_, "status": status, "reason": reason, "observedGeneration": generation })
        };
        json!([condition("Accepted", accepted), condition("ResolvedRefs", resolved)])
    }

    fn entry(name: &str, namespace: Option<&str>, conditions: &Value) -> Value {
        let mut parent = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name });
        if let Some(namespace) = namespace {
            parent["namespace"] = namespace.into();
        }
        json!({ "parentRef": parent, "controllerName": "c", "conditions": conditions })
    }

    fn pending_with(entries: &[Value]) -> Option<String> {
        let status = serde_json::from_value(json!({ "parents": entries })).unwrap();
        view(|route| route.status = Some(status)).pending
    }

    #[test]
    fn what_is_rendered_is_what_is_observed() {
        let view = view(|_| {});
        assert_eq!(view.shares, Shares::led_by(version(4), [version(3)]));
        assert!(!view.outdated);
        assert_eq!(view.revision.generation, 7);
    }

    #[test]
    fn other_weights_are_seen_as_shares_and_every_other_change_makes_the_route_outdated() {
        let backends = |route: &mut HttpRoute| std::mem::take(&mut route.spec.rules[0].backend_refs);
        let reweighted = view(|route| route.spec.rules[0].backend_refs[0].weight = 5);
        assert_eq!((reweighted.shares.of(version(3)), reweighted.outdated), (5, false));
        let added =
            |added: BackendReference| view(|route| route.spec.rules[0].backend_refs.push(added)).outdated;
        assert!(added(BackendReference {
            kind: "Service".into(),
            name: "other".into(),
            ..Default::default()
        }));
        assert!(view(|route| route.spec.rules[0].filters.clear()).outdated);
        assert!(view(|route| route.spec.rules[0].matches.clear()).outdated);
        assert!(view(|route| drop(route.spec.rules[0].others.insert("timeouts".into(), json!({})))).outdated);
        assert!(view(|route| route.spec.rules.push(RouteRule::default())).outdated);
        assert!(view(|route| route.spec.hostnames.clear()).outdated);
        assert!(view(|route| drop(route.spec.parent_refs.pop())).outdated);
        assert!(view(|route| route.spec.rules[0].backend_refs[0].port = Some(9999)).outdated);
        assert!(view(|route| drop(backends(route))).shares.leader().is_none());
    }

    #[test]
    fn other_services_are_seen_as_challengers_and_rendered_as_they_are() {
        let backend = |name: &str, port| BackendReference {
            kind: "Service".into(),
            name: name.into(),
            port,
            weight: 7,
            ..Default::default()
        };
        let with = |backend| view(|route| route.spec.rules[0].backend_refs.push(backend));
        let challenger = with(backend("fraud-challenger", Some(9000)));
        let share = ChallengerShare { port: 9000, weight: 7 };
        assert_eq!(challenger.shares.challengers(), &[("fraud-challenger".to_owned(), share)].into());
        assert!(!challenger.outdated);
        for odd in [
            backend("fraud-challenger", None),
            BackendReference { kind: "Bucket".into(), ..backend("b", Some(1)) },
            BackendReference { others: [("namespace".into(), "n".into())].into(), ..backend("b", Some(1)) },
        ] {
            let view = with(odd);
            assert!(view.outdated && view.shares.challengers().is_empty(), "{view:?}");
        }
    }

    #[test]
    fn copies_are_rendered_as_they_are_observed_and_those_of_others_make_the_route_outdated() {
        let fixture = fixture();
        let rendering = fixture.rendering().service();
        for per_cent in [100, 30] {
            let mirror = Mirror { version: version(5), per_cent };
            let shares = Shares::led_by(version(4), []).with_mirror(Some(mirror));
            let rendered = render::http_route(&rendering, &shares).unwrap();
            let filters = &rendered.spec.rules[0].filters;
            let copies = filters.iter().filter(|filter| filter["type"] == "RequestMirror");
            let percent: Vec<_> = copies.map(|filter| filter["requestMirror"]["percent"].as_u64()).collect();
            assert_eq!(percent, [Some(30).filter(|_| per_cent == 30)]);
            let seen = view(|route| route.spec.rules = rendered.spec.rules.clone());
            assert_eq!((seen.shares, seen.outdated), (shares, false));
        }
        let elsewhere = |more: Value| {
            let mut backend = json!({ "name": "other" });
            backend.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let filter = json!({ "type": "RequestMirror", "requestMirror": { "backendRef": backend } });
            view(|route| route.spec.rules[0].filters.push(filter))
        };
        for odd in [json!({}), json!({ "port": 80, "namespace": "others" })] {
            let seen = elsewhere(odd);
            assert_eq!((seen.shares.mirror(), seen.shares.shadows().len()), (None, 0));
            assert!(seen.outdated);
        }
        // It could be that of a challenger.
        let seen = elsewhere(json!({ "port": 80, "group": "", "kind": "Service" }));
        assert_eq!(seen.shares.shadows(), &[("other".to_owned(), Shadow { port: 80, per_cent: 100 })].into());
    }

    #[test]
    fn copies_to_challengers_are_rendered_as_they_are_observed() {
        let fixture = fixture();
        let rendering = fixture.rendering().service();
        let shadows =
            [("a", 100), ("b", 7)].map(|(name, per_cent)| (name.to_owned(), Shadow { port: 9000, per_cent }));
        for mirror in [None, Some(Mirror { version: version(5), per_cent: 50 })] {
            let shares =
                Shares::led_by(version(4), []).with_mirror(mirror).with_shadows(shadows.clone().into());
            let rendered = render::http_route(&rendering, &shares).unwrap();
            let seen = view(|route| route.spec.rules = rendered.spec.rules.clone());
            assert_eq!((seen.shares, seen.outdated), (shares, false));
        }
    }

    #[test]
    fn what_a_policy_says_of_a_route_does_not_count() {
        let fine = conditions("True", "True", 7);
        let policy = json!([{ "type": "kuadrant.io/AuthPolicyAffected", "status": "True", "reason": "Accepted",
            "observedGeneration": 7 }]);
        let public = entry("public", Some("infra"), &fine);
        let inner = [entry("inner", None, &policy), entry("inner", None, &fine)];
        assert_eq!(pending_with(&[&[public], &inner[..]].concat()), None);
    }

    #[test]
    fn the_owners_of_others_stay_when_a_route_is_adopted() {
        let owner = |uid: &str, controller| OwnerReference {
            uid: uid.to_owned(),
            controller: Some(controller),
            ..OwnerReference::default()
        };
        let fixture = fixture();
        let rendering = fixture.rendering().service();
        let shares = Shares::led_by(version(4), []);
        let mut route = render::http_route(&rendering, &shares).unwrap();
        route.metadata.owner_references = Some(vec![owner("gone", true), owner("another", false)]);
        let cache = Cache::default();
        let key = (rendering.namespace.to_owned(), rendering.name.to_owned());
        route.insert(&cache, &key);
        let patch = cache.route(&key).unwrap().with_owner(&rendering.owner);
        let owners = patch["metadata"]["ownerReferences"].as_array().unwrap();
        let uids: Vec<&str> = owners.iter().map(|owner| owner["uid"].as_str().unwrap()).collect();
        assert_eq!(uids, ["another", rendering.owner.uid.as_str()]);
    }

    #[test]
    fn a_route_counts_once_every_parent_has_accepted_its_last_change() {
        let fine = conditions("True", "True", 7);
        let (public, inner) = (entry("public", Some("infra"), &fine), entry("inner", Some("risk"), &fine));
        assert_eq!(pending_with(&[public.clone(), inner.clone()]), None);
        assert_eq!(pending_with(&[public.clone(), entry("inner", None, &fine)]), None);
        for (entries, part) in [
            (vec![], "no controller has answered for the Gateway infra/public"),
            (vec![public.clone()], "Gateway risk/inner"),
            (vec![public.clone(), entry("inner", None, &conditions("True", "True", 6))], "its last change"),
            (vec![public.clone(), entry("inner", None, &conditions("False", "True", 7))], "NoMatchingParent"),
            (
                vec![public.clone(), entry("inner", None, &conditions("True", "False", 7))],
                "reports ResolvedRefs as False: NoMatchingParent",
            ),
            (vec![public.clone(), entry("inner", None, &json!([]))], "the condition Accepted yet"),
            (vec![public, inner, entry("inner", None, &conditions("False", "True", 7))], "Accepted as False"),
        ] {
            let why = pending_with(&entries).unwrap_or_default();
            assert!(why.contains(part), "{part:?} is missing: {why}");
        }
    }
}
