//! The candidate under another alias first: the old "Staging before Production".

use super::{Finding, Input};
use crate::api::names::AliasName;

pub(super) fn check(alias: &AliasName, input: &Input) -> Finding {
    let wanted = format!("alias {alias}");
    match input.named(alias.as_str()) {
        Err(note) => Finding::unknown(wanted, note),
        Ok(None) => Finding::new(wanted, "it names no version", false),
        Ok(Some(named)) => {
            Finding::new(wanted, format!("it names version {named}"), named == input.candidate)
        }
    }
}
