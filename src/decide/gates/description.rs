//! Rule: the version has a description in the registry.

use super::{Input, RuleFinding};

pub(super) fn check(input: &Input) -> RuleFinding {
    match input.evidence(input.candidate) {
        Err(cause) => RuleFinding::unknown("a description", cause),
        Ok(evidence) if evidence.has_description => RuleFinding::new("a description", "there", true),
        Ok(_) => RuleFinding::new("a description", "none", false),
    }
}
