//! Live rules: what the traffic of a version says about it, and what follows for the version.
//!
//! ```text
//! step of a canary ───────┐                          ┌ on: the step may end
//! all traffic, watchFor ──┴─► LiveWatch ─► LiveView ─┼ back: the version is rejected
//!                             what to count  findings└ otherwise traffic stays
//! ```
//!
//! What is watched follows from the status and the cluster, so it survives a crash; the counts do not, and
//! begin again. A version that has served before is never judged on its way back.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Decision, Lifecycle, Observed, ServingIntent, ShareIntent, StrategyIntent, canary};
use crate::{
    analysis::{
        ledger::{Arm, Outage},
        live::{
            Assignment, Check, Conclusion, Finding, LiveRules, Move, Phase, Progress, Verdict, WatchKey,
            conclude,
        },
    },
    api::{
        condition::{ConditionStatus, Reason, ReasonMessage},
        live::{LiveCheck, LiveRule},
        model_alias::{CanaryStatus, Outcome},
        names::Version,
        signed_duration,
    },
};

/// A version that is to be judged by its live traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveWatch {
    /// What the evidence is about.
    pub key: WatchKey,
    /// The version.
    pub version: Version,
    /// The version that gets requests beside it.
    pub against: Option<Version>,
    /// The step of the canary, from 1; `None` once it has all traffic.
    pub step: Option<u32>,
    /// The planned shares of both, that of the other version first. Empty where requests are not shared
    /// between them as planned: the version gets copies, or has all traffic.
    pub weights: Vec<f64>,
    /// What traffic it has, and for how long it is judged.
    pub phase: Phase,
    /// When that began.
    pub began_at: Timestamp,
    /// What it has to show.
    pub rule: LiveRule,
}

/// What has been counted of a version, and what it means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveView {
    /// What the evidence is about.
    pub key: WatchKey,
    /// The step of the canary that `covered` is about.
    pub step: Option<u32>,
    /// The requests of each version: of the one that is judged last.
    pub requests: Vec<u64>,
    /// For how long there were data in this step.
    pub covered: SignedDuration,
    /// What each check found.
    pub findings: Vec<Finding>,
    /// Whether samples have stopped.
    pub outage: Option<Outage>,
    /// Whether it became worse while many `ModelAliases` did.
    pub are_many_worse: bool,
    /// When this was found.
    pub at: Timestamp,
}

/// What the condition `LiveRulesPassed` reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LiveReport {
    /// Nothing new: the previous condition is kept.
    #[default]
    Unchanged,
    /// There are no live rules, so the condition is absent.
    NoRules,
    /// Nothing is judged now: what was proven stays, and everything else is gone.
    AtRest,
    /// A status with its reason.
    Reported(ConditionStatus, ReasonMessage),
}

impl LiveWatch {
    /// The versions that are compared: the one that is judged last.
    pub fn versions(&self) -> impl Iterator<Item = Version> {
        self.against.into_iter().chain([self.version])
    }

    /// What a version is called in the comparison.
    #[must_use]
    pub fn arm(version: Version) -> Arm {
        Arm(version.to_string())
    }

    /// The rules in the terms of the tests.
    #[must_use]
    pub fn rules(&self) -> LiveRules {
        rules(&self.rule)
    }

    /// How far the version has come.
    #[must_use]
    pub fn progress(&self, covered: SignedDuration, are_many_worse: bool) -> Progress {
        Progress { phase: self.phase, began_at: self.began_at, covered, are_many_worse }
    }

    /// Whether the view is about this watch, and this step of it.
    #[must_use]
    pub fn is_seen_by(&self, view: &LiveView) -> bool {
        view.key == self.key && view.step == self.step
    }

    /// Whether the version had data for as long as it is watched with all traffic.
    #[must_use]
    pub fn is_over(&self, covered: SignedDuration) -> bool {
        matches!(self.phase, Phase::Watch { lasts } if covered >= lasts)
    }
}

/// Returns the rules in the terms of the tests.
#[must_use]
fn rules(rule: &LiveRule) -> LiveRules {
    LiveRules {
        false_alarm: rule.false_alarm,
        min_requests: rule.min_requests.into(),
        min_failures: rule.min_failures.into(),
        on_regression: rule.on_regression,
        when_undecided: rule.when_undecided,
        assignment: Assignment::default(),
        ..LiveRules::new(rule.checks.iter().map(check).collect())
    }
}

