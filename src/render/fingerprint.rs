//! The fingerprint of settings, which decides between "roll the pods" and "nothing changed".
//!
//! It hashes the **inputs**, never the rendered objects. A later release may render differently; hashing its
//! output would restart every model in the cluster on upgrade. Hashing what the user wrote restarts a model
//! if and only if the user changed something.
//!
//! For the same reason
//! - the text that is hashed names its recipe, and so does the result: a new recipe is recognised as such
//!   instead of looking like new settings,
//! - what is absent is left out, so an optional field that a later release adds changes no fingerprint,
//! - what says the default in so many words is left out too where the field is optional,
//! - `replicas` is left out: scaling restarts nothing.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Rendering;
use crate::api::{
    model_alias::{KeepAlive, Serving},
    names::hex,
    serving_metrics::{Predictions, ServingMetrics},
};

/// The version of the recipe. Raising it rolls every serving pod of every cluster that upgrades.
const RECIPE: &str = "v1";

/// A short text that is equal for equal settings only: `v1-` and 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SettingsFingerprint(String);

impl SettingsFingerprint {
    /// Returns the fingerprint as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for SettingsFingerprint {
    /// Wraps a stored fingerprint, written by this release or another.
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for SettingsFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the fingerprint of everything that the pods depend on, except version, model URI and size.
#[must_use]
pub fn settings(r: &Rendering) -> SettingsFingerprint {
    let registry = r.registry;
    let inputs = json!({
        "recipe": RECIPE,
        "model": r.model,
        "alias": r.alias,
        "serving": serving(r.serving),
        "registry": given([
            ("trackingUri", json!(registry.tracking_uri)),
            ("workspace", json!(registry.workspace)),
            ("ca", json!(registry.ca)),
            ("envFrom", json!(registry.env_from)),
        ]),
    });
    SettingsFingerprint(format!("{RECIPE}-{}", hex(&Sha256::digest(canonical(&inputs)), 16)))
}

/// Returns `serving` as the user wrote it, without fields that do not concern pods.
fn serving(serving: &Serving) -> Value {
    let mut fields = match json!(serving) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.remove("replicas");
    if serving.keep_alive == Some(KeepAlive::Disabled) {
        fields.remove("keepAlive");
    }
    if let Some(metrics) = &serving.metrics {
        fields.insert("metrics".to_owned(), counted(metrics));
    }
    given(fields)
}

/// Returns the part of `serving.metrics` that pods depend on. Where a custom server shows its metrics, and
/// under which names, is for those who read them.
fn counted(metrics: &ServingMetrics) -> Value {
    let predictions = metrics.predictions.filter(|predictions| *predictions != Predictions::default());
    given([("predictions", json!(predictions)), ("port", json!(metrics.port))])
}

/// Returns the fields that are neither null nor empty.
fn given<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Value {
    let says_something = |value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    fields
        .into_iter()
        .map(|(field, value)| (field.into(), value))
        .filter(|(_, value)| says_something(value))
        .collect::<Map<_, _>>()
        .into()
}

/// Returns `value` as JSON with maps sorted by key, regardless of how `serde_json` is compiled.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(field, _)| *field);
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(field, value)| format!("{}:{}", json!(field), canonical(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture::Fixture;

    fn of(serving: &str) -> String {
        settings(&Fixture::serving(serving).rendering()).to_string()
    }

    /// A change of any of these values restarts every model of everybody who upgrades. Do not change them:
    /// find what changed the fingerprint, and omit it if it is not set.
    #[test]
    fn golden() {
        let everything = "
runtime: mlserver
replicas: 3
port: 9000
keepAlive: Enabled
resources: {requests: {cpu: '1', memory: 2Gi}, limits: {memory: 2Gi}}
env: [{name: B, value: b}, {name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]
envFrom: [{secretRef: {name: s}}]
template: {spec: {nodeSelector: {pool: gpu}, priorityClassName: high}}";
        assert_eq!(of(""), "v1-5bfe9aa7fcdef31a");
        assert_eq!(of(everything), "v1-b6245e55b8c6297e");
        let far = Fixture::serving("").with_registry(|registry| {
            registry.workspace = Some("team-a".into());
            registry.ca = Some(serde_yaml::from_str("{name: corp-ca}").unwrap());
            registry.env_from = serde_yaml::from_str("[{secretRef: {name: s}}]").unwrap();
        });
        assert_eq!(settings(&far.rendering()).as_str(), "v1-4692aa67e7de21a2");
    }

    #[test]
    fn changes_that_restart_nothing() {
        let plain = of("");
        for same in [
            "replicas: 7",
            "keepAlive: Disabled",
            "metrics: {predictions: Classes}",
            "metrics: {}",
            "metrics: {path: /stats, requests: duration_seconds, statusLabel: code}",
            "runtime: mlflow",
            "port: 8080",
            "env: []",
            "template: {}",
            "resources: {}",
        ] {
            assert_eq!(of(same), plain, "{same}");
        }
        assert_eq!(of("template: {spec: {b: 1, a: 2}}"), of("template: {spec: {a: 2, b: 1}}"));
    }

    #[test]
    fn changes_that_roll_the_pods() {
        let plain = of("");
        for other in [
            "runtime: custom",
            "port: 8081",
            "keepAlive: Enabled",
            "metrics: {predictions: Numbers}",
            "metrics: {predictions: Disabled}",
            "metrics: {port: 9090}",
            "env: [{name: A, value: a}]",
            "envFrom: [{secretRef: {name: s}}]",
            "resources: {requests: {cpu: 1m}}",
            "template: {metadata: {labels: {a: b}}}",
        ] {
            assert_ne!(of(other), plain, "{other}");
        }
        let order = |first, second| of(&format!("env: [{{name: {first}}}, {{name: {second}}}]"));
        assert_ne!(order("A", "B"), order("B", "A"));
        let other_model = Fixture { model: "fraud2".parse().unwrap(), ..Fixture::serving("") };
        assert_ne!(settings(&other_model.rendering()).as_str(), plain);
        let other_server = Fixture::serving("")
            .with_registry(|registry| registry.tracking_uri = "http://other".parse().unwrap());
        assert_ne!(settings(&other_server.rendering()).as_str(), plain);
    }
}
