//! Post-processes the generated schemas, for every field of every kind.
//!
//! - Descriptions become paragraphs: `kubectl explain` would keep the line breaks of the doc comments.
//! - The status of every kind is open: no closed list of values, no default, and unknown fields are kept.
//!   Only Laurel writes a status, and the CRDs in a cluster may be older than the operator: a server-side
//!   apply with a field or a value that the schema rejects would fail as a whole. The schema still describes
//!   what the operator can read: names, versions, times.
//! - A null for the size is dropped: `replicas:` without a value is no size.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use serde_json::Value;

/// Keywords that no schema of a status has.
const CLOSED: [&str; 2] = ["enum", "default"];

/// The size that the scale subresource shows. It refuses an object in which this is null.
const SIZE: &str = "/properties/spec/properties/serving/properties/replicas";

/// Returns the definition with its schemas post-processed.
pub(super) fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(validation) = version.schema.as_mut() else { continue };
        let Some(schema) = validation.open_api_v3_schema.take() else { continue };
        validation.open_api_v3_schema = Some(finished(&schema));
    }
    crd
}

fn finished(schema: &JSONSchemaProps) -> JSONSchemaProps {
    let mut schema = serde_json::to_value(schema).expect("a schema has only text for keys");
    join_descriptions(&mut schema);
    if let Some(status) = schema.pointer_mut("/properties/status") {
        open(status);
    }
    drop_null(&mut schema, SIZE);
    serde_json::from_value(schema).expect("only texts and optional keywords were changed")
}

/// Lets the API server drop a null at this place, as if the field was not there.
fn drop_null(schema: &mut Value, place: &str) {
    if let Some(field) = schema.pointer_mut(place).and_then(Value::as_object_mut) {
        field.remove("nullable");
    }
}

/// Calls itself for every schema below `schema`.
fn below(schema: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    let Some(fields) = schema.as_object_mut() else { return };
    for (keyword, value) in fields {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(&mut *visit),
            ("items" | "additionalProperties", value @ Value::Object(_)) => visit(value),
            _ => {}
        }
    }
}

fn join_descriptions(schema: &mut Value) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = paragraphs(text);
    }
    below(schema, &mut join_descriptions);
}

/// Returns `text` with each paragraph on one line. List items keep lines of their own.
fn paragraphs(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        let is_item = line.starts_with("- ") || line.starts_with("* ");
        match lines.last_mut() {
            Some(last) if !last.is_empty() && !line.is_empty() && !is_item => {
                last.push(' ');
                last.push_str(line);
            }
            Some(last) if last.is_empty() && line.is_empty() => {}
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n").trim().to_owned()
}

/// Accepts values and fields that are not known yet.
fn open(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        fields.retain(|keyword, _| !CLOSED.contains(&keyword.as_str()));
        if fields.contains_key("properties") {
            fields.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
        }
    }
    below(schema, &mut open);
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;
    use crate::api::custom_resource_definitions;

    fn schemas() -> Vec<(String, Value)> {
        let crds = custom_resource_definitions().into_iter();
        crds.map(|crd| {
            let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
            (crd.spec.names.kind, serde_json::to_value(schema).unwrap())
        })
        .collect()
    }

    fn each(path: &str, schema: &mut Value, check: &mut dyn FnMut(&str, &Value)) {
        check(path, schema);
        for (keyword, mark) in [("items", "[]"), ("additionalProperties", ".*")] {
            if let Some(schema) = schema.get_mut(keyword).filter(|schema| schema.is_object()) {
                each(&format!("{path}{mark}"), schema, check);
            }
        }
        for (name, schema) in
            schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten()
        {
            each(&format!("{path}.{name}"), schema, check);
        }
    }

    #[test]
    fn lines_of_a_paragraph_are_joined() {
        for (text, expected) in [
            ("One line.", "One line."),
            ("Two\nlines.", "Two lines."),
            ("First\nparagraph.\n\nSecond\nparagraph.", "First paragraph.\n\nSecond paragraph."),
            ("One of\n- this,\n  or\n- that.", "One of\n- this, or\n- that."),
            ("Much\n\n\nspace.", "Much\n\nspace."),
        ] {
            assert_eq!(paragraphs(text), expected);
        }
    }

    /// `kubectl explain` prints a description as it is.
    #[test]
    fn descriptions_are_paragraphs_for_users() {
        for (kind, mut schema) in schemas() {
            each(&kind, &mut schema, &mut |path, schema| {
                let text = schema["description"].as_str().unwrap_or_default();
                let theirs = ["env", "resources", "conditions", "selector."];
                let is_ours = theirs.iter().all(|part| !path.contains(part)) && !path.ends_with([']', '*']);
                if is_ours {
                    assert!(text.len() > 3, "{path} has no description");
                    assert!(
                        !text.contains("[`") && !text.contains("::"),
                        "{path}: a link of rustdoc: {text}"
                    );
                    let breaks = text.lines().all(|line| line.is_empty() || line.ends_with(['.', ':', ',']));
                    assert!(!text.contains('\n') || breaks, "{path}: {text}");
                }
            });
        }
    }

    /// CRDs that are older than the operator must never reject a status that it writes.
    #[test]
    fn a_status_accepts_values_of_a_later_release() {
        for (kind, mut schema) in schemas() {
            each(&kind, &mut schema["properties"]["status"], &mut |path, schema| {
                for keyword in CLOSED {
                    assert_eq!(schema.get(keyword), None, "{path}");
                }
                let is_object = schema.get("properties").is_some();
                let keeps = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
                assert!(keeps || !is_object, "{path} drops what it does not know");
            });
        }
    }
}
