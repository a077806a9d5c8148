//! A description of the version in the registry.

use super::{Finding, Input};

pub(super) fn check(input: &Input) -> Finding {
    match input.evidence(input.candidate) {
        Err(note) => Finding::unknown("a description", note),
        Ok(evidence) if evidence.has_description => Finding::new("a description", "there", true),
        Ok(_) => Finding::new("a description", "none", false),
    }
}
