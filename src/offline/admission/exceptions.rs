//! Differences between CEL as evaluated here and in the API server, for the rules of our definitions.

use serde_json::Value;

/// The one rule that is not evaluated as CEL here: `kube-cel` parses URLs like browsers, but Kubernetes like
/// Go.
pub(super) const URL_RULE: &str =
    "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''";

/// Returns the message of the rule about URLs, if a schema has that rule.
pub(super) fn url_rule(schema: &Value) -> Option<&str> {
    let rules = schema["x-kubernetes-validations"].as_array()?;
    rules.iter().find(|rule| rule["rule"] == URL_RULE)?["message"].as_str()
}

/// Whether a rule parses the text as a duration.
pub(super) fn is_duration(schema: &Value) -> bool {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule["rule"].as_str()).any(|rule| rule.contains("duration(self)"))
}

/// Whether a duration that matches its pattern fits into Go's 64-bit nanoseconds.
pub(super) fn is_countable(text: &str) -> bool {
    const NANOSECONDS: f64 = 9_223_372_036_854_775_807.0;
    let mut sum = 0.0;
    let mut rest = text;
    while let Some(end) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let number: f64 = rest[..end].parse().unwrap_or_default();
        let unit_end = rest[end..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |it| end + it);
        sum += number
            * match &rest[end..unit_end] {
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                _ => 3600e9,
            };
        rest = &rest[unit_end..];
    }
    sum < NANOSECONDS
}

/// Removes fields that are null: rules treat them as absent.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let present = fields.iter().filter(|(_, value)| !value.is_null());
            present.map(|(field, value)| (field.clone(), without_nulls(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

pub(super) fn drop_url_rule(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(rules)) = fields.get_mut("x-kubernetes-validations") {
                rules.retain(|rule| rule["rule"] != URL_RULE);
            }
            fields.values_mut().for_each(drop_url_rule);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_url_rule),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_must_fit_into_gos_nanoseconds() {
        for (text, fits) in [
            ("5s", true),
            ("1h30m", true),
            ("2562047h", true),
            ("2562048h", false),
            ("9999999999999s", false),
            ("0.5ms", true),
        ] {
            assert_eq!(is_countable(text), fits, "{text}");
        }
    }
}
