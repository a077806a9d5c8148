//! Drift: whether the inputs of a version are as in its training. A job compares them and writes what it
//! found to tags of the version; here they are believed, or not.
//!
//! Drift sends no version back: the one before sees the same inputs. At most it keeps a canary in its step.
//! A result that is absent, unreadable, too old or of too few rows is unknown, and holds nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Decision, Lifecycle, Observed};
use crate::api::{
    ModelAliasStatus,
    condition::{ConditionStatus, ConditionType, Reason, ReasonMessage, condition, shortened},
    live::{DriftRule, OnDrift},
    names::Version,
    signed_duration,
};

const SHARE: &str = "laurel.drift.share";
const ROWS: &str = "laurel.drift.rows";
const COLUMNS: &str = "laurel.drift.columns";
const AT: &str = "laurel.drift.at";

/// The tags of a version that say whether its inputs have drifted.
pub const DRIFT_TAGS: [&str; 4] = [SHARE, ROWS, COLUMNS, AT];

/// How far the clock of a job may be ahead.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What a message has of the columns.
const COLUMNS_MAX: usize = 300;

/// What the condition `InputsAsTrained` reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DriftReport {
    /// Nothing new: the previous condition is kept.
    #[default]
    Unchanged,
    /// There is no such rule, or no version, so the condition is absent.
    NoRule,
    /// A status with its reason.
    Reported(ConditionStatus, ReasonMessage),
}

/// What the tags of a version mean now.
#[derive(Debug, PartialEq)]
struct Judgement {
    status: ConditionStatus,
    reason: Reason,
    message: String,
    /// When time alone changes it.
    turns_at: Option<Timestamp>,
}

impl Judgement {
    fn unknown(message: impl Into<String>, turns_at: Option<Timestamp>) -> Self {
        let (status, reason) = (ConditionStatus::Unknown, Reason::DriftUnknown);
        Self { status, reason, message: message.into(), turns_at }
    }
}

/// Returns the versions whose tags a rule about drift may need: the one that serves, and the one that is to.
#[must_use]
pub fn drift_versions(status: &ModelAliasStatus) -> BTreeSet<Version> {
    [status.version.or(status.registry_version), status.target_version].into_iter().flatten().collect()
}

/// Returns what the tags of a version say.
fn judge(rule: &DriftRule, tags: &BTreeMap<String, String>, now: Timestamp) -> Judgement {
    let Some(at) = tags.get(AT) else {
        return Judgement::unknown(
            format!(
                "its inputs have not been compared with its training data: it has no tag {AT}; let the job that looks \
                 for drift run for this version, and see its log if it has"
            ),
            None,
        );
    };
    let Ok(compared_at) = at.parse::<Timestamp>() else {
        return unreadable(AT, at, "a time in RFC 3339", None);
    };
    let as_of = compared_at.strftime("%Y-%m-%dT%H:%M:%SZ");
    let max_age = signed_duration(rule.max_age);
    let ends = compared_at.checked_add(max_age).unwrap_or(Timestamp::MAX);
    let begins = compared_at.checked_sub(SKEW).unwrap_or(Timestamp::MIN);
    if now < begins {
        let message =
            format!("its result is of {as_of}, which is in the future: compare the clocks of the nodes");
        return Judgement::unknown(message, Some(begins));
    }
    if now >= ends {
        let message = format!(
            "its newest result is of {as_of}, and older than maxAge ({max_age:#}): see why the job that looks for drift \
             does not run, or fails"
        );
        return Judgement::unknown(message, None);
    }
    let turns_at = Some(ends);
    let rows = tags.get(ROWS).map(String::as_str).unwrap_or_default();
    let Ok(count) = rows.parse::<u64>() else { return unreadable(ROWS, rows, "a whole number", turns_at) };
    if count < u64::from(rule.min_rows) {
        let message = format!(
            "too few rows: {count} of at least {} (minRows), as of {as_of}; wait for more requests, or let the job look \
             further back",
            rule.min_rows
        );
        return Judgement::unknown(message, turns_at);
    }
    let text = tags.get(SHARE).map(String::as_str).unwrap_or_default();
    let Some(share) = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)) else {
        return unreadable(SHARE, text, "a number from 0 to 1", turns_at);
    };
    let columns = tags.get(COLUMNS).map_or_else(String::new, |columns| {
        format!(": {}", shortened(&plain(columns).replace(',', ", "), COLUMNS_MAX))
    });
    let seen = format!("in {count} rows, as of {as_of}, a share of {text} of the columns drifted{columns}");
    let most = rule.max_share;
    if share > most {
        let message = format!(
            "{seen}; at most {most} may (maxShare): find out what changed in these inputs, and train a version with it if \
             it is there to stay"
        );
        return Judgement {
            status: ConditionStatus::False,
            reason: Reason::InputsDrifted,
            message,
            turns_at,
        };
    }
    let message = format!("{seen}; up to {most} may (maxShare)");
    Judgement { status: ConditionStatus::True, reason: Reason::NoDrift, message, turns_at }
}

