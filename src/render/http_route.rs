//! The HTTPRoute: one rule, whose backends are the Services of versions.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::json;

use super::{Selection, ServiceRendering, labels, service};
use crate::{
    api::{
        http_route::{BackendReference, GATEWAY_GROUP, HttpRoute, HttpRouteSpec, RouteParent, RouteRule},
        names::{Version, deployment_name},
        traffic::{GatewayTraffic, ParentKind, ParentReference},
    },
    decide::{ChallengerShare, Mirror, Shadow, Shares},
};

/// The path under which the model server is reached directly.
const ROOT: &str = "/";
/// The kind of all backends.
pub(super) const SERVICE: &str = "Service";

/// The port of the Service of a version. It leads to the port of the pods by name, so another `serving.port`
/// changes neither the route nor the Services that it names.
pub(super) const VERSION_SERVICE_PORT: i32 = 80;

/// The HTTPRoute of a ModelAlias; `None` without `spec.traffic.gateway`. Its rule keeps its index and its
/// filters whatever the weights are.
#[must_use]
pub fn http_route(r: &ServiceRendering, shares: &Shares) -> Option<HttpRoute> {
    let gateway = r.traffic?.gateway.as_ref()?;
    let backend = |name: String, port: i32, weight: u32| BackendReference {
        kind: SERVICE.to_owned(),
        name,
        port: Some(port),
        weight,
        ..BackendReference::default()
    };
    let own = |(version, weight)| backend(deployment_name(r.name, version), VERSION_SERVICE_PORT, weight);
    let challenger =
        |(name, share): (&String, &ChallengerShare)| backend(name.clone(), share.port.into(), share.weight);
    let mirror = shares.mirror().map(|Mirror { version, per_cent }| {
        copies(&deployment_name(r.name, version), VERSION_SERVICE_PORT, per_cent)
    });
    let shadows = shares.shadows().iter().map(|(name, it)| copies(name, it.port.into(), it.per_cent));
    let rule = RouteRule {
        matches: vec![json!({ "path": { "type": "PathPrefix", "value": gateway.path } })],
        filters: rewrite(gateway).into_iter().chain(mirror).chain(shadows).collect(),
        backend_refs: shares.iter().map(own).chain(shares.challengers().iter().map(challenger)).collect(),
        ..RouteRule::default()
    };
    Some(HttpRoute {
        metadata: ObjectMeta {
            name: Some(r.name.to_owned()),
            namespace: Some(r.namespace.to_owned()),
            labels: Some(labels::service_labels(r)),
            annotations: Some(labels::service_annotations(r)),
            owner_references: Some(vec![r.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: HttpRouteSpec {
            parent_refs: gateway.parent_refs.iter().map(parent).collect(),
            hostnames: gateway.hostnames.clone(),
            rules: vec![rule],
        },
        status: None,
    })
}

/// Model servers know nothing of the path that they are reached under.
fn rewrite(gateway: &GatewayTraffic) -> Vec<serde_json::Value> {
    if gateway.path == ROOT {
        return Vec::new();
    }
    let path = json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": ROOT });
    vec![json!({ "type": "URLRewrite", "urlRewrite": { "path": path } })]
}

pub(super) const REQUEST_MIRROR: &str = "RequestMirror";

/// Copies requests to a Service. The fields are those that the API server would fill in.
pub(super) fn copies(service: &str, port: i32, per_cent: u32) -> serde_json::Value {
    let backend = json!({ "group": "", "kind": SERVICE, "name": service, "port": port });
    let mut filter = json!({ "backendRef": backend });
    if per_cent < 100 {
        filter["percent"] = per_cent.into();
    }
    json!({ "type": REQUEST_MIRROR, "requestMirror": filter })
}

/// Returns the Service of the same namespace that a filter copies requests to.
pub(super) fn shadow(filter: &serde_json::Value) -> Option<(&str, Shadow)> {
    let mirror = filter.get("requestMirror").filter(|_| filter["type"] == REQUEST_MIRROR)?;
    let backend = mirror.get("backendRef").filter(|backend| backend.get("namespace").is_none())?;
    let per_cent = mirror.get("percent").map_or(Some(100), serde_json::Value::as_u64);
    let per_cent = u32::try_from(per_cent?).ok()?;
    Some((backend["name"].as_str()?, Shadow { port: backend["port"].as_u64()?.try_into().ok()?, per_cent }))
}

fn parent(reference: &ParentReference) -> RouteParent {
    let group = match reference.kind {
        ParentKind::Gateway => GATEWAY_GROUP,
        ParentKind::Service => "",
    };
    RouteParent {
        group: group.to_owned(),
        kind: reference.kind.to_string(),
        namespace: reference.namespace.clone(),
        name: reference.name.clone(),
        section_name: reference.section_name.clone(),
        port: reference.port.map(i32::from),
    }
}

/// Returns the weights of the versions of `model_alias` in a route, and of other Services of its namespace,
/// which may be those of challengers, and who gets copies.
#[must_use]
pub fn shares(spec: &HttpRouteSpec, model_alias: &str) -> Shares {
    let backends = || spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    let own = backends().filter_map(|backend| Some((version(&backend.name, model_alias)?, backend.weight)));
    let filters = spec.rules.iter().flat_map(|rule| &rule.filters);
    let (mut mirror, mut shadows) = (None, BTreeMap::new());
    for (name, shadow) in filters.filter_map(shadow) {
        match version(name, model_alias) {
            Some(version) => {
                mirror.get_or_insert(Mirror { version, per_cent: shadow.per_cent });
            }
            None => drop(shadows.insert(name.to_owned(), shadow)),
        }
    }
    let mut shares = own.collect::<Shares>().with_mirror(mirror).with_shadows(shadows);
    for backend in backends().filter(|backend| version(&backend.name, model_alias).is_none()) {
        if let Some(share) = challenger_share(backend) {
            shares.add_challenger(&backend.name, share);
        }
    }
    shares
}

/// Returns the share of a Service of the same namespace.
fn challenger_share(backend: &BackendReference) -> Option<ChallengerShare> {
    let is_service = backend.group.is_empty() && backend.kind == SERVICE && backend.others.is_empty();
    let port = u16::try_from(backend.port?).ok()?;
    is_service.then_some(ChallengerShare { port, weight: backend.weight })
}

/// Whether a ModelAlias is named like the Service of a version of another one.
#[must_use]
pub fn is_version_service(name: &str, model_alias: &str) -> bool {
    version(name, model_alias).is_some()
}

pub(super) fn version(service: &str, model_alias: &str) -> Option<Version> {
    service.strip_prefix(model_alias)?.strip_prefix("-v")?.parse().ok()
}

/// The Service of one version, which a route names.
#[must_use]
pub fn version_service(r: &ServiceRendering, version: Version) -> Service {
    let mut service = service(r, Selection::One(version));
    service.metadata.name = Some(deployment_name(r.name, version));
    service.metadata.labels.get_or_insert_default().extend(labels::selector(r.name, Some(version)));
    for port in service.spec.iter_mut().flat_map(|spec| spec.ports.iter_mut().flatten()) {
        port.port = VERSION_SERVICE_PORT;
    }
    service
}
