//! From evidence to a finding for each check.

use std::fmt::Write;

use jiff::Timestamp;

use super::{
    evidence::{CheckEvidence, Watch},
    finding::{Finding, Reason, Verdict},
    rules::{Check, LiveRules},
};
use crate::analysis::{
    Pair, Tally,
    ledger::{Gap, Outage},
    numbers::float,
    sequential::{BoundTest, threshold},
    single_look::newcombe,
    text::{evidence, per_cent, significant},
};

/// α of the test of the split: an alarm is one in a thousand (A. Fabijan et al., KDD 2019).
const SPLIT_ALPHA: f64 = 0.001;
/// Where neither version fails at all, no ratio can be proven: being under this share is enough.
const FLAWLESS: f64 = 0.01;
/// So many rounds in a row without data are more than a single lost answer.
const LOST_ROUNDS: u32 = 2;

/// Whether data arrive now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// They do.
    Arriving,
    /// They do not; why.
    Absent(Gap),
}

impl Data {
    /// Decides by the rounds that could not be used, and by the age of the last batch.
    #[must_use]
    pub fn at(now: Timestamp, outage: Option<Outage>, watch: &Watch, rules: &LiveRules) -> Self {
        if let Some(outage) = outage.filter(|outage| outage.rounds >= LOST_ROUNDS) {
            return Self::Absent(outage.gap);
        }
        let is_old = |at: Timestamp| now.duration_since(at) > rules.unknown_after;
        if watch.last_batch_at().is_some_and(is_old) {
            Self::Absent(Gap::Unreachable)
        } else {
            Self::Arriving
        }
    }
}

/// Judges a version by each check, in the order of the rules.
#[must_use]
pub fn judge(watch: &Watch, rules: &LiveRules, data: Data) -> Vec<Finding> {
    let checks = rules.checks.iter().filter_map(|check| {
        let found = watch.checks().iter().find(|evidence| evidence.name == check.name)?;
        Some(Judge { watch, rules, data, check, found }.finding())
    });
    checks.collect()
}

struct Judge<'a> {
    watch: &'a Watch,
    rules: &'a LiveRules,
    data: Data,
    check: &'a Check,
    found: &'a CheckEvidence,
}

