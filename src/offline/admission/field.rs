//! One field of an object: its path, and its schema.

use serde_json::Value;

/// Returns the path of a field of the object at `path`.
pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// Returns the schema of a field: its own, or the one for all fields.
pub(super) fn field_schema<'a>(schema: &'a Value, field: &str) -> Option<&'a Value> {
    let own = schema.get("properties").and_then(|properties| properties.get(field));
    own.or_else(|| schema.get("additionalProperties").filter(|values| values.is_object()))
}