fn unreadable(tag: &str, value: &str, expected: &str, turns_at: Option<Timestamp>) -> Judgement {
    let value = shortened(&plain(value), 40);
    Judgement::unknown(
        format!("its tag {tag} is \"{value}\", and not {expected}: correct what writes it"),
        turns_at,
    )
}

/// Returns what a tag holds as text that is safe to show.
fn plain(value: &str) -> String {
    value.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

impl Observed {
    /// Returns the rule about drift of inputs, if there is one.
    #[must_use]
    pub fn drift_rule(&self) -> Option<&DriftRule> {
        self.intent.rules.iter().find_map(|rule| rule.live.as_ref())?.drift.as_ref()
    }

    /// Returns what is known of a version; `None` while its tags are not known.
    fn drift_of(&self, rule: &DriftRule, version: Version) -> Option<Judgement> {
        let tags = self.registry.drift.get(&version).filter(|_| self.registry.error.is_none())?;
        Some(judge(rule, tags, self.now))
    }

    /// Returns what was last reported, if it is about this version.
    fn drift_reported_of(&self, version: Version) -> Option<Reason> {
        let known = condition(&self.status.conditions, ConditionType::InputsAsTrained)?;
        known.message.starts_with(&about(version)).then(|| known.reason.parse().ok())?
    }

    /// Whether a version may go on from a step of its canary, as far as its inputs are concerned. While its
    /// tags cannot be read, what was last seen counts.
    pub(super) fn drift_lets_pass(&self, version: Version) -> bool {
        let Some(rule) = self.drift_rule().filter(|rule| rule.action == OnDrift::Hold) else { return true };
        let reason = match self.drift_of(rule, version) {
            Some(judgement) => Some(judgement.reason),
            None => self.drift_reported_of(version),
        };
        reason != Some(Reason::InputsDrifted)
    }
}

/// How each message begins.
fn about(version: Version) -> String {
    format!("version {version}: ")
}

/// Adds the report about the version that is in a canary, or serves.
pub(super) fn add(observed: &Observed, mut decision: Decision) -> Decision {
    if observed.intent.lifecycle != Lifecycle::Active {
        return decision;
    }
    let in_canary = decision.canary.as_ref().map(|canary| canary.version);
    let named = observed.registry.alias.filter(|_| observed.intent.serving.is_none());
    let version = in_canary.or_else(|| observed.serves()).or(named);
    let (Some(rule), Some(version)) = (observed.drift_rule(), version) else {
        // While something blocks work, or the registry is away, the rule or the version may not be known.
        let is_certain = observed.intent.blocker.is_none() && observed.registry.error.is_none();
        decision.report.drift = if is_certain { DriftReport::NoRule } else { DriftReport::Unchanged };
        return decision;
    };
    decision.report.drift = match observed.drift_of(rule, version) {
        Some(Judgement { status, reason, message, turns_at }) => {
            let turns_at = turns_at.filter(|at| *at > observed.now);
            decision.wake = decision.wake.into_iter().chain(turns_at).min();
            let holds =
                rule.action == OnDrift::Hold && in_canary.is_some() && reason == Reason::InputsDrifted;
            let holds = if holds { "; until then its canary stays in its step (action: Hold)" } else { "" };
            let message = format!("{}{message}{holds}", about(version));
            DriftReport::Reported(status, ReasonMessage::new(reason, message))
        }
        None if observed.drift_reported_of(version).is_some() => DriftReport::Unchanged,
        None => {
            let message = format!("{}its tags have not been read from the registry yet", about(version));
            DriftReport::Reported(ConditionStatus::Unknown, ReasonMessage::new(Reason::DriftUnknown, message))
        }
    };
    decision
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    const NOW: &str = "2026-11-28T12:00:00Z";

    fn judged(rule: &str, tags: &[(&str, &str)]) -> (Reason, String, Option<String>) {
        let tags =
            tags.iter().map(|(key, value)| (format!("laurel.drift.{key}"), (*value).to_owned())).collect();
        let Judgement { status, reason, message, turns_at } =
            judge(&serde_yaml::from_str(rule).unwrap(), &tags, NOW.parse().unwrap());
        let expected = match reason {
            Reason::NoDrift => ConditionStatus::True,
            Reason::InputsDrifted => ConditionStatus::False,
            _ => ConditionStatus::Unknown,
        };
        assert_eq!(status, expected);
        (reason, message, turns_at.map(|at| at.to_string()))
    }

    fn result<'a>(share: &'a str, rows: &'a str, at: &'a str) -> [(&'a str, &'a str); 4] {
        [("share", share), ("rows", rows), ("columns", "amount,country"), ("at", at)]
    }

    const MORNING: &str = "2026-11-28T02:17:00Z";

    #[test]
    fn a_share_up_to_the_limit_is_no_drift() {
        for share in ["0", "0.1818", "0.3"] {
            let (reason, message, turns_at) = judged("{}", &result(share, "5231", MORNING));
            assert_eq!(reason, Reason::NoDrift, "{message}");
            assert_eq!(turns_at.as_deref(), Some("2026-11-29T04:17:00Z"), "26 hours later");
        }
        let (_, message, _) = judged("{}", &result("0.1818", "5231", MORNING));
        assert_eq!(
            message,
            "in 5231 rows, as of 2026-11-28T02:17:00Z, a share of 0.1818 of the columns drifted: amount, country; up \
             to 0.3 may (maxShare)"
        );
    }

    #[test]
    fn a_larger_share_is_drift() {
        let (reason, message, turns_at) = judged("{maxShare: 0.1}", &result("0.1818", "1000", MORNING));
        assert_eq!((reason, turns_at.as_deref()), (Reason::InputsDrifted, Some("2026-11-29T04:17:00Z")));
        assert!(
            message.contains("a share of 0.1818 of the columns drifted: amount, country; at most 0.1 may"),
            "{message}"
        );
    }

    #[test]
    fn what_is_not_certain_is_unknown_and_says_why() {
        let cases: [(&[(&str, &str)], &str); 11] = [
            (&[], "it has no tag laurel.drift.at; let the job"),
            (&[("share", "0.9"), ("rows", "5000")], "it has no tag laurel.drift.at"),
            (&result("0.9", "5000", "yesterday"), "its tag laurel.drift.at is \"yesterday\", and not a time"),
            (&result("0.9", "5000", "2026-11-27T09:59:59Z"), "older than maxAge (26h): see why the job"),
            (&result("0.9", "5000", "2026-11-28T12:06:00Z"), "which is in the future"),
            (&result("0.9", "999", MORNING), "too few rows: 999 of at least 1000 (minRows), as of 2026"),
            (&[("rows", "0"), ("at", MORNING)], "too few rows: 0 of"),
            (
                &result("0.9", "many", MORNING),
                "its tag laurel.drift.rows is \"many\", and not a whole number",
            ),
            (
                &[("rows", "5000"), ("at", MORNING)],
                "its tag laurel.drift.share is \"\", and not a number from 0 to 1",
            ),
            (&result("NaN", "5000", MORNING), "its tag laurel.drift.share is \"NaN\""),
            (&result("18", "5000", MORNING), "its tag laurel.drift.share is \"18\""),
        ];
        for (tags, expected) in cases {
            let (reason, message, _) = judged("{}", tags);
            assert_eq!(reason, Reason::DriftUnknown, "{message}");
            assert!(message.contains(expected), "{expected:?} is missing: {message}");
        }
    }

    #[test]
    fn a_clock_that_is_a_little_ahead_is_believed() {
        assert_eq!(judged("{}", &result("0.9", "5000", "2026-11-28T12:04:00Z")).0, Reason::InputsDrifted);
    }

    #[test]
    fn what_a_tag_holds_stays_short_and_on_one_line() {
        let columns = format!("a\nb,{}", "long ".repeat(1000));
        let tags = [("share", "0.9"), ("rows", "5000"), ("columns", columns.as_str()), ("at", MORNING)];
        let (_, message, _) = judged("{}", &tags);
        assert!(message.len() < 700 && message.contains("drifted: a b, long "), "{message}");
        let (_, message, _) = judged("{}", &[("at", columns.as_str())]);
        assert!(message.len() < 200 && !message.contains('\n'), "{message}");
    }
}