fn check(check: &LiveCheck) -> Check {
    Check {
        tolerate: check.tolerate,
        margin: check.margin,
        max: check.max,
        on_regression: check.on_regression,
        ..Check::new(check.name.clone())
    }
}

impl Observed {
    fn live_rule(&self) -> Option<&LiveRule> {
        self.intent.rules.iter().find_map(|rule| rule.live.as_ref())
    }

    fn watch_key(&self, rule: &LiveRule, version: Version, against: Option<Version>) -> Option<WatchKey> {
        let workload = self.cluster.workloads.get(&version)?;
        let attempt = self.attempt(version);
        // Nothing that is counted depends on drift.
        let counted = LiveRule { drift: None, ..rule.clone() };
        let rejected_at = attempt.rejected_at.map(|at| at.to_string()).unwrap_or_default();
        Some(WatchKey {
            version: version.to_string(),
            against: against.map(|against| against.to_string()),
            model_uri: workload.model_uri.to_string(),
            fingerprint: format!(
                "{} {}",
                workload.settings,
                serde_json::to_string(&counted).unwrap_or_default()
            ),
            attempt: format!("{} {rejected_at}", attempt.retry.unwrap_or_default()),
        })
    }

    /// Returns what is to be counted in a step of a canary.
    fn watch_in_step(&self, serving: &ServingIntent, canary: &CanaryStatus) -> Option<LiveWatch> {
        let rule = self.live_rule()?;
        let version = canary.version;
        let against = self.serves().filter(|serves| *serves != version)?;
        let step = serving.steps.get(usize::try_from(canary.step).ok()?.checked_sub(1)?)?;
        let stopped = SignedDuration::from_secs(canary::stopped_seconds(canary, self.now));
        Some(LiveWatch {
            key: self.watch_key(rule, version, Some(against))?,
            version,
            against: Some(against),
            step: Some(canary.step),
            weights: match step.share {
                ShareIntent::Weight(weight) => [100 - weight.min(100), weight].map(f64::from).to_vec(),
                ShareIntent::Mirror(_) => Vec::new(),
            },
            phase: Phase::Step { at_least: step.at_least, at_most: step.at_most },
            began_at: canary.since.checked_add(stopped).unwrap_or(Timestamp::MAX),
            rule: rule.clone(),
        })
    }

    /// Returns what is to be counted of a version that was promoted and has all traffic, as long as there is
    /// a way back.
    fn watch_after(&self, serving: &ServingIntent) -> Option<LiveWatch> {
        let rule = self.live_rule()?;
        let lasts = serving.watch_for.filter(SignedDuration::is_positive)?;
        let version = self.answers_alone()?;
        let began_at = self.began_to_serve(version)?;
        let previous = self.previous().filter(|previous| *previous != version)?;
        let is_warm = self.cluster.workloads.get(&previous).is_some_and(|workload| workload.desired > 0);
        let is_due = self.now < began_at.checked_add(serving.warm_for).unwrap_or(Timestamp::MAX);
        Some(LiveWatch {
            key: self.watch_key(rule, version, None)?,
            version,
            against: None,
            step: None,
            weights: Vec::new(),
            phase: Phase::Watch { lasts },
            began_at,
            rule: rule.clone(),
        })
        .filter(|_| is_warm && is_due && self.rejection(version, None).is_none())
        .filter(|_| serving.strategy == StrategyIntent::BlueGreen)
    }

    /// Returns when the version got all traffic as a new one, or again after its traffic had shown it to be
    /// worse. A rollback is not judged.
    fn began_to_serve(&self, version: Version) -> Option<Timestamp> {
        let regressed = self
            .status
            .rejected
            .iter()
            .find(|rejection| rejection.version == version && rejection.reason == Reason::Regressed);
        let mut history = self.status.history.iter();
        let entry = history.find(|entry| {
            let is_again = regressed.is_some_and(|rejection| rejection.at <= entry.at);
            entry.version == version
                && (entry.outcome == Outcome::Promoted || (entry.outcome == Outcome::RolledBack && is_again))
        });
        entry.map(|entry| entry.at)
    }

    /// Whether a version that has all traffic can be given up now.
    fn has_way_back(&self, serving: &ServingIntent, watch: &LiveWatch) -> bool {
        watch.step.is_some() || self.previous().is_some_and(|previous| self.can_take_over(previous, serving))
    }