impl Judge<'_> {
    fn finding(&self) -> Finding {
        let (verdict, reason) = self.verdict();
        let mut finding = Finding {
            check: self.check.name.clone(),
            verdict,
            reason,
            counted: self.found.counted,
            evidence: self.evidence(),
            needed: self.needed(),
            evidence_no_worse: self.evidence_no_worse(),
            needed_no_worse: threshold(self.rules.false_alarm),
            message: String::new(),
        };
        finding.message = self.message(&finding);
        finding
    }

    fn verdict(&self) -> (Verdict, Reason) {
        if self.rules.assignment.design_effect().is_none() {
            return (Verdict::NotJudged, Reason::StickyAssignment);
        }
        let is_split_wrong = self.is_split_wrong();
        if self.is_over_bound() || (self.is_above() && !is_split_wrong) {
            return (Verdict::Worse, Reason::Regressed);
        }
        if is_split_wrong {
            return (Verdict::Untrusted, Reason::SplitMismatch);
        }
        if let Data::Absent(gap) = self.data {
            return (Verdict::Unknown, reason_of(gap));
        }
        if !self.watch.has_baseline() && self.check.max.is_none() {
            return (Verdict::NotJudged, Reason::NoBaseline);
        }
        if self.candidate().total() < self.rules.min_requests {
            return (Verdict::Undecided, Reason::NotEnoughTraffic);
        }
        if self.evidence_no_worse() >= threshold(self.rules.false_alarm) {
            return (Verdict::NoWorse, Reason::NoWorse);
        }
        let lacks_failures = self.evidence() >= self.needed() && !self.has_failures();
        (Verdict::Undecided, if lacks_failures { Reason::NotEnoughTraffic } else { Reason::Watching })
    }

    fn candidate(&self) -> Tally {
        self.found.counted.candidate
    }

    fn has_failures(&self) -> bool {
        self.candidate().bad() >= self.rules.min_failures
    }

    fn needed(&self) -> f64 {
        threshold(self.rules.false_alarm / float(self.rules.alarms() as u64))
    }

    fn is_split_wrong(&self) -> bool {
        self.watch.split().peak() >= threshold(SPLIT_ALPHA)
    }

    fn is_above(&self) -> bool {
        self.found.above.peak() >= self.needed() && self.has_failures()
    }

    fn is_over_bound(&self) -> bool {
        self.peak_over() >= self.needed()
            && self.found.streak >= self.rules.consecutive
            && self.has_failures()
    }

    fn peak_over(&self) -> f64 {
        self.found.over.as_ref().map_or(0.0, BoundTest::peak_over)
    }

    /// The evidence that it is worse: of the test that decided, or of the one that is possible.
    fn evidence(&self) -> f64 {
        let is_absolute = self.is_over_bound() || !self.watch.has_baseline();
        if is_absolute { self.peak_over() } else { self.found.above.peak() }
    }

    /// The evidence that it is no worse: below the margin or, if nothing hints at worse, below a share that
    /// does not matter.
    fn evidence_no_worse(&self) -> f64 {
        let Some(design_effect) = self.rules.assignment.design_effect() else { return 0.0 };
        let under = |bound: f64| BoundTest::of(self.candidate(), bound).ln_under(design_effect);
        if !self.watch.has_baseline() {
            return self.check.max.map_or(0.0, under);
        }
        let below = self.found.below.ln_evidence();
        if self.found.above.ln_evidence() > 0.0 {
            return below;
        }
        let Pair { baseline, candidate } = self.found.counted;
        let is_flawless = baseline.total() > 0 && baseline.bad() == 0 && candidate.bad() == 0;
        let negligible = self.check.negligible.min(self.check.max.unwrap_or(1.0));
        below.max(under(if is_flawless { negligible.max(FLAWLESS) } else { negligible }))
    }

    fn message(&self, finding: &Finding) -> String {
        let mut text =
            format!("{}: {}", self.check.name, counts(self.found.counted, self.watch.has_baseline()));
        if let Some(max) = self.check.max {
            let _ = write!(text, ", at most {} allowed", per_cent(max));
        }
        let Finding { evidence: worse, needed, evidence_no_worse, needed_no_worse, .. } = finding;
        let _ = write!(
            text,
            "; evidence {} of {} that it is worse, {} of {} that it is no worse",
            evidence(*worse),
            evidence(*needed),
            evidence(*evidence_no_worse),
            evidence(*needed_no_worse),
        );
        text.push_str(&self.remark(finding.reason));
        text
    }

    /// What a person needs to know beside the numbers.
    fn remark(&self, reason: Reason) -> String {
        match reason {
            Reason::NotEnoughTraffic => format!(
                "; a verdict takes {} requests, and {} failures if it is worse",
                self.rules.min_requests, self.rules.min_failures
            ),
            Reason::SplitMismatch => format!("; requests are not shared as planned: {}", self.shares()),
            Reason::StickyAssignment => {
                "; the requests of a user stay together, so this is not judged without a design effect"
                    .to_owned()
            }
            Reason::NoBaseline => "; no other version gets traffic, and there is no bound".to_owned(),
            Reason::MetricsUnreachable => "; no data: they could not be read".to_owned(),
            Reason::MetricsMissing => "; no data: series are missing or incomplete".to_owned(),
            Reason::MetricsAmbiguous => {
                "; no data: several values were found where one is expected".to_owned()
            }
            _ => String::new(),
        }
    }

    fn shares(&self) -> String {
        let shares = self.watch.split().shares();
        let texts = shares.iter().map(|(plan, seen)| format!("{} of {}", per_cent(*seen), per_cent(*plan)));
        texts.collect::<Vec<_>>().join(", ")
    }
}

/// Why nothing is known.
#[must_use]
pub const fn reason_of(gap: Gap) -> Reason {
    match gap {
        Gap::Unreachable | Gap::Late => Reason::MetricsUnreachable,
        Gap::Missing | Gap::Partial | Gap::NotACount | Gap::Inconsistent => Reason::MetricsMissing,
        Gap::Ambiguous => Reason::MetricsAmbiguous,
    }
}

/// The counts of both with the difference: `1.22 % of 2544 against 0.083 % of 48211, a difference of 1.14
/// points (…)`.
fn counts(counted: Pair, has_baseline: bool) -> String {
    let side = |tally: Tally| match tally.share() {
        Some(share) => format!("{} of {}", per_cent(share), tally.total()),
        None => "no requests".to_owned(),
    };
    let mut text = side(counted.candidate);
    if !has_baseline {
        return text;
    }
    let _ = write!(text, " against {}", side(counted.baseline));
    let shares = counted.candidate.share().zip(counted.baseline.share());
    if let (Some((candidate, baseline)), Some((lower, upper))) = (shares, newcombe(counted, 0.95)) {
        let points = |share: f64| significant(share * 100.0);
        let _ = write!(
            text,
            ", a difference of {} points ({} to {}, 95 % interval of a single look)",
            points(candidate - baseline),
            points(lower),
            points(upper)
        );
    }
    text
}
