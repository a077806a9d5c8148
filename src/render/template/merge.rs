//! Merging a partial pod template over a rendered one, as JSON.
//!
//! Not with [`k8s_openapi::DeepMerge`], which differs from Kubernetes where it matters here: it identifies
//! ports by number alone, keeps an `httpGet` beside the `exec` that replaces it, so that the API server
//! rejects the probe, and cannot remove anything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{TemplateError, path::Path};

type Object = Map<String, Value>;

/// The keys that identify the items of a list. The first is required, the others have a default.
pub(super) struct Keys {
    pub(super) required: &'static str,
    defaulted: Option<(&'static str, &'static str)>,
}

/// The keys of the lists that Laurel renders items in; other lists are replaced as a whole, as Kubernetes
/// does with most of them. From `x-kubernetes-list-map-keys` of the Kubernetes API.
pub(super) fn keys(list: &str) -> Option<Keys> {
    let (required, defaulted) = match list {
        "containers" | "initContainers" | "env" | "volumes" => ("name", None),
        "volumeMounts" => ("mountPath", None),
        "ports" => ("containerPort", Some(("protocol", "TCP"))),
        _ => return None,
    };
    Some(Keys { required, defaulted })
}

impl Keys {
    /// Returns the identity of `item` in its list.
    fn of(&self, item: &Value) -> (String, Option<String>) {
        let defaulted = self.defaulted.map(|(key, default)| match item.get(key) {
            Some(value) => value.to_string(),
            None => Value::from(default).to_string(),
        });
        (item[self.required].to_string(), defaulted)
    }
}

/// Mutually exclusive fields: setting one replaces the one that was rendered.
fn alternatives(object: &Path, field: &str) -> bool {
    match object.last_field() {
        "startupProbe" | "readinessProbe" | "livenessProbe" | "preStop" | "postStart" => {
            matches!(field, "exec" | "grpc" | "httpGet" | "sleep" | "tcpSocket")
        }
        "env" | "volumes" => field != "name",
        _ => false,
    }
}

/// Merges `template` over `rendered`, and reports what cannot be merged.
pub(super) fn merge(rendered: &mut Value, template: &Value) -> Vec<TemplateError> {
    let mut errors = Vec::new();
    merge_value(&Path::root(), rendered, template, &mut errors);
    errors
}

fn merge_value(path: &Path, rendered: &mut Value, template: &Value, errors: &mut Vec<TemplateError>) {
    match (rendered, template, keys(path.last_field())) {
        (Value::Object(rendered), Value::Object(template), _) => {
            merge_object(path, rendered, template, errors);
        }
        (Value::Array(rendered), Value::Array(template), Some(keys)) => {
            merge_list(path, &keys, rendered, template, errors);
        }
        (rendered, template, _) => *rendered = added(path, template, errors),
    }
}

fn merge_object(path: &Path, rendered: &mut Object, template: &Object, errors: &mut Vec<TemplateError>) {
    for field in template.iter().filter(|(_, value)| !value.is_null()).map(|(field, _)| field) {
        if alternatives(path, field) {
            rendered.retain(|other, _| other == field || !alternatives(path, other));
        }
    }
    for (field, value) in template {
        let path = path.field(field);
        match rendered.get_mut(field) {
            Some(_) if value.is_null() => drop(rendered.remove(field)),
            Some(rendered) => merge_value(&path, rendered, value, errors),
            // There is nothing rendered for a null to remove.
            None if value.is_null() => {}
            None => drop(rendered.insert(field.clone(), added(&path, value, errors))),
        }
    }
}

fn merge_list(
    path: &Path,
    keys: &Keys,
    rendered: &mut Vec<Value>,
    template: &[Value],
    errors: &mut Vec<TemplateError>,
) {
    errors.extend(unmergeable(path, keys, template));
    let ours: BTreeMap<_, _> = rendered.iter().enumerate().map(|(at, item)| (keys.of(item), at)).collect();
    for (index, item) in template.iter().enumerate() {
        let path = path.item(index);
        match ours.get(&keys.of(item)) {
            Some(&at) => merge_value(&path, &mut rendered[at], item, errors),
            None => rendered.push(added(&path, item, errors)),
        }
    }
}

/// Returns `value` for a place where nothing was rendered.
fn added(path: &Path, value: &Value, errors: &mut Vec<TemplateError>) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(field, value)| (field.clone(), added(&path.field(field), value, errors)))
            .collect(),
        Value::Array(items) => {
            if let Some(keys) = keys(path.last_field()) {
                errors.extend(unmergeable(path, &keys, items));
            }
            items.iter().enumerate().map(|(index, item)| added(&path.item(index), item, errors)).collect()
        }
        scalar => scalar.clone(),
    }
}

/// Reports the items of a keyed list that lack their key, or share it with an earlier one.
fn unmergeable(path: &Path, keys: &Keys, items: &[Value]) -> Vec<TemplateError> {
    let key = keys.required;
    let mut seen = BTreeSet::new();
    let mut errors = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let problem = if item[key].is_null() || item[key] == "" {
            format!("an item needs a {key} to be merged by; add it")
        } else if !seen.insert(keys.of(item)) {
            format!("another item above has the same {key}; keep one of them")
        } else {
            continue;
        };
        errors.push(TemplateError::new(&path.item(index), problem));
    }
    errors
}
