//! The promotion rules: whether a version may get its first traffic.
//!
//! ```text
//! Input ── bounds, improvement, tag, description, required_alias ── a finding each: wanted, seen, outcome
//!   │                                                             │
//!   what the rules may know of the candidate                      ▼
//!                                                     Verdict: passed, failed, not known yet
//! ```
//!
//! All rules are evaluated, so that everything that is missing is reported at once. A version that served
//! here before is not judged: a rollback is never held back. What cannot be read is unknown, and then nothing
//! changes: the candidate is neither admitted nor withdrawn.

mod bounds;
mod description;
mod improvement;
mod input;
mod required_alias;
mod tag;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use self::input::Input;
pub use self::input::{Evidence, EvidenceFacts, Measured, Metrics};
use super::{Desired, Observed, RegistryView, Traffic};
use crate::api::{
    condition::{ConditionStatus, ConditionType, Reason, ReasonMessage, condition, shortened},
    model_alias::{Drift, Outcome as HistoryOutcome, Rejection},
    names::Version,
    promotion::PromotionRule,
};

/// The required and the actual value of one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleFinding {
    /// The required value.
    pub required: String,
    /// The actual value.
    pub seen: String,
    /// The outcome.
    pub outcome: RuleOutcome,
}

/// Whether a rule is met.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleOutcome {
    /// It is met.
    Passed,
    /// It is not met.
    Failed,
    /// Not known at present; the cause.
    Unknown(ReasonMessage),
}

impl RuleFinding {
    fn new(required: impl Into<String>, seen: impl Into<String>, holds: bool) -> Self {
        let outcome = if holds { RuleOutcome::Passed } else { RuleOutcome::Failed };
        Self { required: required.into(), seen: seen.into(), outcome }
    }

    fn unknown(required: impl Into<String>, cause: ReasonMessage) -> Self {
        let seen = "not known yet".to_owned();
        Self { required: required.into(), seen, outcome: RuleOutcome::Unknown(cause) }
    }
}

/// What the condition `GatesPassed` reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GatesReport {
    /// Nothing new: the previous condition is kept.
    #[default]
    Unchanged,
    /// There are no rules, so the condition is absent.
    NoRules,
    /// A status with its reason.
    Reported(ConditionStatus, ReasonMessage),
}

impl GatesReport {
    /// The result of all rules for a version.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        matches!(self, Self::Reported(ConditionStatus::False | ConditionStatus::Unknown, _))
    }

    /// Whether the rules allow the version to get traffic.
    #[must_use]
    pub fn lets_in(&self) -> bool {
        matches!(self, Self::Reported(ConditionStatus::True, _) | Self::NoRules)
    }
}

/// Whether a version may get its first traffic.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RuleVerdict {
    /// It may get traffic.
    LetIn,
    /// It may not. The message lists the rules that are not met and the next step.
    Failed(ReasonMessage),
    /// Not known at present; the cause.
    Unknown(ReasonMessage),
}

/// Judges a version that has not served yet, or one whose number means another model now (`is_another`).
pub(super) fn judge(observed: &Observed, version: Version, is_another: bool) -> (RuleVerdict, GatesReport) {
    let rules = &observed.intent.rules;
    if !rules.iter().any(PromotionRule::is_gate) {
        return (RuleVerdict::LetIn, GatesReport::NoRules);
    }
    if is_exempt(observed, version) && !is_another {
        return (RuleVerdict::LetIn, served_before(observed, version));
    }
    let findings = examine(rules, version, &observed.registry);
    let (status, reason, verdict) = if let Some(failed) = lines_of(&findings, |it| *it == RuleOutcome::Failed)
    {
        (ConditionStatus::False, Reason::GatesFailed, RuleVerdict::Failed(error_message(version, &failed)))
    } else if let Some(cause) = first_unknown(&findings) {
        (ConditionStatus::Unknown, cause.reason, RuleVerdict::Unknown(unknown(version, cause)))
    } else {
        (ConditionStatus::True, Reason::GatesPassed, RuleVerdict::LetIn)
    };
    (verdict, GatesReport::Reported(status, ReasonMessage::new(reason, listed(version, &findings))))
}

/// Whether a version has properly had traffic, or the alias, so that the rules no longer apply to it.
///
/// The status forgets a version together with its Deployment. After that the history counts, unless the
/// version was registered later than its entry.
#[must_use]
pub fn is_exempt(observed: &Observed, version: Version) -> bool {
    let is_let_in = observed.cluster.traffic == Traffic::Shared
        && (observed.is_ready(version) || observed.cluster.endpoints.contains(&version));
    observed.has_been_live(version)
        || observed.status.version == Some(version)
        || is_let_in
        || is_in_history(observed, version)
}

