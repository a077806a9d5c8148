//! `spec.traffic`: how requests from outside are shared among versions.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LocalReference, NAME_PATTERN};

/// A host name, or one with `*.` in front, as the Gateway API allows it.
const HOSTNAME_PATTERN: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// An absolute path without empty, `.` or `..` segments, query or fragment, as the Gateway API allows it.
pub(super) const PATH_PATTERN: &str = r"^(/|(/[-A-Za-z0-9._~!$&'()*+,;=:@]+)+)$";

/// How requests are shared among versions.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.gateway) != has(self.routeRef)").message("exactly one of gateway and routeRef is set"))]
pub struct TrafficSpec {
    /// Laurel manages an `HTTPRoute` with the ModelAlias's name that sends requests to the version that
    /// serves. Set this or `routeRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayTraffic>,

    /// Laurel shares requests in an `HTTPRoute` of yours. In the rules that send requests to the Service with
    /// the ModelAlias's name, it replaces that backend with the Services of versions, and keeps their
    /// weights. Everything else in the route stays as it is. Set this or `gateway`; you may change from one
    /// to the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_ref: Option<RouteReference>,

    /// Other `ModelAliases` of the same namespace that answer a share of the requests, for days or weeks, and
    /// at most half of them together; or that get copies of requests. Each keeps its own versions, rules and
    /// rollbacks; what one cannot take goes to this ModelAlias.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = CHALLENGERS_MAX))]
    #[x_kube(validation = Rule::new("self.map(challenger, has(challenger.weight) ? challenger.weight : 0).sum() <= 50").message("the weights of challengers are at most 50 together"))]
    #[x_kube(validation = Rule::new("self.all(challenger, self.exists_one(other, other.aliasRef.name == challenger.aliasRef.name))").message("each challenger is listed once"))]
    pub challengers: Vec<Challenger>,

    /// What decides who answers a request: `PerRequest` (the default), which is a new choice for each.
    #[serde(default, skip_serializing_if = "Assignment::is_default")]
    pub assignment: Assignment,
}

/// The maximum number of challengers.
const CHALLENGERS_MAX: u32 = 4;

/// Another ModelAlias that answers a share of the requests, or gets copies of them.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.weight) != has(self.mirror)").message("a challenger has exactly one of weight and mirror"))]
pub struct Challenger {
    /// The ModelAlias, in the same namespace. It has `spec.serving`; its own `spec.traffic`, if any, does not
    /// matter here.
    pub alias_ref: LocalReference,

    /// Its share of all requests through the Gateway in per cent. Set either this or `mirror`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 50))]
    pub weight: Option<u32>,

    /// How many of the requests are copied to it, in per cent: a shadow. This ModelAlias, or a challenger
    /// with a `weight`, answers each of them, and the answers to the copies are dropped. Use it only if a
    /// request has no side effects. Not every implementation of the Gateway API copies requests, and some
    /// copy all of them whatever is set here; no condition shows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 100))]
    pub mirror: Option<u32>,
}

/// What decides who answers a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Assignment {
    /// The Gateway chooses for each request.
    #[default]
    PerRequest,
}

impl Assignment {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The `HTTPRoute` that Laurel manages.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTraffic {
    /// The Gateways that requests come through, or with a mesh the Services that they are sent to. Each has
    /// to accept the route before traffic moves.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<ParentReference>,

    /// The host names that requests are for. Without any, every host of the Gateway's listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = HOSTNAME_PATTERN)))]
    pub hostnames: Vec<String>,

    /// The path under which the model is reached, for instance `/fraud`: requests to `/fraud/invocations`
    /// arrive at the model server as `/invocations`. The default is `/`.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 512), regex(pattern = PATH_PATTERN))]
    #[x_kube(validation = Rule::new("!self.matches('(^|/)[.][.]?(/|$)')").message("path has no segments '.' and '..'"))]
    pub path: String,
}

/// An `HTTPRoute` that somebody else manages, and of which Laurel manages the backends of one ModelAlias.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteReference {
    /// The name of the `HTTPRoute`, in the namespace of the ModelAlias.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// The name of the rule in it (`rules[].name`). The default is every rule that has the Service with the
    /// ModelAlias's name as a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub rule: Option<String>,
}

fn root() -> String {
    "/".to_owned()
}

/// A Gateway, or with a mesh a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// `Gateway` (the default), or `Service` for requests inside a mesh.
    #[serde(default)]
    pub kind: ParentKind,

    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its namespace. The default is that of the ModelAlias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,

    /// The listener of the Gateway, or the port of the Service, by name. The default is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,

    /// The port of the Gateway's listeners or of the Service. The default is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// What a route belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display)]
pub enum ParentKind {
    /// A Gateway.
    #[default]
    Gateway,
    /// A Service, with a mesh.
    Service,
}
