//! The promotion rules: whether a version may get its first traffic.
//!
//! ```text
//! Input ── bounds, improvement, tag, description, required_alias ── a finding each: wanted, seen, outcome
//!   │                                                             │
//!   what the rules may know of the candidate                      ▼
//!                                                     Verdict: passed, failed, not known yet
//! ```
//!
//! All rules are looked at, so that a person sees everything that is missing at once. A version that served
//! here before is not judged: a rollback is never held back. What cannot be read is not known, and then
//! nothing changes: the candidate is neither let in nor taken back.

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
pub use self::input::{Evidence, EvidenceFacts, Metrics};
use super::{Desired, Observed, RegistryView, Traffic};
use crate::api::{
    condition::{ConditionStatus, Reason, ReasonMessage, shortened},
    model_alias::{Drift, Outcome as HistoryOutcome, Rejection},
    names::Version,
    promotion::PromotionRule,
};

/// What one rule asks, and what was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleFinding {
    /// What it asks.
    pub required: String,
    /// What was seen.
    pub seen: String,
    /// Whether that is enough.
    pub outcome: RuleOutcome,
}

/// Whether a rule is met.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleOutcome {
    /// It is.
    Passed,
    /// It is not.
    Failed,
    /// That cannot be known now, and why.
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

/// What is told of the rules in the condition `GatesPassed`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GatesReport {
    /// Nothing new: what was told last still stands.
    #[default]
    Unchanged,
    /// There are no rules, so there is no such condition.
    NoRules,
    /// This.
    Told(ConditionStatus, ReasonMessage),
}

impl GatesReport {
    /// Whether a version is kept from its first traffic.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        matches!(self, Self::Told(ConditionStatus::False | ConditionStatus::Unknown, _))
    }

    /// Whether the version may have traffic, as far as the rules go.
    #[must_use]
    pub fn lets_in(&self) -> bool {
        matches!(self, Self::Told(ConditionStatus::True, _) | Self::NoRules)
    }
}

/// Whether a version may get its first traffic.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RuleVerdict {
    /// It may.
    LetIn,
    /// It may not. The note says which rules it does not meet, and what to do.
    Failed(ReasonMessage),
    /// That cannot be known now, and why.
    Unknown(ReasonMessage),
}

/// Judges a version that has not served yet, or one whose number means another model now (`is_another`).
pub(super) fn judge(observed: &Observed, version: Version, is_another: bool) -> (RuleVerdict, GatesReport) {
    let rules = &observed.intent.rules;
    if rules.is_empty() {
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
    (verdict, GatesReport::Told(status, ReasonMessage::new(reason, listed(version, &findings))))
}

/// Whether a version has had traffic, or the alias, in good order: the rules do not speak of it any more.
///
/// What is remembered of a version goes with its Deployment; after that the history speaks for it, unless the
/// version in the registry is newer than that.
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

/// What was told when the version was let in still stands.
fn served_before(observed: &Observed, version: Version) -> GatesReport {
    let type_: &str = crate::api::condition::ConditionType::GatesPassed.into();
    let known = observed.status.conditions.iter().find(|condition| condition.type_ == type_);
    let is_reported =
        known.is_some_and(|known| known.status == "True") && observed.status.target_version == Some(version);
    if is_reported {
        return GatesReport::Unchanged;
    }
    let message = format!("version {version} has served here, so the promotion rules do not hold it back");
    GatesReport::Told(ConditionStatus::True, ReasonMessage::new(Reason::ServedBefore, message))
}

/// What each rule says of a version, whether it has served or not.
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

/// The findings of one outcome; `None` where there are none.
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

/// Every rule with what it asks and what was seen: first those that it does not meet.
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
            // Writing to a text cannot fail.
            let _ = write!(text, " | {name}: {lines}");
        }
    }
    if let Some(cause) = first_unknown(findings) {
        let _ = write!(text, " | {}", cause.message);
    }
    text
}

/// So much of what is not met is told before the next step, which has to fit in, too.
const FAILED_MAX: usize = 700;

fn error_message(version: Version, failed: &str) -> ReasonMessage {
    let failed = shortened(failed, FAILED_MAX);
    let message = format!(
        "version {version} does not meet spec.promotion of its RegisteredModel: {failed}; let it meet the \
         rules, which goes on by \
         itself, or wish for another version"
    );
    ReasonMessage::new(Reason::GatesFailed, message)
}

fn unknown(version: Version, cause: &ReasonMessage) -> ReasonMessage {
    let message = format!(
        "whether version {version} meets spec.promotion of its RegisteredModel cannot be known now: {}",
        cause.message
    );
    ReasonMessage::new(cause.reason, message)
}

/// That a version which the alias in the registry asks for is refused, where the alias is put back: what it
/// asked for is then known from here alone.
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
