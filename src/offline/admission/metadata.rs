//! The metadata of an object, as every kind has it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::Violation;

/// The fields there are.
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

/// The most that all annotations together may hold.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// How much of a prefix is kept for a name that the API server makes up.
const PREFIX_MAX: usize = 58;

/// A name like the one that the API server makes up from a prefix.
pub(super) fn generated(prefix: &str) -> String {
    let kept: String = prefix.chars().take(PREFIX_MAX).collect();
    format!("{kept}xxxxx")
}

pub(super) fn judge(metadata: &Value) -> Vec<Violation> {
    let Some(fields) = metadata.as_object() else {
        let problem = if metadata.is_null() { "name is required" } else { "it is not an object" };
        return vec![Violation::new("metadata", problem)];
    };
    let unknown = fields.keys().filter(|field| !FIELDS.contains(&field.as_str()));
    let mut violations: Vec<_> =
        unknown.map(|field| Violation::new(format!("metadata.{field}"), "there is no such field")).collect();
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
        violations
            .push(Violation::new("metadata.namespace", format!("{namespace:?} is no name of a namespace")));
    }
    for (key, value) in meta.labels.into_iter().flatten() {
        if !is_qualified(&key) {
            violations.push(Violation::new("metadata.labels", format!("{key:?} is no key of a label")));
        }
        if !value.is_empty() && !is_name_part(&value) {
            violations.push(Violation::new("metadata.labels", format!("{value:?} is no value of a label")));
        }
    }
    let mut size = 0;
    for (key, value) in meta.annotations.into_iter().flatten() {
        size += key.len() + value.len();
        if !is_qualified(&key.to_lowercase()) {
            violations
                .push(Violation::new("metadata.annotations", format!("{key:?} is no key of an annotation")));
        }
    }
    if size > ANNOTATIONS_MAX {
        violations.push(Violation::new(
            "metadata.annotations",
            format!("{size} bytes are more than {ANNOTATIONS_MAX}"),
        ));
    }
    for finalizer in meta.finalizers.into_iter().flatten().filter(|finalizer| !is_qualified(finalizer)) {
        violations.push(Violation::new("metadata.finalizers", format!("{finalizer:?} is no finalizer")));
    }
    if meta.resource_version.is_some_and(|version| !version.is_empty()) {
        violations.push(Violation::new("metadata.resourceVersion", "it is the server's to set; take it out"));
    }
    violations
}

fn name_violation(path: &str, name: &str, violations: &mut Vec<Violation>) {
    if !is_subdomain(name) {
        let problem = format!(
            "{name:?} is no name of an object: at most 253 lower-case letters, digits, '-' and '.', beginning and ending with a \
             letter or a digit"
        );
        violations.push(Violation::new(path, problem));
    }
}

/// A label of DNS (RFC 1123).
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

/// `name` or `prefix/name`.
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
