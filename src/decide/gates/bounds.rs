//! A metric within bounds.

use super::{Finding, Input};
use crate::api::{metric::number, promotion::MetricRule};

pub(super) fn check(rule: &MetricRule, input: &Input) -> Finding {
    let bounds = match (rule.min, rule.max) {
        (Some(min), Some(max)) => format!("from {} to {}", number(min), number(max)),
        (Some(min), None) => format!("at least {}", number(min)),
        (None, max) => format!("at most {}", max.map_or_else(String::new, number)),
    };
    let wanted = format!("metric {} {bounds}", rule.name);
    let metric = match input.metric(input.candidate, &rule.name) {
        Err(note) => return Finding::unknown(wanted, note),
        Ok(None) => return Finding::new(wanted, "its run has no such metric", false),
        Ok(Some(metric)) => metric,
    };
    let Some(value) = metric.number() else {
        return Finding::new(wanted, "NaN, which is no number", false);
    };
    let holds = rule.min.is_none_or(|min| value >= min) && rule.max.is_none_or(|max| value <= max);
    Finding::new(wanted, metric.to_string(), holds)
}
