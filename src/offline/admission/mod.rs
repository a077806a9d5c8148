//! The API server's validation of our manifests, without an API server.
//!
//! ```text
//! manifest ─► metadata  names, labels, annotations
//!          ─► stored    unknown fields, nulls, defaults
//!          ─► schema    types, limits, patterns, then the CEL rules
//!               ├ exceptions  differences between CEL here and in the API server
//!               └ go_url      URLs as Kubernetes parses them
//! ```
//!
//! All of it is derived from the custom resource definitions themselves, so a new field or rule needs no
//! change here. Transition rules (`oldSelf`) are skipped: there is no old object. A test sends hundreds of
//! manifests to this and to a real API server, and compares the results.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;

mod exceptions;
mod field;
pub mod go_url;
mod metadata;
mod schema;
mod stored;

pub use self::schema::Admission;
use crate::api::{GROUP, custom_resource_definitions};

/// An error in an object for which the API server would reject it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// The field, for instance `spec.serving.replicas`; empty for the object as a whole.
    pub path: String,
    /// The error.
    pub problem: String,
}

impl Violation {
    fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        if path.is_empty() { f.write_str(problem) } else { write!(f, "{path}: {problem}") }
    }
}

/// The API server's validation of our kinds, with strict field validation, as requested by kubectl.
#[derive(Debug)]
pub struct Judge {
    kinds: BTreeMap<String, (Vec<String>, Admission)>,
}

impl Default for Judge {
    fn default() -> Self {
        let kinds = custom_resource_definitions().into_iter().map(|definition| {
            let versions = definition.spec.versions;
            let names = versions.iter().map(|version| format!("{GROUP}/{}", version.name)).collect();
            let schema = versions.into_iter().next().and_then(|version| version.schema?.open_api_v3_schema);
            // Each of our definitions has one version, with a schema.
            let schema = schema.and_then(|schema| serde_json::to_value(schema).ok()).unwrap_or_default();
            (definition.spec.names.kind, (names, Admission::new(schema)))
        });
        Self { kinds: kinds.collect() }
    }
}

impl Judge {
    /// Whether an object belongs to our API group, even if its kind is unknown.
    #[must_use]
    pub fn is_ours(object: &Value) -> bool {
        let group = object["apiVersion"].as_str().and_then(|version| version.split_once('/'));
        group.is_some_and(|(group, _)| group == GROUP)
    }

    /// Returns the errors for which the API server would reject one of our objects; empty if it would accept
    /// the object.
    #[must_use]
    pub fn judge(&self, object: &Value) -> Vec<Violation> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let Some((versions, admission)) = self.kinds.get(kind) else {
            let known: Vec<_> = self.kinds.keys().map(String::as_str).collect();
            return vec![Violation::new("kind", format!("{kind:?} is not one of {}", known.join(", ")))];
        };
        if !versions.iter().any(|version| object["apiVersion"] == version.as_str()) {
            return vec![Violation::new(
                "apiVersion",
                format!("{} is not {}", object["apiVersion"], versions.join(" or ")),
            )];
        }
        let mut violations = metadata::judge(&object["metadata"]);
        violations.extend(admission.strictly(named(object)));
        violations
    }
}

impl Judge {
    /// Returns a valid object as it would be stored: with defaults.
    #[must_use]
    pub fn stored(&self, object: &Value) -> Value {
        let admission = object["kind"].as_str().and_then(|kind| self.kinds.get(kind));
        let stored = admission.and_then(|(_, admission)| admission.admit(object.clone()).ok());
        stored.unwrap_or_else(|| object.clone())
    }
}

