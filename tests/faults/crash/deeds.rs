//! What the operator did, apart from telling it: the writes that change what runs, what is routed where and what the
//! registry says.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::wire::{Exchange, Server};

/// What these writes did; what was done twice is there once.
pub(super) fn deeds(writes: &[Exchange]) -> BTreeSet<String> {
    writes.iter().filter_map(deed).collect()
}

fn deed(write: &Exchange) -> Option<String> {
    let path = write.path.split('?').next().unwrap_or_default();
    let mut parts = path.rsplit('/');
    let (name, kind) = (parts.next()?, parts.next()?);
    let body: Value = serde_json::from_str(&write.body).unwrap_or_default();
    let detail = match write.server {
        Server::Kubernetes if name == "status" => return None,
        Server::Kubernetes => match kind {
            "deployments" => size(&body["spec"]["replicas"]),
            "services" => body["spec"]["selector"]["laurel.dev/version"].to_string(),
            _ => body["metadata"]["finalizers"].to_string(),
        },
        Server::Registry => {
            ["alias", "version", "key", "value"].map(|field| body[field].to_string()).join(" ")
        }
    };
    Some(format!("{} {kind}/{name} {detail}", write.method))
}

/// On the way a version may have more or fewer pods; what matters is whether it has any.
fn size(replicas: &Value) -> String {
    match replicas.as_i64() {
        Some(0) => "no pods".to_owned(),
        Some(_) => "pods".to_owned(),
        None => String::new(),
    }
}