fn is_in_history(observed: &Observed, version: Version) -> bool {
    let Some(Evidence::Known(facts)) = observed.registry.evidence.get(&version) else { return false };
    observed.status.history.iter().any(|entry| {
        entry.version == version
            && matches!(entry.outcome, HistoryOutcome::Promoted | HistoryOutcome::RolledBack)
            && entry.at >= facts.registered_at
    })
}

/// The condition from when the version was admitted is kept.
fn served_before(observed: &Observed, version: Version) -> GatesReport {
    let known = condition(&observed.status.conditions, ConditionType::GatesPassed);
    let is_reported =
        known.is_some_and(|known| known.status == "True") && observed.status.target_version == Some(version);
    if is_reported {
        return GatesReport::Unchanged;
    }
    let message = format!("version {version} has served here, so the promotion rules do not hold it back");
    GatesReport::Reported(ConditionStatus::True, ReasonMessage::new(Reason::ServedBefore, message))
}

/// Returns the finding of each rule for a version, whether it has served or not.
#[must_use]
pub fn examine(rules: &[PromotionRule], version: Version, registry: &RegistryView) -> Vec<RuleFinding> {
    let input = &Input { candidate: version, registry };
    let mut findings = Vec::new();
    for rule in rules {
        findings.extend(rule.metrics.iter().map(|metric| bounds::check(metric, input)));
        findings.extend(rule.improves.iter().map(|improves| improvement::check(improves, input)));
        findings.extend(rule.tags.iter().map(|(key, value)| tag::check(key, &value.0, input)));
        findings.extend(rule.description.map(|_| description::check(input)));
        findings.extend(rule.required_alias.iter().map(|alias| required_alias::check(alias, input)));
    }
    findings
}

/// Lists the findings of one outcome; `None` if there are none.
fn lines_of(findings: &[RuleFinding], of: impl Fn(&RuleOutcome) -> bool) -> Option<String> {
    let chosen = findings.iter().filter(|finding| of(&finding.outcome));
    let lines: Vec<_> = chosen.map(|finding| format!("{}: {}", finding.required, finding.seen)).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn first_unknown(findings: &[RuleFinding]) -> Option<&ReasonMessage> {
    findings.iter().find_map(|finding| match &finding.outcome {
        RuleOutcome::Unknown(cause) => Some(cause),
        RuleOutcome::Passed | RuleOutcome::Failed => None,
    })
}

/// Lists every rule with its required and actual value, failed ones first.
fn listed(version: Version, findings: &[RuleFinding]) -> String {
    let mut text = format!("version {version}");
    let is_unknown = |outcome: &RuleOutcome| matches!(outcome, RuleOutcome::Unknown(_));
    let groups = [
        ("failed", lines_of(findings, |it| *it == RuleOutcome::Failed)),
        ("not known yet", lines_of(findings, is_unknown)),
        ("passed", lines_of(findings, |it| *it == RuleOutcome::Passed)),
    ];
    for (name, lines) in groups {
        if let Some(lines) = lines {
            // Writing to a String cannot fail.
            let _ = write!(text, " | {name}: {lines}");
        }
    }
    if let Some(cause) = first_unknown(findings) {
        let _ = write!(text, " | {}", cause.message);
    }
    text
}

/// Limits the list of failed rules, so that the next step fits into the message.
const FAILED_MAX: usize = 700;

fn error_message(version: Version, failed: &str) -> ReasonMessage {
    let failed = shortened(failed, FAILED_MAX);
    let message = format!(
        "version {version} does not meet spec.promotion of its RegisteredModel: {failed}; fix the version \
         (the rollout then continues by itself) or request another version"
    );
    ReasonMessage::new(Reason::GatesFailed, message)
}

fn unknown(version: Version, cause: &ReasonMessage) -> ReasonMessage {
    let message = format!(
        "it is not known whether version {version} meets spec.promotion of its RegisteredModel: {}",
        cause.message
    );
    ReasonMessage::new(cause.reason, message)
}

/// Rejects a version that the alias in the registry requested, if the alias is put back: the status is then
/// the only trace of the request.
pub(super) fn rejection(
    observed: &Observed,
    desired: Option<Version>,
    verdict: Option<&ReasonMessage>,
    settings: Option<&str>,
) -> Option<Rejection> {
    let intent = &observed.intent;
    let is_put_back = intent.desired == Desired::Registry && intent.drift == Drift::Correct;
    let (version, cause) = desired.filter(|_| is_put_back).zip(verdict)?;
    (cause.reason == Reason::GatesFailed).then(|| Rejection {
        version,
        reason: cause.reason,
        message: shortened(&cause.message, 1000),
        at: observed.now,
        settings: settings.unwrap_or_default().to_owned(),
        active: true,
    })
}