    /// Returns what is to be counted now; `canary` is the step that a version is in.
    fn live_watch(&self, serving: &ServingIntent, canary: Option<&CanaryStatus>) -> Option<LiveWatch> {
        match canary {
            Some(canary) => self.watch_in_step(serving, canary),
            None => self.watch_after(serving),
        }
    }

    /// Returns what the counts mean; `None` while nothing has been counted.
    fn conclusion(&self, watch: &LiveWatch) -> Option<Conclusion> {
        let view = self.live.as_ref().filter(|view| watch.is_seen_by(view))?;
        let progress = watch.progress(view.covered, view.are_many_worse);
        Some(conclude(&view.findings, &watch.rules(), &progress, self.now))
    }

    /// Whether the live rules let a version go on from a step of its canary.
    pub(super) fn live_rules_let_pass(
        &self,
        serving: &ServingIntent,
        version: Version,
        index: usize,
    ) -> bool {
        if self.live_rule().is_none() {
            return true;
        }
        let is_it = |canary: &&CanaryStatus| {
            canary.version == version && usize::try_from(canary.step).is_ok_and(|step| step == index + 1)
        };
        let watch = self.status.canary.as_ref().filter(is_it).and_then(|it| self.watch_in_step(serving, it));
        let conclusion = watch.and_then(|watch| self.conclusion(&watch));
        conclusion.is_some_and(|conclusion| conclusion.next == Move::Advance)
    }

    /// Whether a step of a canary waits for live rules.
    pub(super) fn has_live_rules(&self) -> bool {
        self.live_rule().is_some()
    }
}

/// Returns the version that is given up for what its traffic shows, and why.
pub(super) fn given_up(observed: &Observed, serving: &ServingIntent) -> Option<(Version, ReasonMessage)> {
    let canary = observed.status.canary.as_ref();
    let canary = canary.filter(|canary| observed.status.target_version == Some(canary.version));
    let watch = observed.live_watch(serving, canary)?;
    let conclusion = observed.conclusion(&watch).filter(|conclusion| conclusion.next == Move::Back)?;
    let version = watch.version;
    if observed.rejection(version, None).is_some() || !observed.has_way_back(serving, &watch) {
        return None;
    }
    let message = match conclusion.verdict {
        Verdict::Worse => format!("version {version} is worse on live traffic: {}", conclusion.message),
        _ => format!(
            "the live rules have proven nothing about version {version} within atMost of its step \
             (whenUndecided: Reject): {}",
            conclusion.message
        ),
    };
    Some((version, ReasonMessage::new(reason(conclusion.reason), message)))
}

/// Adds what is to be counted, and the report about it.
pub(super) fn add(observed: &Observed, mut decision: Decision) -> Decision {
    if observed.intent.lifecycle != Lifecycle::Active {
        return decision;
    }
    if observed.live_rule().is_none() {
        // While something blocks work, the rules may not be known.
        let may_have_rules = observed.intent.blocker.is_some();
        decision.report.live = if may_have_rules { LiveReport::Unchanged } else { LiveReport::NoRules };
        return decision;
    }
    let Some(serving) = observed.intent.serving.as_ref().filter(|serving| is_judged(serving)) else {
        let message = "the live rules judge nothing here: set spec.rollout.strategy to Canary, or \
                       spec.rollout.watchFor";
        let cause = ReasonMessage::new(Reason::NotJudged, message);
        decision.report.live = LiveReport::Reported(ConditionStatus::Unknown, cause);
        return decision;
    };
    let target = decision.target.and_then(|target| observed.rejection(target, None));
    let given_up = decision.rejection.as_ref().or(target).filter(|it| is_about_traffic(it.reason));
    let given_up = given_up.map(|it| (it.version, ReasonMessage::new(it.reason, it.message.clone())));
    let watch = observed.live_watch(serving, decision.canary.as_ref());
    let watch = watch.filter(|watch| given_up.as_ref().is_none_or(|(version, _)| *version != watch.version));
    decision.report.live = match (&given_up, &watch) {
        (Some((_, cause)), _) => LiveReport::Reported(ConditionStatus::False, cause.clone()),
        (None, Some(watch)) if serving.counts_requests => report(watch, observed.conclusion(watch).as_ref()),
        (None, Some(watch)) => not_counted(watch),
        (None, None) => LiveReport::AtRest,
    };
    if let Some(watch) = watch.filter(|_| serving.counts_requests) {
        decision.wake = decision.wake.into_iter().chain(look_again(observed, serving, &watch)).min();
        decision.live = Some(watch);
    }
    decision
}

