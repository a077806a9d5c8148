//! Metric values as registries write them, which includes values that are not numbers.

use std::{cmp::Ordering, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The value of a metric. Compared bit by bit, so that NaN equals itself and a status with NaN does not
/// change.
#[derive(Clone, Copy, Debug)]
pub struct Metric(f64);

impl Metric {
    /// The value, which may be NaN or infinite.
    #[must_use]
    pub fn new(value: f64) -> Self {
        Self(value)
    }

    /// The value, or `None` for NaN.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        (!self.0.is_nan()).then_some(self.0)
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Metric {}

impl PartialOrd for Metric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Metric {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        number(self.0).fmt(f)
    }
}

/// Formats a number for people: as short as possible without losing precision.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    // Digits beyond this carry no information: MLflow writes infinity as 1.797e308.
    if size != 0.0 && !(1e-6..1e15).contains(&size) { format!("{value:e}") } else { value.to_string() }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // JSON has no representation for values that are not finite.
        if self.0.is_finite() {
            self.0.serialize(serializer)
        } else {
            self.0.to_string().serialize(serializer)
        }
    }
}

/// A number, or a word for a value that JSON cannot represent: `NaN`, `Infinity`, `-Infinity`.
impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(value) => Ok(Self(value)),
            Written::Word(word) => word.parse().map(Self).map_err(D::Error::custom),
        }
    }
}

/// The direction in which a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Goal {
    /// Larger is better: AUC, accuracy, recall.
    Maximize,
    /// Smaller is better: a loss, a latency, a business cost.
    Minimize,
}

impl Goal {
    /// Returns by how much `value` is better than `than`; negative if it is worse.
    #[must_use]
    pub fn gain(self, value: f64, than: f64) -> f64 {
        match self {
            Self::Maximize => value - than,
            Self::Minimize => than - value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Metric {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn metrics_round_trip_in_the_registry_s_format() {
        let table = [
            ("0.97", "0.97"),
            ("3", "3"),
            ("\"NaN\"", "NaN"),
            ("1.7976931348623157e308", "1.7976931348623157e308"),
            ("\"-Infinity\"", "-inf"),
            ("\"0.5\"", "0.5"),
            ("0.00000012", "1.2e-7"),
            ("0", "0"),
        ];
        for (json, shown) in table {
            let metric = read(json);
            assert_eq!(metric.to_string(), shown, "{json}");
            assert_eq!(read(&serde_json::to_string(&metric).unwrap()), metric, "{json}");
        }
        assert!(serde_json::from_str::<Metric>("\"good\"").is_err());
        assert_eq!(read("\"NaN\"").number(), None);
    }

    #[test]
    fn a_goal_defines_which_value_is_better() {
        assert!(Goal::Maximize.gain(2.0, 1.0) > 0.0);
        assert!(Goal::Minimize.gain(2.0, 1.0) < 0.0);
    }
}
