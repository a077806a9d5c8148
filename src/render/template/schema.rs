//! Whether a template is a partial `PodTemplateSpec`: no unknown field, no value of a wrong type.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::{TemplateError, path::Path};

/// The Kubernetes release whose fields are known, as `k8s_openapi` is compiled.
const KNOWN: &str = "Kubernetes 1.33";

/// What in `template` is not of a pod template.
pub(super) fn errors(template: &Value) -> Vec<TemplateError> {
    let template = without_nulls(template);
    match read(template.clone()) {
        Ok(read) => {
            let mut errors = Vec::new();
            unknown(&Path::root(), &template, &read, &mut errors);
            errors
        }
        Err(error) => {
            vec![wrong_type(&Path::root(), &template, &|value| value).unwrap_or_else(|| {
                TemplateError::new(&Path::root(), format!("{error}; see kubectl explain pod.spec"))
            })]
        }
    }
}

/// `template` as Kubernetes reads it.
fn read(template: Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<PodTemplateSpec>(template)?)
}

/// A null takes away something rendered; it has no type that could be wrong.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(field, value)| (field.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        scalar => scalar.clone(),
    }
}

/// Every field that vanished when the template was read.
fn unknown(path: &Path, template: &Value, read: &Value, errors: &mut Vec<TemplateError>) {
    match (template, read) {
        (Value::Object(template), Value::Object(read)) => {
            for (field, value) in template {
                let path = path.field(field);
                match read.get(field) {
                    Some(read) => unknown(&path, value, read, errors),
                    None => errors.push(TemplateError::new(
                        &path,
                        format!("{KNOWN} has no such field here; correct its name or remove it"),
                    )),
                }
            }
        }
        (Value::Array(template), Value::Array(read)) => {
            for (index, (item, read)) in template.iter().zip(read).enumerate() {
                unknown(&path.item(index), item, read, errors);
            }
        }
        _ => {}
    }
}

/// The innermost place that cannot be read even when it stands alone; `whole` makes a template of such a place.
fn wrong_type(path: &Path, value: &Value, whole: &dyn Fn(Value) -> Value) -> Option<TemplateError> {
    let alone = |value: Value| {
        let error = read(whole(value)).err()?;
        Some(TemplateError::new(path, format!("{error}; see kubectl explain pod.spec")))
    };
    match value {
        Value::Object(fields) => alone(Value::Object(serde_json::Map::new())).or_else(|| {
            fields.iter().find_map(|(field, value)| {
                let whole = |value| whole([(field.clone(), value)].into_iter().collect());
                wrong_type(&path.field(field), value, &whole)
            })
        }),
        Value::Array(items) => alone(Value::Array(Vec::new())).or_else(|| {
            items.iter().enumerate().find_map(|(index, item)| {
                wrong_type(&path.item(index), item, &|value| whole(Value::Array(vec![value])))
            })
        }),
        scalar => alone(scalar.clone()),
    }
}
