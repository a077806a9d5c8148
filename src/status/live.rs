//! What the status says of a version that is judged by its live traffic.

use std::iter::zip;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        condition::{ConditionType, Reason},
        live::{WatchStatus, WatchedCheck, WatchedRequests},
    },
    decide::{Decision, LiveReport, LiveView, LiveWatch, Observed, unknown_until},
};

/// Returns the version that is judged, with what is known about it; `None` once it had data for long enough.
pub(super) fn watch(observed: &Observed, decision: &Decision) -> Option<WatchStatus> {
    let Some(watch) = &decision.live else { return None };
    let view = observed.live.as_ref().filter(|view| watch.is_seen_by(view));
    if view.is_some_and(|view| watch.is_over(view.covered)) {
        return None;
    }
    let LiveWatch { version, against, step, .. } = *watch;
    let begun = WatchStatus {
        version,
        against,
        step,
        covered_seconds: 0,
        requests: Vec::new(),
        checks: Vec::new(),
        unknown_since: None,
        unknown_for_long: false,
        judged_at: None,
    };
    let Some(view) = view else { return Some(begun) };
    Some(WatchStatus {
        covered_seconds: view.covered.as_secs(),
        requests: requests(watch, view),
        checks: checks(view),
        unknown_since: view.outage.map(|outage| outage.since),
        unknown_for_long: unknown_until(view, &watch.rule).is_some_and(|until| until <= observed.now),
        judged_at: Some(view.at),
        ..begun
    })
}

fn requests(watch: &LiveWatch, view: &LiveView) -> Vec<WatchedRequests> {
    let versions = watch.against.into_iter().chain([watch.version]);
    zip(versions, &view.requests)
        .map(|(version, requests)| WatchedRequests { version, requests: *requests })
        .collect()
}

fn checks(view: &LiveView) -> Vec<WatchedCheck> {
    let check = |finding: &crate::analysis::live::Finding| WatchedCheck {
        name: finding.check.clone(),
        verdict: finding.verdict.to_string(),
        message: finding.message.clone(),
    };
    view.findings.iter().map(check).collect()
}

/// Whether the condition is there. At rest, what was proven of the version that serves stays.
pub(super) fn keeps_condition(observed: &Observed, report: &LiveReport) -> bool {
    let type_: &str = ConditionType::LiveRulesPassed.into();
    let about = observed.serves().map(|version| [' ', ':'].map(|end| format!("version {version}{end}")));
    let is_about = |condition: &Condition| about.iter().flatten().any(|it| condition.message.starts_with(it));
    let is_proven = |condition: &Condition| {
        let regressed: &str = Reason::Regressed.into();
        condition.type_ == type_ && (condition.status == "True" || condition.reason == regressed)
    };
    match report {
        LiveReport::NoRules => false,
        LiveReport::AtRest => observed.status.conditions.iter().any(|it| is_proven(it) && is_about(it)),
        LiveReport::Unchanged | LiveReport::Reported(..) => true,
    }
}
