//! The samples are valid.

use std::collections::BTreeSet;

use k8s_openapi::api::{batch::v1::CronJob, core::v1::Secret};
use kube::core::cel::Validator;
use laurel::api::{
    ClusterModelRegistry, ModelAlias, ModelExperiment, ModelRegistry, RegisteredModel,
    custom_resource_definitions,
};
use pretty_assertions::assert_eq;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::tools::{documents, read, yaml_files};

const FOLDER: &str = "config/samples";
const DRIFT: &str = "drift/cronjob.yaml";

fn samples() -> impl Iterator<Item = Value> {
    yaml_files(FOLDER).into_iter().flat_map(|name| documents(&read(format!("{FOLDER}/{name}"))))
}

/// Asserts that an object fits its Rust type, with every key, and its CRD's rules.
pub(crate) fn assert_valid(object: &Value) {
    assert_eq!(unknown_keys(object), Vec::<String>::new(), "{object:#}");
    assert_eq!(broken_rules(object), Vec::<String>::new(), "{object:#}");
}

fn unknown_keys(object: &Value) -> Vec<String> {
    fn typed<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
        let typed: T =
            serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error} in {object:#}"));
        serde_json::to_value(typed).unwrap()
    }
    let known = match object["kind"].as_str() {
        Some("ModelRegistry") => typed::<ModelRegistry>(object),
        Some("ClusterModelRegistry") => typed::<ClusterModelRegistry>(object),
        Some("RegisteredModel") => typed::<RegisteredModel>(object),
        Some("ModelAlias") => typed::<ModelAlias>(object),
        Some("ModelExperiment") => typed::<ModelExperiment>(object),
        Some("Secret") => typed::<Secret>(object),
        Some("CronJob") => typed::<CronJob>(object),
        kind => panic!("unexpected sample of kind {kind:?}"),
    };
    let mut unknown = Vec::new();
    collect_unknown(object, &known, "", &mut unknown);
    unknown
}

/// Returns the keys of `given` that a round trip through the type lost.
fn collect_unknown(given: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match given {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = format!("{path}.{key}");
                match known.get(key) {
                    Some(known) => collect_unknown(value, known, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect_unknown(item, &known[index], &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Returns the CEL rules of its CRD that an object breaks.
fn broken_rules(object: &Value) -> Vec<String> {
    let crds = custom_resource_definitions();
    let Some(crd) = crds.iter().find(|crd| object["kind"] == crd.spec.names.kind) else { return Vec::new() };
    let version = &crd.spec.versions[0];
    assert_eq!(object["apiVersion"], format!("{}/{}", crd.spec.group, version.name));
    let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    let schema = serde_json::to_value(schema).unwrap();
    match Validator::new().validate_with_defaults(&schema, object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.as_slice().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_api_accepts_them() {
    let below = ["ci/airflow/modelalias-follower.yaml", DRIFT];
    let below = below.into_iter().flat_map(|name| documents(&read(format!("{FOLDER}/{name}"))));
    for object in samples().chain(below) {
        assert_valid(&object);
    }
}

#[test]
fn the_drift_job_passes_the_restricted_pod_security_standard() {
    let objects = documents(&read(format!("{FOLDER}/{DRIFT}")));
    let [job, secret] = objects.as_slice() else { panic!("{objects:#?}") };
    let template = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let security = &template["securityContext"];
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["seccompProfile"], json!({ "type": "RuntimeDefault" }));
    assert_eq!(template["automountServiceAccountToken"], false, "it does not talk to the cluster");
    let [container] = template["containers"].as_array().unwrap().as_slice() else { panic!("{template:#}") };
    let expected = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    });
    assert_eq!(container["securityContext"], expected);
    for variable in container["env"].as_array().unwrap() {
        let key = &variable["valueFrom"]["secretKeyRef"];
        if key.is_object() {
            assert_eq!(key["name"], secret["metadata"]["name"]);
            assert!(secret["stringData"].get(key["key"].as_str().unwrap()).is_some(), "{variable:#}");
        }
    }
}

/// Returns our objects in the YAML blocks of a page.
fn on_page(page: &str) -> Vec<Value> {
    let text = read(page);
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let is_ours =
        |object: &Value| object["apiVersion"].as_str().is_some_and(|group| group.starts_with("laurel.dev/"));
    blocks.flat_map(documents).filter(is_ours).collect()
}

#[test]
fn the_api_accepts_what_the_pages_show_in_full() {
    let first = on_page("README.md");
    assert_eq!(first.len(), 2, "the first promotion");
    let pages = [
        "docs/install.md",
        "docs/custom-server.md",
        "docs/experiments.md",
        "docs/following.md",
        "docs/drift.md",
        "docs/live-rules.md",
        "docs/promotion-rules.md",
        "docs/webhooks.md",
        "docs/reasons.md",
        "docs/audit-log.md",
    ];
    for object in first.into_iter().chain(pages.into_iter().flat_map(on_page)) {
        assert_valid(&object);
    }
}

#[test]
fn each_kind_and_variant_has_one() {
    assert_eq!(
        yaml_files(FOLDER),
        [
            "clustermodelregistry.yaml",
            "modelalias-best.yaml",
            "modelalias-custom.yaml",
            "modelalias-follow.yaml",
            "modelalias-latest.yaml",
            "modelalias-mlserver.yaml",
            "modelalias-rolling.yaml",
            "modelalias-semver.yaml",
            "modelalias-traffic.yaml",
            "modelalias.yaml",
            "modelexperiment.yaml",
            "modelregistry-auth.yaml",
            "modelregistry-stages.yaml",
            "modelregistry-webhook.yaml",
            "modelregistry.yaml",
            "registeredmodel-live.yaml",
            "registeredmodel-promotion.yaml",
            "registeredmodel-tags.yaml",
            "registeredmodel.yaml",
        ]
    );
}

#[test]
fn they_can_all_be_applied_together() {
    let mut taken = BTreeSet::new();
    for object in samples() {
        let kind = object["kind"].to_string();
        assert!(taken.insert((kind, object["metadata"]["name"].to_string())), "{object:#}");
        if object["kind"] == "ModelAlias" {
            let spec = &object["spec"];
            assert!(taken.insert((spec["modelRef"].to_string(), spec["alias"].to_string())), "{object:#}");
        }
    }
}

#[test]
fn these_checks_see_a_typo_and_a_broken_rule() {
    let alias = json!({
        "apiVersion": "laurel.dev/v1alpha1",
        "kind": "ModelAlias",
        "metadata": { "name": "fraud-champion" },
        "spec": {
            "modelRef": { "name": "fraud" },
            "alias": "champion",
            "version": "1",
            "follow": { "registry": {} },
            "serving": { "image": "i", "replica": 2 },
        },
    });
    assert_eq!(unknown_keys(&alias), [".spec.serving.replica"]);
    let broken = broken_rules(&alias);
    assert!(broken.iter().any(|rule| rule.contains("set exactly one of version and follow")), "{broken:?}");
}
