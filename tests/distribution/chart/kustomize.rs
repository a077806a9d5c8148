//! The kustomize base is the same installation as the chart with its default values.

use pretty_assertions::assert_eq;
use serde_json::Value;

use super::tools::{NAMESPACE, Objects};

fn both() -> (Objects, Objects) {
    (Objects::of_kustomization("config"), Objects::of_chart(&[]))
}

#[test]
fn it_brings_the_same_objects_and_a_namespace() {
    let (base, chart) = both();
    let mut expected = chart.kinds();
    expected.push("Namespace");
    expected.sort_unstable();
    assert_eq!(base.kinds(), expected);
    let namespace = &base.one("Namespace")["metadata"];
    assert_eq!(namespace["name"], NAMESPACE);
    assert_eq!(namespace["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn they_are_alike() {
    let (base, chart) = both();
    for (kind, fields) in [
        ("ClusterRole", &["rules"] as &[&str]),
        ("ClusterRoleBinding", &["roleRef", "subjects"]),
        ("Role", &["rules"]),
        ("RoleBinding", &["roleRef", "subjects"]),
        ("PodDisruptionBudget", &["spec"]),
        ("ServiceAccount", &["automountServiceAccountToken"]),
        ("Deployment", &["spec"]),
    ] {
        let (left, right) = (base.one(kind), chart.one(kind));
        assert_eq!(left["metadata"]["name"], right["metadata"]["name"], "{kind}");
        assert_eq!(left["metadata"]["namespace"], right["metadata"]["namespace"], "{kind}");
        for field in fields {
            assert!(!left[field].is_null(), "{kind}.{field}");
            assert_eq!(left[field], right[field], "{kind}.{field}");
        }
    }
    let specs = |objects: &Objects| -> Vec<Value> {
        objects.all("CustomResourceDefinition").map(|crd| crd["spec"].clone()).collect()
    };
    assert_eq!(specs(&base), specs(&chart));
}
