//! Names as checked types: every value is valid by construction.
//!
//! The registry's names are not Kubernetes names: a model may be called `Fraud (cards) ü`. Annotations and
//! environment variables hold such a name as it is, labels only as a readable [`label_value`].

use std::{borrow::Cow, fmt, fmt::Write, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a text is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {kind}: {rule}")]
pub struct InvalidName {
    /// What the text was meant to be, for instance `alias`.
    pub kind: &'static str,
    /// The text as given.
    pub value: String,
    /// What a valid one looks like.
    pub rule: &'static str,
}

/// Defines a string newtype that is checked wherever it enters: by `FromStr`, by serde and by the CRD's
/// schema.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:path, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, Self::Err> {
                Self::try_from(value.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, Self::Error> {
                if $check(&value) { Ok(Self(value)) } else { Err(InvalidName { kind: $kind, value, rule: $rule }) }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

checked_name! {
    /// A registered model's name in the registry.
    ///
    /// `MLflow` rejects `/`, `:` and blank names; its database column holds 256 characters. Blank means
    /// Unicode white space, of which `\s` in the API server's patterns covers only a part.
    ModelName, "model name", "1 to 256 characters, not blank, without '/' and ':'", is_model_name,
    { "type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^[^/:]*[^/:\t-\r\x85\p{Z}][^/:]*$" }
}

checked_name! {
    /// An alias of a registered model, for instance `champion`.
    ///
    /// `MLflow` reserves `latest` (in any case) and `v` followed by digits.
    AliasName, "alias", "1 to 255 letters, digits, '_' or '-', and neither 'latest' nor 'v' followed by \
         digits", is_alias,
    { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[A-Za-z0-9_-]+$" }
}

checked_name! {
    /// The identity of a logged model, `models:/m-<32 hex digits>`, or another URI that a model server can
    /// load.
    ///
    /// Unlike `models:/<name>/<version>`, the first form still refers to the same model after the registered
    /// model was deleted and created again.
    ModelUri, "model URI", "a URI with a scheme, without white space", is_uri,
    { "type": "string", "minLength": 1 }
}

impl ModelUri {
    /// Returns the ID of the logged model that this URI identifies: `m-` and 32 hexadecimal digits.
    #[must_use]
    pub fn logged_model(&self) -> Option<&str> {
        let id = self.as_str().strip_prefix("models:/")?;
        let digits = id.strip_prefix("m-")?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (digits.len() == 32 && digits.bytes().all(is_digit)).then_some(id)
    }
}

fn is_model_name(value: &str) -> bool {
    (1..=256).contains(&value.chars().count()) && !value.trim().is_empty() && !value.contains(['/', ':'])
}

fn is_alias(value: &str) -> bool {
    let reserved = value.eq_ignore_ascii_case("latest")
        || value
            .strip_prefix(['v', 'V'])
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    (1..=255).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && !reserved
}

fn is_uri(value: &str) -> bool {
    let scheme = value.split_once(':').map(|(scheme, _)| scheme);
    scheme
        .is_some_and(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)))
        && !value.contains(char::is_whitespace)
}

/// A model version's number, for instance `4`. Written as a string, as the registry writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(u32);

impl Version {
    /// The largest number. It bounds the length of names that contain one.
    pub const MAX: u32 = 999_999_999;

    /// Returns the version with this number; `None` for 0, which no registry assigns, and above
    /// [`Version::MAX`].
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }
}

impl FromStr for Version {
    type Err = InvalidName;
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let canonical = !value.starts_with(['0', '+']);
        value.parse().ok().filter(|_| canonical).and_then(Self::new).ok_or_else(|| InvalidName {
            kind: "model version",
            value: value.to_owned(),
            rule: "a whole number from 1 to 999999999, without leading zeros",
        })
    }
}

impl TryFrom<String> for Version {
    type Error = InvalidName;
    fn try_from(value: String) -> Result<Self, Self::Error> {
        value.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Version {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 9, "pattern": "^[1-9][0-9]*$" })
    }
}

/// The longest name a `ModelAlias` may have, so that every name composed from it fits a DNS label of 63
/// characters: `<name>-v<version>` with up to 9 digits.
pub const MODEL_ALIAS_NAME_MAX: usize = 52;
const _: () = assert!(MODEL_ALIAS_NAME_MAX + "-v999999999".len() <= 63);

