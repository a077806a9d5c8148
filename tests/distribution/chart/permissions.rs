//! The operator's permissions. `tests/least_privilege` shows that they are exactly what its code uses.

use std::collections::BTreeSet;

use laurel::{cluster::lease::NAME, render::meter};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::tools::{NAMESPACE, Objects};

/// API group, resources, verbs.
const PERMISSIONS: &[(&str, &[&str], &[&str])] = &[
    ("laurel.dev", &["modelregistries", "modelexperiments"], &["list", "watch"]),
    ("laurel.dev", &["registeredmodels", "modelaliases"], &["list", "watch", "patch"]),
    (
        "laurel.dev",
        &[
            "modelregistries/status",
            "registeredmodels/status",
            "modelaliases/status",
            "modelaliases/scale",
            "modelexperiments/status",
        ],
        &["patch"],
    ),
    ("apps", &["deployments"], &["get", "list", "watch", "create", "patch", "delete"]),
    ("", &["services"], &["get", "list", "watch", "create", "patch", "delete"]),
    ("policy", &["poddisruptionbudgets"], &["get", "list", "watch", "create", "patch", "delete"]),
    ("", &["configmaps"], &["create", "patch"]),
    ("", &["pods"], &["list", "watch"]),
    ("discovery.k8s.io", &["endpointslices"], &["list", "watch"]),
    ("", &["secrets"], &["get"]),
    ("events.k8s.io", &["events"], &["list", "create", "patch"]),
];

/// Additional permissions if it watches all namespaces.
const OF_THE_CLUSTER: &[(&str, &[&str], &[&str])] = &[
    ("laurel.dev", &["clustermodelregistries"], &["list", "watch"]),
    ("laurel.dev", &["clustermodelregistries/status"], &["patch"]),
    ("", &["namespaces"], &["list", "watch"]),
    ("coordination.k8s.io", &["leases"], &["list", "watch"]),
];

/// Additional permissions if it watches the namespace that it runs in.
const OF_THE_NAMESPACE: &[(&str, &[&str], &[&str])] =
    &[("", &["namespaces"], &["get"]), ("laurel.dev", &["registeredmodels", "modelaliases"], &["delete"])];

type Permission = (String, String, String);

fn expected(is_cluster_wide: bool) -> BTreeSet<Permission> {
    let of_the_scope = if is_cluster_wide { OF_THE_CLUSTER } else { OF_THE_NAMESPACE };
    PERMISSIONS
        .iter()
        .chain(of_the_scope)
        .flat_map(|(group, resources, verbs)| {
            resources.iter().flat_map(move |resource| {
                verbs.iter().map(move |verb| ((*group).into(), (*resource).into(), (*verb).into()))
            })
        })
        .collect()
}

fn granted(role: &Value) -> BTreeSet<Permission> {
    let words = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let fields: Vec<_> = rule.as_object().unwrap().keys().map(String::as_str).collect();
        if rule["resources"] == json!(["leases"]) {
            assert_eq!(rule["resourceNames"], json!([NAME]));
        } else if rule["resources"] == json!(["configmaps"]) {
            let name = meter("any").metadata.name;
            assert_eq!(
                rule["resourceNames"],
                json!([name]),
                "write this name into the chart and config/base"
            );
        } else {
            assert_eq!(fields, ["apiGroups", "resources", "verbs"]);
        }
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    granted.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    granted
}

#[test]
fn in_all_namespaces() {
    let install = Objects::of_chart(&[]);
    assert_eq!(granted(install.one("ClusterRole")), expected(true));
    assert_bound(&install, "ClusterRole");
}

fn with_routes(is_cluster_wide: bool) -> BTreeSet<Permission> {
    let verbs = ["get", "list", "watch", "create", "patch", "delete"];
    let routes = verbs.map(|verb| ("gateway.networking.k8s.io".into(), "httproutes".into(), verb.into()));
    expected(is_cluster_wide).into_iter().chain(routes).collect()
}

/// Whether the operator manages HTTPRoutes.
fn manages_routes(install: &Objects) -> bool {
    let is_enabled = json!({ "name": "LAUREL_GATEWAY_API", "value": "true" });
    install.pod_spec()["containers"][0]["env"].as_array().unwrap().contains(&is_enabled)
}

#[test]
fn httproutes_are_granted_only_where_they_are_managed() {
    for (scope, role, is_cluster_wide) in [("cluster", "ClusterRole", true), ("namespace", "Role", false)] {
        let install = Objects::of_chart(&["--set", &format!("gatewayAPI.enabled=true,scope={scope}")]);
        assert_eq!(granted(install.named(role, "laurel")), with_routes(is_cluster_wide));
        assert!(manages_routes(&install), "scope {scope}");
    }
    let component = Objects::of_kustomization("tests/distribution/chart/gateway-api");
    assert_eq!(granted(component.one("ClusterRole")), with_routes(true));
    assert!(manages_routes(&component));
    assert!(!manages_routes(&Objects::of_chart(&[])));
}

#[test]
fn in_one_namespace() {
    let install = Objects::of_chart(&["--set", "scope=namespace"]);
    assert_eq!(granted(install.named("Role", "laurel")), expected(false));
    assert_bound(&install, "Role");
    assert!(install.kinds().iter().all(|kind| !kind.starts_with("Cluster")), "{:?}", install.kinds());
}

#[test]
fn the_lease_is_the_only_one_that_it_can_change() {
    for scope in ["scope=cluster", "scope=namespace"] {
        let install = Objects::of_chart(&["--set", scope]);
        let rule = |fields: Value| {
            let mut rule = json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"] });
            rule.as_object_mut().unwrap().append(&mut fields.as_object().unwrap().clone());
            rule
        };
        assert_eq!(
            install.named("Role", "laurel-lease")["rules"],
            json!([
                rule(json!({ "verbs": ["create"] })),
                rule(json!({ "resourceNames": [NAME], "verbs": ["list", "watch", "update"] })),
            ])
        );
    }
}

#[test]
fn secrets_are_read_one_by_one() {
    for (group, resource, verb) in expected(true) {
        assert!(!(group.is_empty() && resource == "secrets") || verb == "get", "{verb} on Secrets");
        assert!(group != "*" && resource != "*" && verb != "*");
    }
}

/// The role is bound only to the service account of the operator's pod.
fn assert_bound(install: &Objects, kind: &str) {
    assert_binding(install, kind, "laurel");
    assert_binding(install, "Role", "laurel-lease");
}

fn assert_binding(install: &Objects, kind: &str, role: &str) {
    let binding_kind = format!("{kind}Binding");
    let binding = install.named(&binding_kind, role);
    assert_eq!(
        binding["roleRef"],
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role })
    );
    let account = &install.one("ServiceAccount")["metadata"]["name"];
    assert_eq!(&install.pod_spec()["serviceAccountName"], account);
    assert_eq!(
        binding["subjects"],
        json!([{ "kind": "ServiceAccount", "name": account, "namespace": NAMESPACE }])
    );
}

#[test]
fn they_can_be_managed_elsewhere() {
    let install = Objects::of_chart(&["--set", "rbac.create=false,serviceAccount.create=false"]);
    assert!(install.kinds().iter().all(|kind| !kind.contains("Role") && *kind != "ServiceAccount"));
    assert_eq!(install.pod_spec()["serviceAccountName"], "default");
}
