//! From the findings of all checks to one verdict, and what it means for traffic.
//!
//! | findings | verdict | move |
//! |---|---|---|
//! | one is `Worse` | `Worse` | back, or none with `Hold`; on with `Report` once the step lasted `atLeast` |
//! | the same, and many aliases are worse at once | `Suspect` | none |
//! | one is `Untrusted`, or else `Unknown` | the same | none, for as long as it takes |
//! | all are `NoWorse` | `NoWorse` | on, once the step lasted `atLeast` |
//! | anything else | `Undecided` | none until `atMost`, then as `whenUndecided` if there were data for `atLeast` |
//!
//! Once a version has all traffic, a check that cannot be judged does not matter beside one that can.

use jiff::{SignedDuration, Timestamp};

use super::{
    finding::{Finding, Reason, Verdict},
    rules::{LiveRules, OnRegression, WhenUndecided},
};
use crate::analysis::text::evidence;

/// What traffic the version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A share, in a step of a canary.
    Step {
        /// How long data must have been there before the next step.
        at_least: SignedDuration,
        /// How long the step may take; `None` for as long as it takes.
        at_most: Option<SignedDuration>,
    },
    /// All of it, after the last step.
    Watch {
        /// How long it is judged.
        lasts: SignedDuration,
    },
}

/// How far the version has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What traffic it has.
    pub phase: Phase,
    /// When the phase began.
    pub began_at: Timestamp,
    /// For how long there were data in it.
    pub covered: SignedDuration,
    /// Whether many aliases became worse at once.
    pub are_many_worse: bool,
}

/// What happens to the traffic of the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum Move {
    /// Nothing.
    Stay,
    /// The next step, or all traffic after the last one.
    Advance,
    /// It has proven itself: nothing more is judged.
    Finish,
    /// All of it goes back to the version that served before, and the version is rejected.
    Back,
}

/// The result of all checks together.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// What happens to traffic.
    pub next: Move,
    /// For people: the findings that decided, then the others.
    pub message: String,
    /// For a tag of the version: the reason with the numbers of what decided.
    pub tag: String,
}

/// Concludes from what the checks found.
#[must_use]
pub fn conclude(findings: &[Finding], rules: &LiveRules, progress: &Progress, now: Timestamp) -> Conclusion {
    let (verdict, reason, next) = outcome(findings, rules, progress, now);
    let deciding = |finding: &&Finding| finding.reason == reason || finding.verdict == verdict;
    let first = findings.iter().filter(deciding);
    let rest = findings.iter().filter(|finding| !deciding(finding));
    let messages: Vec<&str> = first.clone().chain(rest).map(|finding| finding.message.as_str()).collect();
    let numbers: Vec<String> = first.map(numbers).collect();
    let tag =
        if numbers.is_empty() { reason.to_string() } else { format!("{reason}: {}", numbers.join("; ")) };
    Conclusion { verdict, reason, next, message: messages.join(". "), tag }
}

fn outcome(
    findings: &[Finding],
    rules: &LiveRules,
    progress: &Progress,
    now: Timestamp,
) -> (Verdict, Reason, Move) {
    let is_worse_with = |action: OnRegression| {
        findings.iter().any(|it| it.verdict == Verdict::Worse && action_of(it, rules) == action)
    };
    let must_go = is_worse_with(OnRegression::RollBack);
    if must_go || is_worse_with(OnRegression::Hold) {
        if progress.are_many_worse {
            return (Verdict::Suspect, Reason::ManyRegressed, Move::Stay);
        }
        return (Verdict::Worse, Reason::Regressed, if must_go { Move::Back } else { Move::Stay });
    }
    for verdict in [Verdict::Untrusted, Verdict::Unknown] {
        if let Some(found) = findings.iter().find(|finding| finding.verdict == verdict) {
            return (verdict, found.reason, Move::Stay);
        }
    }
    let is_open = |it: &&Finding| !matches!(it.verdict, Verdict::NoWorse | Verdict::Worse);
    let is_judged = |it: &&Finding| it.verdict != Verdict::NotJudged;
    let has_all_traffic = matches!(progress.phase, Phase::Watch { .. });
    let open = if has_all_traffic && findings.iter().any(|it| is_judged(&it)) {
        findings.iter().filter(is_judged).find(is_open)
    } else {
        findings.iter().find(is_open)
    };
    if let Some(open) = open {
        return undecided(open, rules, progress, now);
    }
    let is_worse = is_worse_with(OnRegression::Report);
    let verdict = if is_worse { Verdict::Worse } else { Verdict::NoWorse };
    let reason = if is_worse { Reason::Regressed } else { Reason::NoWorse };
    // Without any finding nothing is known, and nothing is proven.
    if findings.is_empty() {
        return (Verdict::Unknown, Reason::MetricsMissing, Move::Stay);
    }
    (verdict, reason, on_success(progress))
}

fn action_of(finding: &Finding, rules: &LiveRules) -> OnRegression {
    let check = rules.checks.iter().find(|check| check.name == finding.check);
    check.map_or(rules.on_regression, |check| rules.on_regression(check))
}

fn on_success(progress: &Progress) -> Move {
    match progress.phase {
        Phase::Step { at_least, .. } if progress.covered >= at_least => Move::Advance,
        Phase::Watch { lasts } if progress.covered >= lasts => Move::Finish,
        Phase::Step { .. } | Phase::Watch { .. } => Move::Stay,
    }
}

/// Nothing is proven: the time decides, but only where there are data.
fn undecided(
    open: &Finding,
    rules: &LiveRules,
    progress: &Progress,
    now: Timestamp,
) -> (Verdict, Reason, Move) {
    let waiting = (open.verdict, open.reason);
    match progress.phase {
        Phase::Watch { lasts } if progress.covered >= lasts => (waiting.0, waiting.1, Move::Finish),
        // Time in which nothing could be counted is no reason to go on, or to give up.
        Phase::Step { at_least, at_most: Some(at_most) }
            if now.duration_since(progress.began_at) >= at_most && progress.covered >= at_least =>
        {
            let next = match rules.when_undecided {
                WhenUndecided::Hold => Move::Stay,
                WhenUndecided::Promote => Move::Advance,
                WhenUndecided::Reject => Move::Back,
            };
            (Verdict::Undecided, Reason::Undecided, next)
        }
        Phase::Step { .. } | Phase::Watch { .. } => (waiting.0, waiting.1, Move::Stay),
    }
}

/// `failures 31 of 2544 against 40 of 48211, evidence 9.2 of 5.3`.
fn numbers(finding: &Finding) -> String {
    let of = |tally: crate::analysis::Tally| format!("{} of {}", tally.bad(), tally.total());
    let against = finding.counted.baseline;
    let against = if against.total() > 0 { format!(" against {}", of(against)) } else { String::new() };
    let (seen, needed) = match finding.verdict {
        Verdict::NoWorse => (finding.evidence_no_worse, finding.needed_no_worse),
        _ => (finding.evidence, finding.needed),
    };
    let evidence = format!("evidence {} of {}", evidence(seen), evidence(needed));
    format!("{} {}{against}, {evidence}", finding.check, of(finding.counted.candidate))
}
