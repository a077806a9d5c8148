//! Generates an object from a schema, driven by bytes.

use arbitrary::Unstructured;
use serde_json::{Map, Value, json};

/// Texts with a meaning somewhere: in Kubernetes, in MLflow, in a shell, in what Laurel renders.
const TEXTS: &[&str] = &[
    "a",
    "model",
    "http",
    "tmp",
    "/tmp",
    "fraud",
    "champion",
    "previous",
    "MODEL_URI",
    "MODEL_VERSION",
    "__pyfunc_model_path__",
    "HOME",
    "PATH",
    "Always",
    "Never",
    "TCP",
    "UDP",
    "laurel.dev/version",
    "laurel.dev/settings",
    "app",
    "main",
    "MLFLOW_TRACKING_URI",
    "1",
    "4",
    "500m",
    "2Gi",
    "registry.example/serving:1.0",
    "$(MODEL_URI)",
    "",
    " ",
    "\u{a0}",
    "\u{85}",
    "..",
    "../../secrets",
    "a/b",
    "a:b",
    "latest",
    "LATEST",
    "v1",
    "V23",
    "Fraud (cards) ü",
    "it's \"quoted\" \\",
    "a\0b",
    "line\nbreak",
    "\u{202e}olleh",
    "😀",
    "-",
    "--",
    "-a",
    "A",
    "%2e%2e%2f",
    "http://mlflow.mlops.svc:5000",
    "https://h:99999/x",
    "http://[::1%25eth0]/",
    "http://1.2.3.4.5",
    "http://xn--/",
    "http://user:secret@h",
    "ftp://h",
    "5s",
    "1h30m",
    "0s",
    "99999999999999h",
    "0.000000000001h",
    "-1s",
    "2026-11-22T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "models:/m-0123456789abcdef0123456789abcdef",
];

/// Maximum depth of an object where the schema sets none.
const DEPTH: u8 = 6;

/// Generates objects from schemas, driven by bytes. Once the bytes are used up, each choice is the simplest
/// one.
pub struct Generator<'a, 'b> {
    bytes: &'a mut Unstructured<'b>,
    /// In how many of 256 cases a value violates the schema; 0 for never.
    wrong: u8,
    /// In how many of 256 cases an optional field is set.
    given: u8,
}

impl<'a, 'b> Generator<'a, 'b> {
    /// The bytes also choose how hostile it is.
    pub fn new(bytes: &'a mut Unstructured<'b>) -> Self {
        let mut generator = Self { bytes, wrong: 0, given: 0 };
        generator.wrong = [0, 0, 3, 12][generator.below(4)];
        generator.given = [20, 60, 110, 180][generator.below(4)];
        generator
    }

    /// Returns a number from 0 to `limit` - 1.
    pub fn below(&mut self, limit: usize) -> usize {
        self.bytes.choose_index(limit).unwrap_or_default()
    }

    /// Returns true in `times` of 256 cases.
    pub fn chance(&mut self, times: u8) -> bool {
        let byte: u8 = self.bytes.arbitrary().unwrap_or_default();
        // Zero is returned once the bytes are used up, so it has to mean "no".
        byte > u8::MAX - times
    }

    /// Generates any text.
    pub fn text(&mut self) -> String {
        match self.below(16) {
            0..=11 => TEXTS[self.below(TEXTS.len())].to_owned(),
            12 => TEXTS[self.below(TEXTS.len())].repeat([2, 9, 64, 255, 300][self.below(5)]),
            13 => format!("{}{}", self.text(), TEXTS[self.below(TEXTS.len())]),
            _ => self.bytes.arbitrary::<&str>().unwrap_or_default().chars().take(300).collect(),
        }
    }

    /// Generates a value that mostly fits the schema.
    pub fn value(&mut self, schema: &Value) -> Value {
        self.at(schema, DEPTH)
    }

    fn at(&mut self, schema: &Value, depth: u8) -> Value {
        if self.chance(self.wrong) {
            return self.anything(depth.min(3));
        }
        if schema["nullable"] == true && self.chance(8) {
            return Value::Null;
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            return values[self.below(values.len())].clone();
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return if self.chance(128) { self.integer(schema) } else { self.text().into() };
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, depth),
            Some("array") => {
                let items = (0..self.below(4)).map(|_| self.at(&schema["items"], depth.saturating_sub(1)));
                items.collect()
            }
            Some("string") => self.string(schema).into(),
            Some("integer") => self.integer(schema),
            Some("number") => json!([0.0, 1.5, -1.0, 1e300][self.below(4)]),
            Some("boolean") => self.chance(128).into(),
            _ => self.anything(depth.min(3)),
        }
    }

    fn object(&mut self, schema: &Value, depth: u8) -> Value {
        let mut object = Map::new();
        let required = schema["required"].as_array();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.is_some_and(|required| required.iter().any(|field| field == name));
            let skipped = is_required && self.chance(self.wrong);
            if (is_required && !skipped) || self.chance(self.given) {
                object.insert(name.clone(), self.at(schema, depth));
            }
        }
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            for _ in 0..self.below(4) {
                object.insert(self.text(), self.at(values, depth.saturating_sub(1)));
            }
        }
        if self.chance(self.wrong) {
            object.insert(self.text(), self.anything(2));
        }
        object.into()
    }

    /// Generates a text that fits the schema's pattern, if it is one of ours.
    fn string(&mut self, schema: &Value) -> String {
        let pattern = schema["pattern"].as_str().unwrap_or_default();
        if pattern.is_empty() && schema["format"] == "uri" {
            return ["http://mlflow:5000", "https://mlflow.example/prefix"][self.below(2)].to_owned();
        }
        if pattern.is_empty() || self.chance(64) {
            return self.text();
        }
        if pattern.contains("ms|s|m|h") {
            let unit = ["s", "ms", "m", "h"][self.below(4)];
            return format!("{}{unit}", [30, 5, 0, 1, 90, 999_999_999_999_u64][self.below(6)]);
        }
        if pattern.starts_with("^[1-9]") {
            return (self.below(6) + 1).to_string();
        }
        let names = ["fraud", "champion", "mlflow", "fraud.model", "a", "Fraud_2", "fraud model", "-x"];
        names[self.below(names.len())].to_owned()
    }

    fn integer(&mut self, schema: &Value) -> Value {
        let least = schema["minimum"].as_i64().unwrap_or(0);
        let most = schema["maximum"].as_i64().unwrap_or_else(|| i64::from(i32::MAX));
        let plain = least.max(1);
        match self.below(8) {
            0..=3 => plain.into(),
            4 => most.into(),
            5 => (plain + 1 + i64::try_from(self.below(100)).unwrap_or_default()).min(most).into(),
            6 => least.into(),
            _ => json!([-1, 0, 1 + most, i64::MIN, i64::MAX][self.below(5)]),
        }
    }

    /// Generates any JSON.
    fn anything(&mut self, depth: u8) -> Value {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => self.chance(128).into(),
            2 => self.bytes.arbitrary::<i64>().unwrap_or_default().into(),
            3 => json!([0.5, -0.0, 1e19, 1e300, 2.0][self.below(5)]),
            4 => self.text().into(),
            5 => u64::MAX.into(),
            6 => (0..self.below(4)).map(|_| self.anything(depth - 1)).collect(),
            _ => (0..self.below(4)).map(|_| (self.text(), self.anything(depth - 1))).collect(),
        }
    }
}
