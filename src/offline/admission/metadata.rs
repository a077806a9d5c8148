//! Validation of an object's metadata, the same for every kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::Violation;

/// The known fields.
const FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Maximum size of all annotations together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Maximum length of the prefix in a name that the API server generates.
const PREFIX_MAX: usize = 58;

/// Returns a name like one that the API server generates from a prefix.
pub(super) fn generated(prefix: &str) -> String {
    let kept: String = prefix.chars().take(PREFIX_MAX).collect();
    format!("{kept}xxxxx")
}

pub(super) fn judge(metadata: &Value) -> Vec<Violation> {
    let Some(fields) = metadata.as_object() else {
        let problem = if metadata.is_null() { "name is required" } else { "must be an object" };
        return vec![Violation::new("metadata", problem)];
    };
    let unknown = fields.keys().filter(|field| !FIELDS.contains(&field.as_str()));
    let mut violations: Vec<_> =
        unknown.map(|field| Violation::new(format!("metadata.{field}"), "unknown field")).collect();
    let known: Value = metadata.clone();
    let meta: ObjectMeta = match serde_json::from_value(known) {
        Ok(meta) => meta,
        Err(error) => {
            violations.push(Violation::new("metadata", error.to_string()));
            return violations;
        }
    };
    match (meta.name.filter(|name| !name.is_empty()), meta.generate_name.filter(|prefix| !prefix.is_empty()))
    {
        (Some(name), _) => name_violation("metadata.name", &name, &mut violations),
        (None, Some(prefix)) => name_violation("metadata.generateName", &generated(&prefix), &mut violations),
        (None, None) => violations.push(Violation::new("metadata", "name is required")),
    }
    if let Some(namespace) = meta.namespace.filter(|namespace| !namespace.is_empty())
        && !is_label(&namespace)
    {
        let problem = format!("{namespace:?} is not a valid namespace");
        violations.push(Violation::new("metadata.namespace", problem));
    }
    for (key, value) in meta.labels.into_iter().flatten() {
        if !is_qualified(&key) {
            violations.push(Violation::new("metadata.labels", format!("{key:?} is not a valid label key")));
        }
        if !value.is_empty() && !is_name_part(&value) {
            violations
                .push(Violation::new("metadata.labels", format!("{value:?} is not a valid label value")));
        }
    }
    let mut size = 0;
    for (key, value) in meta.annotations.into_iter().flatten() {
        size += key.len() + value.len();
        if !is_qualified(&key.to_lowercase()) {
            let problem = format!("{key:?} is not a valid annotation key");
            violations.push(Violation::new("metadata.annotations", problem));
        }
    }
    if size > ANNOTATIONS_MAX {
        violations.push(Violation::new(
            "metadata.annotations",
            format!("{size} bytes exceed the maximum of {ANNOTATIONS_MAX}"),
        ));
    }
    for finalizer in meta.finalizers.into_iter().flatten().filter(|finalizer| !is_qualified(finalizer)) {
        violations
            .push(Violation::new("metadata.finalizers", format!("{finalizer:?} is not a valid finalizer")));
    }
    if meta.resource_version.is_some_and(|version| !version.is_empty()) {
        violations.push(Violation::new("metadata.resourceVersion", "is set by the API server; remove it"));
    }
    violations
}

fn name_violation(path: &str, name: &str, violations: &mut Vec<Violation>) {
    if !is_subdomain(name) {
        let problem = format!(
            "{name:?} is not a valid object name: use at most 253 lower-case letters, digits, '-' and '.', \
             beginning and ending with a letter or a digit"
        );
        violations.push(Violation::new(path, problem));
    }
}

/// Whether a text is a DNS label (RFC 1123).
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// Whether a key has the form `name` or `prefix/name`.
fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name_part(name),
        None => is_name_part(key),
    }
}

fn is_name_part(text: &str) -> bool {
    let is_edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 63
        && text.bytes().all(is_inner)
        && is_edge(text.bytes().next())
        && is_edge(text.bytes().last())
}
