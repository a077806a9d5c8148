//! The object that the API server stores: without unknown fields, and with defaults.

use serde_json::{Map, Value};

use super::{
    Violation,
    field::{field_schema, join},
};

/// The top-level fields of every object, which are not in the schema.
const ROOT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes unknown fields and reports them, removes nulls that are not allowed, and sets defaults, in the API
/// server's order.
pub(super) fn prune_and_default(path: &str, schema: &Value, value: &mut Value, unknown: &mut Vec<Violation>) {
    match value {
        Value::Object(fields) => {
            let keeps_unknown = schema["x-kubernetes-preserve-unknown-fields"] == true;
            fields.retain(|field, value| match field_schema(schema, field) {
                Some(schema) => !value.is_null() || schema["nullable"] == true,
                None if keeps_unknown || (path.is_empty() && ROOT.contains(&field.as_str())) => true,
                None => {
                    unknown.push(Violation::new(join(path, field), "unknown field"));
                    false
                }
            });
            set_defaults(schema, fields);
            for (field, value) in fields {
                if let Some(schema) = field_schema(schema, field) {
                    prune_and_default(&join(path, field), schema, value, unknown);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune_and_default(&format!("{path}[{index}]"), &schema["items"], item, unknown);
            }
        }
        _ => {}
    }
}

fn set_defaults(schema: &Value, fields: &mut Map<String, Value>) {
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = schema.get("default")
            && !fields.contains_key(field)
        {
            fields.insert(field.clone(), default.clone());
        }
    }
}
