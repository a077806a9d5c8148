//! A picture of a fixture in the cluster and the registry, without times, names and messages, so that runs
//! with the same result compare equal.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{ResourceExt, api::ListParams};
use laurel::api::{ModelAlias, RegisteredModel};
use serde_json::{Map, Value, json};

use super::effects::recorded;
use crate::fixture::Fixture;

/// The state of a fixture.
pub(super) type Picture = Value;

/// Fields whose presence matters and whose value differs from run to run.
const VARYING: [&str; 11] = [
    "at",
    "createdAt",
    "idleSince",
    "lastTransitionTime",
    "message",
    "putBackAt",
    "servedAt",
    "settings",
    "startedAt",
    "url",
    "duration",
];

/// Returns the current state of the fixture.
pub(super) async fn picture(fixture: &Fixture) -> Result<Picture> {
    let champion = fixture.api::<ModelAlias>().get_opt("champion").await?;
    let model = fixture.api::<RegisteredModel>().get_opt("model").await?;
    let deployments = fixture.api::<Deployment>().list(&ListParams::default()).await?;
    let services = fixture.api::<Service>().list(&ListParams::default()).await?;
    let registered = fixture.mlflow.model(&fixture.model).await?;
    let shown = json!({
        "champion": champion.map(|champion| json!({
            "finalizers": champion.finalizers(),
            "ending": champion.metadata.deletion_timestamp.is_some(),
            "status": champion.status,
        })),
        "model": model.map(|model| json!({
            "finalizers": model.finalizers(),
            "ending": model.metadata.deletion_timestamp.is_some(),
            "status": model.status,
        })),
        "deployments": deployments.items.iter().map(deployment).collect::<Map<_, _>>(),
        "services": services.items.iter().map(service).collect::<Map<_, _>>(),
        "registered": registered.map(|model| json!({
            "aliases": pairs(&model["aliases"], "alias", "version"),
            "tags": pairs(&model["tags"], "key", "value"),
            "description": model["description"],
        })),
        "records": audit_writes(fixture).await?,
    });
    let text = shown.to_string().replace(&fixture.namespace, "the-fixture");
    Ok(without_times(serde_json::from_str(&text)?))
}

/// Returns the audit entries in the tags of each version, with counts.
async fn audit_writes(fixture: &Fixture) -> Result<Value> {
    let versions = fixture.mlflow.tags_of_versions(&fixture.model).await?;
    let reported = |tags: &BTreeMap<String, String>| -> Value {
        let mut lines: Vec<(String, String)> = tags.iter().map(|(key, value)| recorded(key, value)).collect();
        lines.sort();
        json!(lines)
    };
    Ok(versions.iter().map(|(version, tags)| (version.clone(), reported(tags))).collect())
}

fn deployment(deployment: &Deployment) -> (String, Value) {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas);
    let containers =
        deployment.spec.iter().flat_map(|spec| spec.template.spec.iter()).flat_map(|pod| &pod.containers);
    let image = containers.into_iter().find_map(|container| container.image.as_ref());
    (deployment.name_any(), json!({ "replicas": wanted, "ready": ready.unwrap_or_default(), "image": image }))
}

fn service(service: &Service) -> (String, Value) {
    (service.name_any(), json!(service.spec.as_ref().and_then(|spec| spec.selector.as_ref())))
}

fn pairs(list: &Value, key: &str, value: &str) -> Value {
    let pairs = list.as_array().into_iter().flatten();
    pairs.map(|pair| (pair[key].as_str().unwrap_or_default().to_owned(), pair[value].clone())).collect()
}

fn without_times(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (String, Value)| {
                let varies = VARYING.contains(&name.as_str()) && !value.is_null();
                let value = if varies { json!("…") } else { without_times(value) };
                (name, value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_times).collect()),
        other => other,
    }
}

/// Returns the differences of two pictures: path and both values.
pub(super) fn differences(one: &Picture, other: &Picture) -> Vec<String> {
    let mut found = Vec::new();
    compare("", one, other, &mut found);
    found
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            for name in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
                compare(&format!("{path}/{name}"), &one[name], &other[name], found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (one, other)) in left.iter().zip(right).enumerate() {
                compare(&format!("{path}/{index}"), one, other, found);
            }
        }
        _ if one == other => {}
        _ => found.push(format!("  {path}: {one} without a crash, {other} with it")),
    }
}