/// Returns the object with a name if it has none, so that rules about the name do not fail: the API server
/// may generate one, and a missing name is reported separately.
fn named(object: &Value) -> Value {
    let mut object = object.clone();
    if object["metadata"].is_null() {
        object["metadata"] = Value::Object(serde_json::Map::default());
    }
    if let Some(metadata) = object["metadata"].as_object_mut()
        && metadata.get("name").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        let prefix = metadata.get("generateName").and_then(Value::as_str).unwrap_or("name-");
        metadata.insert("name".to_owned(), metadata::generated(prefix).into());
    }
    object
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn reported(yaml: &str) -> Vec<String> {
        let object: Value = serde_yaml::from_str(yaml).unwrap();
        Judge::default().judge(&object).iter().map(ToString::to_string).collect()
    }

    fn alias(spec: &str) -> Vec<String> {
        let head = "apiVersion: laurel.dev/v1alpha1\nkind: ModelAlias\nmetadata: {name: fraud-champion}";
        reported(&format!("{head}\nspec: {{modelRef: {{name: fraud}}, alias: champion, {spec}}}"))
    }

    #[test]
    fn valid_objects_have_no_errors() {
        let none: [String; 0] = [];
        assert_eq!(alias("version: '4'"), none);
        assert_eq!(alias("follow: {best: {metric: auc}}, serving: {image: i, replicas: 2.0}"), none);
        assert_eq!(alias("version: '4', serving: {image: i, template: {anything: [1, {at: all}]}}"), none);
        assert_eq!(alias("version: '4', follow: null, previousAlias: null"), none, "null means absent");
    }

    #[test]
    fn each_error_names_the_field_and_the_problem() {
        let table = [
            ("version: 4", "spec.version: 4 is not a string"),
            ("version: '04'", r#"spec.version: "04" does not match ^[1-9][0-9]*$"#),
            ("version: '4', servings: {}", "spec.servings: unknown field"),
            ("version: '4', serving: {}", "spec.serving: image is required"),
            ("version: '4', serving: {image: i, replicas: 0}", "spec.serving.replicas: 0 is less than 1"),
            (
                "version: '4', serving: {image: i, replicas: 1.5}",
                "spec.serving.replicas: 1.5 is not an integer",
            ),
            ("version: '4', drift: Fix", r#"spec.drift: "Fix" is not one of "Correct", "Report""#),
            ("version: '4', follow: {latest: {}}", "spec: set exactly one of version and follow"),
            ("follow: {}", "spec.follow: follow takes exactly one of registry, latest, best and semver"),
            ("follow: {latest: {}, newest: {}}", "spec.follow: 2 entries exceed the maximum of 1"),
            (
                "follow: {newest: {}}",
                "spec.follow: follow takes exactly one of registry, latest, best and semver",
            ),
            (
                "version: '4', rollout: {progressDeadline: 0s}",
                "spec.rollout.progressDeadline: progressDeadline is at least 1s",
            ),
            ("version: '4', previousAlias: champion", "spec: previousAlias must differ from alias"),
            ("version: '4', rollout: {maxSurge: 1}", "spec.rollout: maxSurge is for strategy Rolling"),
        ];
        for (spec, violation) in table {
            assert_eq!(alias(spec), [violation], "{spec}");
        }
    }

    #[test]
    fn a_duplicate_key_in_a_list_is_an_error() {
        let metrics = "[{name: auc, min: 0.9}, {name: auc, max: 1}]";
        let violations = reported(&format!(
            "{{apiVersion: laurel.dev/v1alpha1, kind: RegisteredModel, metadata: {{name: fraud}}, spec: \
             {{promotion: [{{name: r, aliases: [a], metrics: {metrics}}}]}}}}"
        ));
        assert_eq!(violations, [r#"spec.promotion[0].metrics[1]: duplicate of name "auc""#]);
    }

    #[test]
    fn the_url_of_a_registry_is_parsed_like_by_kubernetes() {
        let of = |url: &str| {
            reported(&format!(
                "{{apiVersion: laurel.dev/v1alpha1, kind: ModelRegistry, metadata: {{name: mlflow}}, spec: \
                 {{mlflow: {{url: {url:?}}}}}}}"
            ))
        };
        assert_eq!(of("http://localhost:5000"), [""; 0]);
        assert_eq!(of("http://mlflow/prefix"), [""; 0]);
        for wrong in
            ["ftp://mlflow", "mlflow:5000", "", "http://user@mlflow", "http://mlflow/?x", "http://a b"]
        {
            assert!(!of(wrong).is_empty(), "{wrong}");
        }
    }

    #[test]
    fn names_and_kinds_are_validated() {
        let spec = "spec: {modelRef: {name: fraud}, alias: champion, version: '4'}";
        let of = |head: &str| reported(&format!("{{{head}, {spec}}}"));
        let kind = "apiVersion: laurel.dev/v1alpha1, kind: ModelAlias";
        let long = "a".repeat(53);
        assert_eq!(of(&format!("{kind}, metadata: {{}}")), ["metadata: name is required"]);
        assert!(of(&format!("{kind}, metadata: {{name: {long}}}"))[0].contains("at most 52"));
        assert_eq!(of(&format!("{kind}, metadata: {{name: a, labels: {{x: 1}}}}")).len(), 1);
        assert_eq!(
            of(&format!("{kind}, metadata: {{name: a, owner: me}}")),
            ["metadata.owner: unknown field"]
        );
        assert_eq!(
            of("apiVersion: laurel.dev/v1, kind: ModelAlias, metadata: {name: a}"),
            [r#"apiVersion: "laurel.dev/v1" is not laurel.dev/v1alpha1"#]
        );
        assert!(
            of("apiVersion: laurel.dev/v1alpha1, kind: ModelAliases, metadata: {name: a}")[0]
                .starts_with("kind:")
        );
    }
}
