//! A tag of the version in the registry, for instance an approval.

use super::{Finding, Input};
use crate::api::condition::shortened;

/// So much of a tag's value is told.
const VALUE_MAX: usize = 80;

pub(super) fn check(key: &str, value: &str, input: &Input) -> Finding {
    let quoted = |value: &str| format!("{:?}", shortened(value, VALUE_MAX));
    let wanted = format!("tag {key} = {}", quoted(value));
    match input.evidence(input.candidate) {
        Err(note) => Finding::unknown(wanted, note),
        Ok(evidence) => match evidence.tags.get(key) {
            None => Finding::new(wanted, "not set", false),
            Some(set) => Finding::new(wanted, quoted(set), set == value),
        },
    }
}
