//! Rule: an improvement over the version that another alias names.

use super::{Input, RuleFinding};
use crate::api::{
    metric::{Goal, number},
    promotion::Improvement,
};

/// Tolerance for floating-point error: 0.93 counts as 0.01 better than 0.92.
const ROUNDING: f64 = 1e-9;

pub(super) fn check(rule: &Improvement, input: &Input) -> RuleFinding {
    let Improvement { metric, over, by, goal } = rule;
    let direction = match goal {
        Goal::Maximize => "above",
        Goal::Minimize => "below",
    };
    let required = if *by > 0.0 {
        format!("metric {metric} at least {} {direction} that of {over}", number(*by))
    } else {
        format!("metric {metric} no worse than that of {over}")
    };
    let holder = match input.named(over.as_str()) {
        Err(cause) => return RuleFinding::unknown(required, cause),
        Ok(None) => {
            let seen = format!("{over} names no version, so any is better{}", input.similar(over.as_str()));
            return RuleFinding::new(required, seen, true);
        }
        Ok(Some(holder)) if holder == input.candidate => {
            return RuleFinding::new(required, format!("it is {over} itself"), true);
        }
        Ok(Some(holder)) => holder,
    };
    let read = |version| input.metric(version, metric);
    let (candidate, standing) =
        match read(input.candidate).and_then(|candidate| Ok((candidate, read(holder)?))) {
            Err(cause) => return RuleFinding::unknown(required, cause),
            Ok(both) => both,
        };
    let Some(candidate) = candidate else {
        return RuleFinding::new(required, input.no_metric(), false);
    };
    let Some(value) = candidate.number() else {
        return RuleFinding::new(required, "NaN", false);
    };
    // The version to compare with has no value for the metric, so no comparison is possible.
    let Some(than) = standing.and_then(crate::api::metric::Metric::number) else {
        let seen =
            format!("{candidate}; version {holder}, which is {over}, has no such metric to compare it with");
        return RuleFinding::new(required, seen, false);
    };
    let scale = value.abs().max(than.abs()).max(by.abs());
    let holds = goal.gain(value, than) >= by - ROUNDING * scale;
    let seen = format!(
        "{candidate}{}, and {}{} of version {holder}",
        input.origin(input.candidate, metric),
        number(than),
        input.origin(holder, metric)
    );
    RuleFinding::new(required, seen, holds)
}
