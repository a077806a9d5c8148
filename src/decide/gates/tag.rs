//! Rule: a tag of the version in the registry, for instance an approval.

use super::{Input, RuleFinding};
use crate::api::condition::shortened;

/// Maximum length of a tag's value in messages.
const VALUE_MAX: usize = 80;

pub(super) fn check(key: &str, value: &str, input: &Input) -> RuleFinding {
    let quoted = |value: &str| format!("{:?}", shortened(value, VALUE_MAX));
    let required = format!("tag {key} = {}", quoted(value));
    match input.evidence(input.candidate) {
        Err(cause) => RuleFinding::unknown(required, cause),
        Ok(evidence) => match evidence.tags.get(key) {
            None => RuleFinding::new(required, "not set", false),
            Some(set) => RuleFinding::new(required, quoted(set), set == value),
        },
    }
}
