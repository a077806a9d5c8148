//! The fields of the Gateway API's `HTTPRoute` that Laurel writes or reads. Whatever else somebody puts into
//! a rule is kept as it is, so that it shows.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The API group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

type Others = BTreeMap<String, Value>;

/// What a route does with which requests.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    root = "HttpRoute",
    plural = "httproutes",
    namespaced,
    status = "HttpRouteStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The Gateways or Services that it belongs to.
    #[serde(default)]
    pub parent_refs: Vec<RouteParent>,
    /// The host names of the requests; written even if there are none, so that nobody else can add any.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its rules.
    #[serde(default)]
    pub rules: Vec<RouteRule>,
}

/// A Gateway or a Service that a route belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParent {
    /// Its API group.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    #[serde(default)]
    pub kind: String,
    /// Its namespace; that of the route if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its listener or port, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// A rule of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// Which requests it is for.
    #[serde(default)]
    pub matches: Vec<Value>,
    /// What is changed in requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Value>,
    /// Where requests are sent.
    #[serde(default)]
    pub backend_refs: Vec<BackendReference>,
    /// Everything else.
    #[serde(flatten)]
    pub others: Others,
}

/// A Service with its share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendReference {
    /// Its API group.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    #[serde(default)]
    pub kind: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Its weight; its share is this of the sum of all weights.
    #[serde(default = "one")]
    pub weight: u32,
    /// Everything else.
    #[serde(flatten)]
    pub others: Others,
}

fn one() -> u32 {
    1
}

/// What the controllers of the parents say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteStatus {
    /// One entry for each parent and controller.
    #[serde(default)]
    pub parents: Vec<ParentStatus>,
}

/// What the controller of one parent says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The parent.
    #[serde(default)]
    pub parent_ref: RouteParent,
    /// Its conditions.
    #[serde(default)]
    pub conditions: Vec<ParentCondition>,
}

/// A condition, as far as Laurel reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentCondition {
    /// Its type.
    #[serde(default, rename = "type")]
    pub type_: String,
    /// Its status.
    #[serde(default)]
    pub status: String,
    /// Its reason.
    #[serde(default)]
    pub reason: String,
    /// Its message.
    #[serde(default)]
    pub message: String,
    /// The generation of the route that it is about.
    #[serde(default)]
    pub observed_generation: Option<i64>,
}
