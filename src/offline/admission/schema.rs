//! Validation by a structural schema in Kubernetes' dialect of `OpenAPI`, and by its CEL rules.

use std::collections::{BTreeSet, HashMap};

use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use regex::Regex;
use serde_json::{Map, Value};

use super::{
    Violation,
    exceptions::{drop_url_rule, is_countable, is_duration, url_rule, without_nulls},
    field::{field_schema, join},
    go_url,
    stored::prune_and_default,
};

/// Validates objects with one schema.
#[derive(Debug)]
pub struct Admission {
    schema: Value,
    compiled: CompiledSchema,
    validator: Validator,
    patterns: HashMap<String, Regex>,
}

impl Admission {
    /// Creates the validation for this schema.
    #[must_use]
    pub fn new(schema: Value) -> Self {
        let mut patterns = HashMap::new();
        find_patterns(&schema, &mut patterns);
        let mut rules = schema.clone();
        drop_url_rule(&mut rules);
        Self { compiled: compile_schema(&rules), schema, validator: Validator::new(), patterns }
    }

    /// Returns the object as it would be stored: without unknown fields, and with defaults.
    ///
    /// # Errors
    /// Every error for which it would be rejected.
    pub fn admit(&self, mut object: Value) -> Result<Value, Vec<String>> {
        prune_and_default("", &self.schema, &mut object, &mut Vec::new());
        let violations = self.violations(&object);
        if violations.is_empty() {
            Ok(object)
        } else {
            Err(violations.iter().map(ToString::to_string).collect())
        }
    }

    /// Returns every error for which a new object would be rejected, including unknown fields. The status is
    /// ignored, as by the API server.
    #[must_use]
    pub fn strictly(&self, mut object: Value) -> Vec<Violation> {
        let mut violations = Vec::new();
        prune_and_default("", &self.schema, &mut object, &mut violations);
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        violations.extend(self.violations(&object));
        violations
    }

    /// CEL rules are evaluated only if the structure is valid, because they rely on it.
    fn violations(&self, object: &Value) -> Vec<Violation> {
        let mut violations = Vec::new();
        self.check("", &self.schema, object, &mut violations);
        if violations.is_empty()
            && let Err(errors) =
                self.validator.validate_compiled(&self.compiled, &without_nulls(object), None)
        {
            let violation =
                |error: &kube::core::cel::ValidationError| Violation::new(&error.field_path, &error.message);
            violations.extend(errors.iter().map(violation));
        }
        violations
    }

    fn check(&self, path: &str, schema: &Value, value: &Value, violations: &mut Vec<Violation>) {
        let mut violation = |problem: String| violations.push(Violation::new(path, problem));
        if value.is_null() {
            // An enum must list null to allow it, and none of ours does.
            if schema["nullable"] != true || schema.get("enum").is_some() {
                violation("must not be null".to_owned());
            }
            return;
        }
        if schema["x-kubernetes-int-or-string"] == true {
            if !value.is_string() && !is_integer(value) {
                violation(format!("{value} is neither an integer nor a string"));
            }
            return;
        }
        if let Some(type_) = schema["type"].as_str().filter(|type_| !is_of(type_, value)) {
            let article = if type_.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
            return violation(format!("{} is not {article} {type_}", short(value)));
        }
        if let Some(values) = schema["enum"].as_array().filter(|values| !values.contains(value)) {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            violation(format!("{} is not one of {}", short(value), values.join(", ")));
        }
        match value {
            Value::String(text) => {
                if let Some(problem) = self.text_violation(schema, text) {
                    violation(problem);
                }
            }
            Value::Number(number) => {
                if let Some(problem) = range_violation(schema, number.as_f64().unwrap_or(f64::NAN)) {
                    violation(problem);
                }
            }
            Value::Array(items) => {
                violations.extend(
                    count_violation(schema, "Items", items.len())
                        .map(|problem| Violation::new(path, problem)),
                );
                violations.extend(key_violations(path, schema, items));
                for (index, item) in items.iter().enumerate() {
                    self.check(&format!("{path}[{index}]"), &schema["items"], item, violations);
                }
            }
            Value::Object(fields) => {
                violations.extend(
                    count_violation(schema, "Properties", fields.len())
                        .map(|problem| Violation::new(path, problem)),
                );
                for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if !fields.contains_key(field) {
                        violations.push(Violation::new(path, format!("{field} is required")));
                    }
                }
                for (field, value) in fields {
                    if let Some(schema) = field_schema(schema, field) {
                        self.check(&join(path, field), schema, value, violations);
                    }
                }
            }
            Value::Bool(_) | Value::Null => {}
        }
    }

    fn text_violation(&self, schema: &Value, text: &str) -> Option<String> {
        let length = text.chars().count();
        if let Some(problem) = count_violation(schema, "Length", length) {
            return Some(problem);
        }
        if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
            return Some(format!("{text:?} is not a valid time such as 2026-01-31T12:00:00Z"));
        }
        if schema["format"] == "uri" && go_url::parse(text).is_none() {
            return Some(format!("{text:?} is not a valid URL"));
        }
        if let Some(message) = url_rule(schema)
            && !go_url::parse(text).is_some_and(|url| url.is_http_with_a_host())
        {
            return Some(message.to_owned());
        }
        if is_duration(schema) && !is_countable(text) {
            return Some(format!("{text:?} is longer than the maximum duration in Kubernetes"));
        }
        let pattern = schema["pattern"].as_str()?;
        let is_match = self.patterns.get(pattern).is_none_or(|regex| regex.is_match(text));
        (!is_match).then(|| format!("{} does not match {pattern}", short(&Value::from(text))))
    }
}

