//! The policy with which the API server stamps who decided about a version. That it works is shown by the
//! control-plane tests.

use pretty_assertions::assert_eq;
use serde_json::json;

use super::tools::{NAMESPACE, Objects};

const POLICY: &str = "MutatingAdmissionPolicy";
const BINDING: &str = "MutatingAdmissionPolicyBinding";
const GROUP: &str = "admissionregistration.k8s.io";

/// What the chart brings to a cluster that serves the policy in these versions.
fn with(versions: &[&str], values: &str) -> Objects {
    let served: Vec<String> = versions.iter().map(|version| format!("{GROUP}/{version}/{POLICY}")).collect();
    let mut arguments: Vec<&str> = served.iter().flat_map(|served| ["--api-versions", served]).collect();
    arguments.extend(["--set", values]);
    Objects::of_chart(&arguments)
}

/// Whether the operator believes the stamp.
fn is_trusted(install: &Objects) -> bool {
    let stamped = json!({ "name": "LAUREL_TRUST_CHANGED_BY", "value": "true" });
    install.pod_spec()["containers"][0]["env"].as_array().unwrap().contains(&stamped)
}

#[test]
fn the_policy_uses_the_newest_served_version_and_only_then_is_the_annotation_trusted() {
    for (versions, values, expected) in [
        (&[] as &[&str], "", None),
        (&["v1beta1"], "", Some("v1beta1")),
        (&["v1"], "", Some("v1")),
        (&["v1beta1", "v1"], "", Some("v1")),
        (&["v1"], "changedBy.stamp=Never", None),
        (&["v1"], "scope=namespace", None),
        (&["v1"], "scope=namespace,changedBy.stamp=Always", Some("v1")),
        (&[], "changedBy.stamp=Always", Some("v1")),
    ] {
        let install = with(versions, values);
        for kind in [POLICY, BINDING] {
            let found: Vec<&str> =
                install.all(kind).filter_map(|object| object["apiVersion"].as_str()).collect();
            let desired: Vec<String> = expected.iter().map(|version| format!("{GROUP}/{version}")).collect();
            assert_eq!(found, desired, "{kind} with {versions:?} and {values:?}");
        }
        assert_eq!(is_trusted(&install), expected.is_some(), "with {versions:?} and {values:?}");
    }
}

#[test]
fn the_policy_matches_modelaliases_and_is_bound_by_its_binding() {
    let install = with(&["v1"], "");
    let policy = install.one(POLICY);
    let rules = &policy["spec"]["matchConstraints"]["resourceRules"];
    assert_eq!(
        *rules,
        json!([{
            "apiGroups": ["laurel.dev"],
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["modelaliases"],
        }])
    );
    assert_eq!(install.one(BINDING)["spec"], json!({ "policyName": policy["metadata"]["name"] }));
}

#[test]
fn with_one_namespace_the_policy_matches_only_that_one() {
    let install = with(&["v1"], "scope=namespace,changedBy.stamp=Always");
    let selector = &install.one(POLICY)["spec"]["matchConstraints"]["namespaceSelector"];
    assert_eq!(*selector, json!({ "matchLabels": { "kubernetes.io/metadata.name": NAMESPACE } }));
    // Another release of that name, in another namespace, has a policy of its own.
    for kind in [POLICY, BINDING] {
        let name = &install.one(kind)["metadata"]["name"];
        assert!(name.as_str().unwrap().contains(NAMESPACE), "{name}");
    }
}

#[test]
fn the_kustomize_component_brings_the_same() {
    let (base, chart) = (Objects::of_kustomization("tests/distribution/chart/changed-by"), with(&["v1"], ""));
    for kind in [POLICY, BINDING] {
        assert_eq!(base.one(kind)["metadata"]["name"], chart.one(kind)["metadata"]["name"]);
        assert_eq!(base.one(kind)["spec"], chart.one(kind)["spec"], "{kind}");
    }
    assert!(is_trusted(&base));
}
