//! From the evidence about a challenger to an outcome.
//!
//! | seen | outcome |
//! |---|---|
//! | no data, a wrong split, too few samples, or before `atLeast` | `Collecting` |
//! | the whole interval lies within ± `margin` | `NoDifference`: none that matters |
//! | the interval excludes 0 | `ChallengerWins` or `ChampionWins` |
//! | none of it until `atMost` | `NoDifference`: none was found |
//!
//! A guardrail acts at once, also before `atLeast`.

use std::fmt::Write;

use jiff::SignedDuration;

use super::{
    evidence::{ExperimentEvidence, GuardrailEvidence, Sums},
    primary::difference,
    rules::{ExperimentRules, Goal, Kind},
};
use crate::analysis::{
    Pair,
    sequential::{Interval, threshold},
    text::{evidence as ln, significant},
};

/// α of the test of the split.
const SPLIT_ALPHA: f64 = 0.001;

/// The outcome for one challenger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumIter)]
pub enum Outcome {
    /// Nothing is known yet.
    Collecting,
    /// The challenger is better.
    ChallengerWins,
    /// The champion is better.
    ChampionWins,
    /// There is no difference that matters, or none was found in time.
    NoDifference,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumIter, strum::IntoStaticStr)]
pub enum Why {
    /// The interval excludes 0.
    Significant,
    /// The interval lies within the margin.
    WithinMargin,
    /// The time is over.
    DurationReached,
    /// The interval is still too wide.
    TooWide,
    /// The experiment must last longer.
    TooEarly,
    /// An arm has too few samples or events.
    TooFewSamples,
    /// All values are equal, or so large that their variance is lost in the sums.
    NoVariance,
    /// Requests are not shared as planned.
    SplitMismatch,
    /// The requests of a user stay together, and the rules declare no design effect.
    StickyAssignment,
    /// A guardrail found the challenger worse.
    GuardrailFailed,
}

/// What a guardrail found.
#[derive(Clone, Debug, PartialEq)]
pub struct Guardrail {
    /// The check.
    pub name: String,
    /// What was counted; the champion is the baseline.
    pub counted: Pair,
    /// The largest evidence so far that the challenger is worse.
    pub evidence: f64,
    /// The evidence at which it is.
    pub needed: f64,
    /// Whether it is.
    pub is_worse: bool,
}

/// What is known of one challenger.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    /// The outcome.
    pub outcome: Outcome,
    /// Why.
    pub why: Why,
    /// The challenger's value minus the champion's, with the interval and the p-value that hold at any time.
    /// `None` before there are enough samples.
    pub difference: Option<Interval>,
    /// The samples of the champion and of the challenger.
    pub samples: [u64; 2],
    /// The guardrails.
    pub guardrails: Vec<Guardrail>,
    /// For people.
    pub message: String,
}

/// Concludes, `running` after the comparison began.
#[must_use]
pub fn conclude(
    evidence: &ExperimentEvidence,
    rules: &ExperimentRules,
    running: SignedDuration,
) -> Conclusion {
    let [champion, challenger] = &evidence.arms;
    let is_split_wrong = evidence.split.peak() >= threshold(SPLIT_ALPHA);
    let arms = Arms { champion, challenger, rules, alpha: rules.alpha(), running, is_split_wrong };
    arms.conclusion(&evidence.guardrails)
}

impl Goal {
    /// A difference as an improvement.
    #[must_use]
    pub fn gain(self, difference: f64) -> f64 {
        match self {
            Self::Maximize => difference,
            Self::Minimize => -difference,
        }
    }
}

struct Arms<'a> {
    champion: &'a Sums,
    challenger: &'a Sums,
    rules: &'a ExperimentRules,
    alpha: f64,
    running: SignedDuration,
    is_split_wrong: bool,
}

