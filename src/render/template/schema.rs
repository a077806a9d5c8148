//! Type checks of the known part of a template against `PodTemplateSpec`.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};

use super::{TemplateError, path::Path};

/// Reports values of `template` with a wrong type, and each null in an unknown field: it may be a typo.
pub(super) fn errors(template: &Value) -> Vec<TemplateError> {
    match read(without_nulls(template)) {
        Ok(_) => {
            let mut errors = Vec::new();
            unknown_nulls(&Path::root(), template, &|value| value, &mut errors);
            errors
        }
        Err(error) => {
            let template = without_nulls(template);
            vec![wrong_type(&Path::root(), &template, &|value| value).unwrap_or_else(|| {
                TemplateError::new(&Path::root(), format!("{error}; see kubectl explain pod.spec"))
            })]
        }
    }
}

/// Parses `template` as Kubernetes does.
fn read(template: Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<PodTemplateSpec>(template)?)
}

/// A null removes something rendered; it has no type that could be wrong.
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

/// Reports every null in an unknown field; `whole` embeds a value of this place in a template.
fn unknown_nulls(
    path: &Path,
    value: &Value,
    whole: &dyn Fn(Value) -> Value,
    errors: &mut Vec<TemplateError>,
) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let path = path.field(field);
                let whole = |value| whole([(field.clone(), value)].into_iter().collect());
                if value.is_null() && !is_known(&whole) {
                    let problem = "null removes what Laurel renders, but there is no such field; correct \
                         its name or remove it";
                    errors.push(TemplateError::new(&path, problem));
                }
                unknown_nulls(&path, value, &whole, errors);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                unknown_nulls(&path.item(index), item, &|value| whole(Value::Array(vec![value])), errors);
            }
        }
        _ => {}
    }
}

/// Whether a field is known: a string in it has the wrong type, or is kept by parsing.
fn is_known(whole: &dyn Fn(Value) -> Value) -> bool {
    const MARK: &str = "laurel-was-here";
    read(whole(Value::from(MARK))).map_or(true, |read| read.to_string().contains(MARK))
}

/// Returns the innermost value that cannot be parsed even on its own; `whole` embeds it in a template.
fn wrong_type(path: &Path, value: &Value, whole: &dyn Fn(Value) -> Value) -> Option<TemplateError> {
    let alone = |value: Value| {
        let error = read(whole(value)).err()?;
        Some(TemplateError::new(path, format!("{error}; see kubectl explain pod.spec")))
    };
    match value {
        Value::Object(fields) => alone(Value::Object(Map::new())).or_else(|| {
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
