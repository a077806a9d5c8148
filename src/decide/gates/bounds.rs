//! Rule: a metric within bounds.

use super::{Input, RuleFinding};
use crate::api::{metric::number, promotion::MetricRule};

pub(super) fn check(rule: &MetricRule, input: &Input) -> RuleFinding {
    let bounds = match (rule.min, rule.max) {
        (Some(min), Some(max)) => format!("from {} to {}", number(min), number(max)),
        (Some(min), None) => format!("at least {}", number(min)),
        (None, max) => format!("at most {}", max.map_or_else(String::new, number)),
    };
    let required = format!("metric {} {bounds}", rule.name);
    let metric = match input.metric(input.candidate, &rule.name) {
        Err(cause) => return RuleFinding::unknown(required, cause),
        Ok(None) => return RuleFinding::new(required, input.no_metric(), false),
        Ok(Some(metric)) => metric,
    };
    let Some(value) = metric.number() else {
        return RuleFinding::new(required, "NaN", false);
    };
    let holds = rule.min.is_none_or(|min| value >= min) && rule.max.is_none_or(|max| value <= max);
    let seen = format!("{metric}{}", input.origin(input.candidate, &rule.name));
    RuleFinding::new(required, seen, holds)
}