impl Arms<'_> {
    fn conclusion(&self, guardrails: &[GuardrailEvidence]) -> Conclusion {
        let guardrails: Vec<Guardrail> = guardrails.iter().map(|it| self.guardrail(it)).collect();
        let is_worse = guardrails.iter().any(|guardrail| guardrail.is_worse);
        let difference = difference(self.champion, self.challenger, self.rules, self.alpha);
        let (outcome, why) = self.outcome(difference, is_worse);
        let message = self.message(difference, why, &guardrails);
        Conclusion { outcome, why, difference, samples: self.samples(), guardrails, message }
    }

    fn samples(&self) -> [u64; 2] {
        let kind = self.rules.primary.kind;
        [self.champion.samples(kind), self.challenger.samples(kind)]
    }

    fn guardrail(&self, evidence: &GuardrailEvidence) -> Guardrail {
        let needed = threshold(self.alpha);
        let is_judged = !self.is_split_wrong && self.rules.assignment.design_effect().is_some();
        let has_failures = evidence.counted.candidate.bad() >= self.rules.min_failures;
        Guardrail {
            name: evidence.name.clone(),
            counted: evidence.counted,
            evidence: evidence.above.peak(),
            needed,
            is_worse: is_judged && has_failures && evidence.above.peak() >= needed,
        }
    }

    fn outcome(&self, difference: Option<Interval>, is_worse: bool) -> (Outcome, Why) {
        if self.is_split_wrong {
            return (Outcome::Collecting, Why::SplitMismatch);
        }
        if self.rules.assignment.design_effect().is_none() {
            return (Outcome::Collecting, Why::StickyAssignment);
        }
        if is_worse {
            return (Outcome::ChampionWins, Why::GuardrailFailed);
        }
        if self.running < self.rules.at_least {
            return (Outcome::Collecting, Why::TooEarly);
        }
        let is_over = self.running >= self.rules.at_most;
        let at_end = if is_over { Outcome::NoDifference } else { Outcome::Collecting };
        if self.samples().into_iter().any(|samples| samples < self.rules.min_samples) {
            return (Outcome::Collecting, Why::TooFewSamples);
        }
        let Some(difference) = difference else { return (Outcome::Collecting, self.lack()) };
        if difference.is_within(self.rules.primary.margin) {
            return (Outcome::NoDifference, Why::WithinMargin);
        }
        if difference.excludes_zero() {
            let is_better = self.rules.primary.goal.gain(difference.estimate) > 0.0;
            let outcome = if is_better { Outcome::ChallengerWins } else { Outcome::ChampionWins };
            return (outcome, Why::Significant);
        }
        (at_end, if is_over { Why::DurationReached } else { Why::TooWide })
    }

    /// Why there is no interval.
    fn lack(&self) -> Why {
        let is_share = self.rules.primary.kind == Kind::Share;
        let are_few = self.samples().into_iter().any(|it| it < crate::analysis::sequential::MIN_UNITS);
        if is_share || are_few { Why::TooFewSamples } else { Why::NoVariance }
    }

    fn message(&self, difference: Option<Interval>, why: Why, guardrails: &[Guardrail]) -> String {
        let [champion, challenger] = self.samples();
        let mut text = format!("{}: {challenger} samples against {champion}", self.rules.primary.name);
        if let Some(it) = difference {
            let [estimate, lower, upper, p] = [it.estimate, it.lower, it.upper, it.p_value].map(significant);
            let _ = write!(text, ", difference {estimate} ({lower} to {upper}), p-value {p}");
        }
        let _ = write!(text, "; {}", self.explanation(why));
        for failed in guardrails.iter().filter(|guardrail| guardrail.is_worse) {
            let Guardrail { name, counted: Pair { baseline, candidate }, evidence, needed, .. } = failed;
            let _ = write!(
                text,
                "; {name}: {} of {} against {} of {}, evidence {} of {} that it is worse",
                candidate.bad(),
                candidate.total(),
                baseline.bad(),
                baseline.total(),
                ln(*evidence),
                ln(*needed)
            );
        }
        text
    }

    fn explanation(&self, why: Why) -> String {
        let margin = significant(self.rules.primary.margin);
        match why {
            Why::Significant => "the interval excludes 0".to_owned(),
            Why::WithinMargin => {
                format!("every value of the interval is nearer to 0 than the margin {margin}")
            }
            Why::DurationReached => "no difference was found in the time that the experiment has".to_owned(),
            Why::TooWide => {
                "the interval includes 0 and values beyond the margin; more samples are needed".to_owned()
            }
            Why::TooEarly => "nothing is concluded before the least duration is over".to_owned(),
            Why::TooFewSamples => format!(
                "each arm needs {} samples, and for a share {} with the outcome and {} without it",
                self.rules.min_samples.max(crate::analysis::sequential::MIN_UNITS),
                crate::analysis::sequential::MIN_EVENTS,
                crate::analysis::sequential::MIN_EVENTS
            ),
            Why::NoVariance => "the values have no variance that can be seen in their sums".to_owned(),
            Why::SplitMismatch => {
                "requests are not shared as planned, so the arms cannot be compared".to_owned()
            }
            Why::StickyAssignment => {
                "the requests of a user stay together, so this is not judged without a design effect"
                    .to_owned()
            }
            Why::GuardrailFailed => "a guardrail found the challenger worse".to_owned(),
        }
    }
}
