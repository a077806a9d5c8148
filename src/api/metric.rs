//! A metric's value, as registries write it: a number, or none at all.

use std::{cmp::Ordering, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The value of a metric. Two of them are compared bit by bit, so that "not a number" equals itself and what
/// is remembered stands still.
#[derive(Clone, Copy, Debug)]
pub struct Metric(f64);

impl Metric {
    /// The value; what is not a number, too.
    #[must_use]
    pub fn new(value: f64) -> Self {
        Self(value)
    }

    /// The number; `None` for what is not a number.
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

/// A number for a person: as short as it can be without losing anything.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    // Beyond this, digits stand for nothing: MLflow writes infinity as 1.797e308.
    if size != 0.0 && !(1e-6..1e15).contains(&size) { format!("{value:e}") } else { value.to_string() }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // JSON has no word for what is not finite.
        if self.0.is_finite() {
            self.0.serialize(serializer)
        } else {
            self.0.to_string().serialize(serializer)
        }
    }
}

/// A number, or one of the words that stand for what JSON cannot write: `NaN`, `Infinity`, `-Infinity`.
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

/// Whether more of a metric is better, or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Goal {
    /// The larger, the better: AUC, accuracy, recall.
    Maximize,
    /// The smaller, the better: a loss, a latency, a business cost.
    Minimize,
}

impl Goal {
    /// How much better `value` is than `than`; negative when it is worse.
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
    fn a_metric_is_read_as_registries_write_it_and_survives_being_written_again() {
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
    fn a_goal_says_what_better_means() {
        assert!(Goal::Maximize.gain(2.0, 1.0) > 0.0);
        assert!(Goal::Minimize.gain(2.0, 1.0) < 0.0);
    }
}