/// Returns a value for a message, shortened if it is long.
fn short(value: &Value) -> String {
    crate::api::condition::shortened(&value.to_string(), 80)
}

fn is_of(type_: &str, value: &Value) -> bool {
    match type_ {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => is_integer(value),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => true,
    }
}

/// Whether a number is an integer. JSON has no integer type: 1.0 counts, as long as a float is exact.
fn is_integer(value: &Value) -> bool {
    const MAX: f64 = 9_007_199_254_740_991.0;
    value.is_i64()
        || value.as_f64().is_some_and(|number| value.is_f64() && number.fract() == 0.0 && number.abs() <= MAX)
}

fn range_violation(schema: &Value, number: f64) -> Option<String> {
    let number_text = crate::api::metric::number(number);
    let least = schema["minimum"].as_f64().filter(|least| number < *least);
    let most = schema["maximum"].as_f64().filter(|most| number > *most);
    let int32 = f64::from(i32::MIN)..=f64::from(i32::MAX);
    if let Some(least) = least {
        Some(format!("{number_text} is less than {}", crate::api::metric::number(least)))
    } else if let Some(most) = most {
        Some(format!("{number_text} is more than {}", crate::api::metric::number(most)))
    } else {
        let is_outside = schema["format"] == "int32" && !int32.contains(&number);
        is_outside.then(|| format!("{number_text} does not fit in 32 bits"))
    }
}

/// Checks a minimum and maximum count; `what` is `Length`, `Items` or `Properties`.
fn count_violation(schema: &Value, what: &str, count: usize) -> Option<String> {
    let limit = |bound: &str| schema.get(format!("{bound}{what}")).and_then(Value::as_u64);
    let things = match what {
        "Length" => "characters",
        "Items" => "items",
        _ => "entries",
    };
    let count = count as u64;
    if let Some(most) = limit("max").filter(|most| count > *most) {
        Some(format!("{count} {things} exceed the maximum of {most}"))
    } else {
        let least = limit("min").filter(|least| count < *least)?;
        Some(format!("{count} {things} are fewer than the minimum of {least}"))
    }
}

/// Finds duplicate items in a list by key, or in a set.
fn key_violations(path: &str, schema: &Value, items: &[Value]) -> Vec<Violation> {
    let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => schema["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
        Some("set") => Vec::new(),
        _ => return Vec::new(),
    };
    let identity = |item: &Value| {
        let of = |key: &&str| format!("{key} {}", short(&item[*key]));
        if keys.is_empty() { short(item) } else { keys.iter().map(of).collect::<Vec<_>>().join(", ") }
    };
    let whole = |item: &Value| {
        if keys.is_empty() {
            item.to_string()
        } else {
            keys.iter().map(|key| item[*key].to_string()).collect()
        }
    };
    let mut seen = BTreeSet::new();
    let duplicates = items.iter().enumerate().filter(|(_, item)| !seen.insert(whole(item)));
    duplicates
        .map(|(index, item)| {
            Violation::new(format!("{path}[{index}]"), format!("duplicate of {}", identity(item)))
        })
        .collect()
}

/// Returns the schemas inside a schema.
fn parts(schema: &Value) -> impl Iterator<Item = &Value> {
    let of_fields = schema["properties"].as_object().into_iter().flat_map(Map::values);
    let of_all = ["additionalProperties", "items"].into_iter().filter_map(|part| schema.get(part));
    of_fields.chain(of_all.filter(|part| part.is_object()))
}

fn find_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Ok(regex) = Regex::new(pattern)
    {
        patterns.insert(pattern.to_owned(), regex);
    }
    for part in parts(schema) {
        find_patterns(part, patterns);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::exceptions::URL_RULE, *};
    use crate::api::custom_resource_definitions;

    fn all_schemas<'a>(schema: &'a Value, found: &mut Vec<&'a Value>) {
        found.push(schema);
        parts(schema).for_each(|part| all_schemas(part, found));
    }

    #[test]
    fn all_keywords_of_our_definitions_are_supported() {
        const KNOWN: [&str; 27] = [
            "additionalProperties",
            "anyOf",
            "default",
            "description",
            "enum",
            "format",
            "items",
            "maxItems",
            "maxLength",
            "maxProperties",
            "maximum",
            "minItems",
            "minLength",
            "minProperties",
            "minimum",
            "nullable",
            "oneOf",
            "pattern",
            "properties",
            "required",
            "title",
            "type",
            "x-kubernetes-int-or-string",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-validations",
        ];
        let definitions = serde_json::to_value(custom_resource_definitions()).unwrap();
        let mut urls = 0;
        for definition in definitions.as_array().unwrap() {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut schemas = Vec::new();
            all_schemas(schema, &mut schemas);
            for schema in schemas {
                for word in schema.as_object().unwrap().keys() {
                    assert!(KNOWN.contains(&word.as_str()), "{word} in {schema}");
                    assert!(
                        word != "oneOf" && word != "anyOf",
                        "combined schemas are not supported: {schema}"
                    );
                }
                if let Some(pattern) = schema["pattern"].as_str() {
                    assert!(!pattern.contains(r"\s"), "\\s differs between Go and Rust: {pattern}");
                    Regex::new(pattern).unwrap();
                }
                let rules = schema["x-kubernetes-validations"].as_array();
                let rules = rules.into_iter().flatten().filter_map(|rule| rule["rule"].as_str());
                urls += rules
                    .filter(|rule| rule.contains("url(") || rule.contains("isURL("))
                    .inspect(|rule| assert_eq!(*rule, URL_RULE))
                    .count();
            }
            assert!(!compile_schema(schema).has_errors(), "a rule does not compile");
        }
        assert_eq!(urls, 4, "the URLs of the MLflow server and of the webhook endpoint, for both kinds");
    }
}