/// Returns the name of the Deployment that runs `version` for the `ModelAlias` called `model_alias`.
#[must_use]
pub fn deployment_name(model_alias: &str, version: Version) -> String {
    format!("{model_alias}-v{version}")
}

/// Converts `text` to a valid label value: unchanged if it is valid already, otherwise a readable form with a
/// hash of the whole text, so that different texts never give the same value.
#[must_use]
pub fn label_value(text: &str) -> String {
    const MAX: usize = 63;
    const HASH: usize = 8;
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    let valid = text.len() <= MAX
        && text.chars().all(|c| is_edge(c) || "-_.".contains(c))
        && text.starts_with(is_edge)
        && text.ends_with(is_edge);
    // A name that looks like one with a hash gets a hash as well: it could be another name's label.
    let hashed = text.len() >= HASH && text.is_char_boundary(text.len() - HASH) && {
        let (rest, hash) = text.split_at(text.len() - HASH);
        (rest.is_empty() || rest.ends_with('-'))
            && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if valid && !hashed {
        return text.to_owned();
    }
    let readable: String = text
        .chars()
        .map(|c| if is_edge(c) || "-_.".contains(c) { c } else { '-' })
        .take(MAX - HASH - 1)
        .collect();
    let hash = hex(&Sha256::digest(text.as_bytes()), HASH);
    let readable = readable.trim_matches(|c| !is_edge(c));
    if readable.is_empty() { hash } else { format!("{readable}-{hash}") }
}

/// Returns the first `digits` hexadecimal digits of `bytes`.
#[must_use]
pub(crate) fn hex(bytes: &[u8], digits: usize) -> String {
    let mut text = bytes.iter().take(digits.div_ceil(2)).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    text.truncate(digits);
    text
}

/// The value of a tag, at most 5000 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(transparent)]
pub struct TagValue(#[schemars(length(max = 5000))] pub String);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn aliases_that_mlflow_reserves_are_rejected() {
        for reserved in ["latest", "LATEST", "v1", "V23", "", "a.b", "a b", "ünï"] {
            assert!(reserved.parse::<AliasName>().is_err(), "{reserved:?}");
        }
        for fine in ["champion", "1", "_", "-x", "v1x", "v"] {
            assert!(fine.parse::<AliasName>().is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn versions_are_canonical_numbers() {
        assert_eq!("4".parse::<Version>().unwrap().to_string(), "4");
        for wrong in ["0", "04", "+4", "-1", "four", "", "4 "] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn no_name_can_take_the_label_of_another() {
        for odd in ["fraud model", "\u{2014}", "-", &"a".repeat(64)] {
            let label = label_value(odd);
            assert_ne!(label_value(&label), label, "{odd:?}");
        }
        for plain in ["fraud-model", "abcdefgh", "fraud-1234567", "deadbeef.x", "fraud_deadbeef"] {
            assert_eq!(label_value(plain), plain);
        }
    }

    #[test]
    fn versions_sort_by_number() {
        assert!("9".parse::<Version>().unwrap() < "10".parse::<Version>().unwrap());
    }

    proptest! {
        /// Two versions, or two ModelAliases, never share a Deployment.
        #[test]
        fn deployment_names_are_valid_and_distinct(
            a in "[a-z]([-a-z0-9]{0,50}[a-z0-9])?", b in "[a-z]([-a-z0-9]{0,50}[a-z0-9])?", v in 1..=999_999_999u32, w in 1..=999_999_999u32,
        ) {
            let (v, w) = (Version::new(v).unwrap(), Version::new(w).unwrap());
            let name = deployment_name(&a, v);
            prop_assert!(name.len() <= 63 && name.starts_with(&a) && name.ends_with(|c: char| c.is_ascii_digit()));
            prop_assert!(a == b && v == w || name != deployment_name(&b, w));
        }

        #[test]
        fn label_values_are_valid_and_distinct(a in ".{0,300}", b in ".{0,300}") {
            for text in [&a, &b] {
                let value = label_value(text);
                prop_assert!(!value.is_empty() && value.len() <= 63, "{value:?}");
                prop_assert!(value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)));
                prop_assert!(value.starts_with(|c: char| c.is_ascii_alphanumeric()));
                prop_assert!(value.ends_with(|c: char| c.is_ascii_alphanumeric()));
            }
            prop_assert!(a == b || label_value(&a) != label_value(&b));
        }
    }
}
