//! What all of MLflow's answers have in common: numbers that may be texts, times, and content that cannot be used.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// Why valid JSON cannot be converted to facts.
#[derive(Debug)]
pub(super) enum InvalidPayload {
    /// The answer does not match the request.
    RawAnswer(String),
    /// The object exists, but Laurel cannot use it.
    Object(String),
}

pub(super) fn timestamp(millis: i64) -> Result<Timestamp, InvalidPayload> {
    Timestamp::from_millisecond(millis)
        .map_err(|_| InvalidPayload::RawAnswer(format!("{millis} is not a valid time")))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(i64),
}

pub(super) fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match TextOrNumber::deserialize(deserializer)? {
        TextOrNumber::Text(text) => text,
        TextOrNumber::Number(number) => number.to_string(),
    })
}

pub(super) fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match TextOrNumber::deserialize(deserializer)? {
        TextOrNumber::Number(number) => Ok(number),
        TextOrNumber::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

pub(super) fn optional_millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let value = Option::<TextOrNumber>::deserialize(deserializer)?;
    Ok(value.and_then(|value| match value {
        TextOrNumber::Number(number) => Some(number),
        TextOrNumber::Text(text) => text.parse().ok(),
    }))
}
