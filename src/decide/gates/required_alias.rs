//! Rule: another alias names the version, the former "Staging before Production".

use super::{Input, RuleFinding};
use crate::api::names::AliasName;

pub(super) fn check(alias: &AliasName, input: &Input) -> RuleFinding {
    let required = format!("alias {alias}");
    match input.named(alias.as_str()) {
        Err(cause) => RuleFinding::unknown(required, cause),
        Ok(None) => {
            let seen = format!("it names no version{}", input.similar(alias.as_str()));
            RuleFinding::new(required, seen, false)
        }
        Ok(Some(named)) => {
            RuleFinding::new(required, format!("it names version {named}"), named == input.candidate)
        }
    }
}