/// Whether there is a time in which live rules can judge a version.
fn is_judged(serving: &ServingIntent) -> bool {
    serving.strategy == StrategyIntent::BlueGreen
        && (!serving.steps.is_empty() || serving.watch_for.is_some_and(|lasts| lasts.is_positive()))
}

fn not_counted(watch: &LiveWatch) -> LiveReport {
    let message = format!(
        "version {} is to be judged by its live traffic, but its pods do not count requests: set \
         spec.serving.metrics.port, where a server of the runtime custom shows its metrics",
        watch.version
    );
    LiveReport::Reported(ConditionStatus::Unknown, ReasonMessage::new(Reason::MetricsMissing, message))
}

fn is_about_traffic(reason: Reason) -> bool {
    matches!(reason, Reason::Regressed | Reason::Undecided)
}

/// Returns the reason of a condition. Both lists have the same names.
pub(super) fn reason(found: crate::analysis::live::Reason) -> Reason {
    let name: &str = found.into();
    name.parse().unwrap_or(Reason::Unknown)
}

fn report(watch: &LiveWatch, conclusion: Option<&Conclusion>) -> LiveReport {
    let version = watch.version;
    let beside = watch.against.map_or_else(String::new, |against| format!(" beside version {against}"));
    let Some(conclusion) = conclusion else {
        let message =
            format!("version {version} is judged by its live traffic{beside}: nothing is counted yet");
        return LiveReport::Reported(ConditionStatus::Unknown, ReasonMessage::new(Reason::Watching, message));
    };
    let status = match conclusion.verdict {
        Verdict::NoWorse => ConditionStatus::True,
        Verdict::Worse => ConditionStatus::False,
        Verdict::Unknown
        | Verdict::Undecided
        | Verdict::Untrusted
        | Verdict::Suspect
        | Verdict::NotJudged => ConditionStatus::Unknown,
    };
    let message = format!("version {version}{beside}: {}{}", conclusion.message, next_step(conclusion));
    LiveReport::Reported(status, ReasonMessage::new(reason(conclusion.reason), message))
}

/// What a person can do about a verdict that does not change by itself: the end of a sentence.
fn next_step(conclusion: &Conclusion) -> &'static str {
    match reason(conclusion.reason) {
        Reason::MetricsUnreachable | Reason::MetricsMissing => {
            "; let Laurel's pod reach the port `metrics` of the pods of each version; pods of an earlier release of \
             Laurel, or without its meter, count nothing until they are replaced"
        }
        Reason::ManyRegressed => {
            "; other ModelAliases became worse at the same time, so this is not believed: find the common cause, then \
             request another version, or set the annotation laurel.dev/retry to a new value to judge it anew"
        }
        _ => "",
    }
}

/// Returns when time alone changes something: a step may take no longer, the way back ends, or there have
/// been no data for long.
fn look_again(observed: &Observed, serving: &ServingIntent, watch: &LiveWatch) -> Option<Timestamp> {
    let after = |begin: Timestamp, lasts: SignedDuration| begin.checked_add(lasts).ok();
    let ends = match watch.phase {
        Phase::Step { at_most, .. } => at_most.and_then(|at_most| after(watch.began_at, at_most)),
        Phase::Watch { .. } => after(watch.began_at, serving.warm_for),
    };
    let view = observed.live.as_ref().filter(|view| watch.is_seen_by(view));
    let unknown = view.and_then(|view| unknown_until(view, &watch.rule));
    [ends, unknown].into_iter().flatten().filter(|at| *at > observed.now).min()
}

/// Returns when there have been no data for so long that somebody should know.
#[must_use]
pub fn unknown_until(view: &LiveView, rule: &LiveRule) -> Option<Timestamp> {
    view.outage?.since.checked_add(signed_duration(rule.unknown_for)).ok()
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;
    use crate::analysis::live::Reason as Found;

    #[test]
    fn a_condition_has_every_reason_that_a_check_may_give() {
        for found in Found::iter() {
            let name: &str = found.into();
            assert!(name.parse::<Reason>().is_ok(), "{name}");
        }
    }
}
