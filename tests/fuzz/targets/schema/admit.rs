//! What the API server does with an object: it drops what the schema does not know, fills in defaults, and judges.

use std::collections::HashMap;

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use regex::Regex;
use serde_json::{Map, Value};

/// The admission of one kind, by the structural part of its schema and by its CEL rules.
pub struct Admission {
    schema: Value,
    compiled: CompiledSchema,
    validator: Validator,
    patterns: HashMap<String, Regex>,
}

impl Admission {
    /// For objects of this schema.
    pub fn new(schema: Value) -> Self {
        let mut patterns = HashMap::new();
        find_patterns(&schema, &mut patterns);
        Self { compiled: compile_schema(&schema), schema, validator: Validator::new(), patterns }
    }

    /// The object as it would be stored.
    ///
    /// # Errors
    /// Every reason why it would be refused.
    pub fn admit(&self, mut object: Value) -> Result<Value, Vec<String>> {
        prune_and_default(&self.schema, &mut object);
        let mut faults = Vec::new();
        self.judge("", &self.schema, &object, &mut faults);
        if faults.is_empty()
            && let Err(errors) = self.validator.validate_compiled(&self.compiled, &object, None)
        {
            faults.extend(errors.iter().map(ToString::to_string));
        }
        if faults.is_empty() { Ok(object) } else { Err(faults) }
    }

    fn judge(&self, path: &str, schema: &Value, value: &Value, faults: &mut Vec<String>) {
        let mut fault = |problem: &str| faults.push(format!("{path}: {problem}"));
        if value.is_null() {
            if schema["nullable"] != true {
                fault("null");
            }
            return;
        }
        if schema["x-kubernetes-int-or-string"] == true {
            if !value.is_string() && !is_integer(value) {
                fault("neither an integer nor a string");
            }
            return;
        }
        let fits = match schema["type"].as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("integer") => is_integer(value),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            _ => true,
        };
        if !fits {
            return fault("a value of another type");
        }
        if schema.get("enum").and_then(Value::as_array).is_some_and(|values| !values.contains(value)) {
            fault("none of the values there are");
        }
        match value {
            Value::String(text) => {
                if let Some(problem) = self.text_fault(schema, text) {
                    fault(&problem);
                }
            }
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                let range = if schema["format"] == "int32" {
                    (-2_147_483_648.0, 2_147_483_647.0)
                } else {
                    (f64::MIN, f64::MAX)
                };
                let least = schema["minimum"].as_f64().unwrap_or(range.0);
                let most = schema["maximum"].as_f64().unwrap_or(range.1);
                if !(least.max(range.0)..=most.min(range.1)).contains(&number) {
                    fault("out of range");
                }
            }
            Value::Array(items) => {
                if exceeds(schema, "maxItems", items.len()) {
                    fault("too many items");
                }
                for (index, item) in items.iter().enumerate() {
                    self.judge(&format!("{path}[{index}]"), &schema["items"], item, faults);
                }
            }
            Value::Object(fields) => {
                if exceeds(schema, "maxProperties", fields.len()) {
                    fault("too many fields");
                }
                for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if !fields.contains_key(field) {
                        fault(&format!("{field} is required"));
                    }
                }
                for (field, value) in fields {
                    if let Some(schema) = field_schema(schema, field) {
                        self.judge(&format!("{path}.{field}"), schema, value, faults);
                    }
                }
            }
            Value::Bool(_) | Value::Null => {}
        }
    }

    fn text_fault(&self, schema: &Value, text: &str) -> Option<String> {
        let length = text.chars().count();
        if exceeds(schema, "maxLength", length) {
            return Some("too long".to_owned());
        }
        if schema["minLength"].as_u64().is_some_and(|least| (length as u64) < least) {
            return Some("too short".to_owned());
        }
        if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
            return Some("no time".to_owned());
        }
        let pattern = schema["pattern"].as_str()?;
        (!self.patterns[pattern].is_match(text)).then(|| format!("does not match {pattern}"))
    }
}

/// JSON knows no integers: 1.0 is one.
fn is_integer(value: &Value) -> bool {
    value.is_i64()
        || value.is_u64()
        || value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() < 9e15)
}

fn exceeds(schema: &Value, limit: &str, count: usize) -> bool {
    schema[limit].as_u64().is_some_and(|most| count as u64 > most)
}

/// The schema of a field: its own, or that of all fields.
fn field_schema<'a>(schema: &'a Value, field: &str) -> Option<&'a Value> {
    let own = schema.get("properties").and_then(|properties| properties.get(field));
    own.or_else(|| schema.get("additionalProperties").filter(|values| values.is_object()))
}

fn keeps_unknown(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

/// Drops unknown fields and nulls that may not be there, and fills in defaults, in the API server's order.
fn prune_and_default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let metadata_of_the_root =
                |field: &String| ["apiVersion", "kind", "metadata"].contains(&field.as_str());
            fields.retain(|field, value| match field_schema(schema, field) {
                Some(schema) => !value.is_null() || schema["nullable"] == true,
                None => keeps_unknown(schema) || metadata_of_the_root(field),
            });
            fill_in(schema, fields);
            for (field, value) in fields {
                if let Some(schema) = field_schema(schema, field) {
                    prune_and_default(schema, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune_and_default(&schema["items"], item)),
        _ => {}
    }
}

fn fill_in(schema: &Value, fields: &mut Map<String, Value>) {
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = schema.get("default")
            && !fields.contains_key(field)
        {
            fields.insert(field.clone(), default.clone());
        }
    }
}

fn find_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        assert!(!pattern.contains(r"\s"), "Go and Rust do not mean the same by \\s");
        let regex = Regex::new(pattern).expect("the schema's own pattern");
        patterns.insert(pattern.to_owned(), regex);
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|value| find_patterns(value, patterns)),
        Value::Array(items) => items.iter().for_each(|value| find_patterns(value, patterns)),
        _ => {}
    }
}
