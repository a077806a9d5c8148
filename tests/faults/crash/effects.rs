//! The effects of an operator's writes, apart from status: workloads, routing and the registry.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::wire::{Exchange, Server};

/// Returns the effects of these writes, without duplicates.
pub(super) fn effects(writes: &[Exchange]) -> BTreeSet<String> {
    writes.iter().filter_map(effect).collect()
}

fn effect(write: &Exchange) -> Option<String> {
    let path = write.path.split('?').next().unwrap_or_default();
    let mut parts = path.rsplit('/');
    let (name, kind) = (parts.next()?, parts.next()?);
    let body: Value = serde_json::from_str(&write.body).unwrap_or_default();
    let detail = match write.server {
        Server::Kubernetes if name == "status" => return None,
        // A new operator does not know whether the meter is there, so it writes it again: to the same effect.
        Server::Kubernetes if kind == "configmaps" => return None,
        Server::Kubernetes => match kind {
            "deployments" => size(&body["spec"]["replicas"]),
            "services" => body["spec"]["selector"]["laurel.dev/version"].to_string(),
            _ => body["metadata"]["finalizers"].to_string(),
        },
        Server::Registry => {
            let tag = |field: &str| body[field].as_str().unwrap_or_default();
            let (key, value) = recorded(tag("key"), tag("value"));
            format!("{} {} {key} {value}", body["alias"], body["version"])
        }
    };
    Some(format!("{} {kind}/{name} {detail}", write.method))
}

/// The number of a version's pods may vary on the way; only whether it has any matters.
fn size(replicas: &Value) -> String {
    match replicas.as_i64() {
        Some(0) => "no pods".to_owned(),
        Some(_) => "pods".to_owned(),
        None => String::new(),
    }
}

/// Removes from a tag what differs between runs: times and durations.
pub(super) fn recorded(key: &str, value: &str) -> (String, String) {
    if let Some(rest) = key.strip_prefix("laurel.log.") {
        let (alias, rest) = rest.split_once('.').unwrap_or((rest, ""));
        let outcome = rest.rsplit('.').next().unwrap_or_default();
        let mut line: Value = serde_json::from_str(value).unwrap_or_default();
        for field in ["at", "duration", "message", "modelAlias"] {
            if let Some(fields) = line.as_object_mut() {
                fields.remove(field);
            }
        }
        return (format!("laurel.log.{alias}.….{outcome}"), line.to_string());
    }
    let value = match key {
        "laurel.promoted_at" | "laurel.rejected_at" | "laurel.rolled_back_at" => "…",
        // Only the alias and the reason; the message may contain the last observation.
        "laurel.rejected" => value.match_indices(": ").nth(1).map_or(value, |(end, _)| &value[..end]),
        _ => value,
    };
    (key.to_owned(), value.to_owned())
}
