//! The contest of one challenger with the champion.

use jiff::{SignedDuration, Timestamp};

use super::{ChallengerArm, ContestKey, ExperimentObserved, rules::primary};
use crate::{
    analysis::{
        experiment::{Conclusion, ExperimentEvidence, Outcome, Why, conclude},
        sequential::Interval,
        significant,
    },
    api::{
        condition::ReasonMessage,
        model_experiment::{ArmStatus, ExperimentResult, IntervalPoint, Verdict, WithdrawnVersion},
    },
};

/// How many points the history of an interval has at most.
const POINTS: usize = 64;

/// Two points of it are at least so far apart.
const APART: SignedDuration = SignedDuration::from_secs(15);

impl ExperimentObserved {
    /// Both versions that are compared now, with their shares; or why none are.
    pub(super) fn contestants(
        &self,
        alias: &str,
        challenger: &Result<ChallengerArm, ReasonMessage>,
    ) -> Result<(ContestKey, [u32; 2]), ReasonMessage> {
        let champion = self.champion.clone()?;
        let challenger = challenger.clone()?;
        let key = ContestKey {
            champion: champion.version,
            alias: alias.to_owned(),
            challenger: challenger.version,
            models: [champion.model_uri, challenger.model_uri],
        };
        Ok((key, [champion.weight, challenger.weight]))
    }

    /// A challenger as it is known now.
    pub(super) fn arm(&self, alias: &str, challenger: &Result<ChallengerArm, ReasonMessage>) -> ArmStatus {
        let before = self.status.arms.iter().find(|arm| arm.alias == alias).cloned();
        let before = before.unwrap_or_else(|| ArmStatus { alias: alias.to_owned(), ..ArmStatus::default() });
        match self.contestants(alias, challenger) {
            _ if self.is_over() => before,
            // The time is over for what cannot be compared at this moment, too.
            _ if self.is_out_of_time() => self.judged(before),
            Err(_) => before,
            Ok((key, [_, weight])) => {
                let arm = ArmStatus { weight: Some(weight), ..before };
                if is_about(&arm, &key) { self.judged(arm) } else { anew(&arm, &key, self.now) }
            }
        }
    }

    /// What the counts say of it, unless it has a verdict already.
    fn judged(&self, arm: ArmStatus) -> ArmStatus {
        let mut views = self.counted.iter();
        let known = views
            .find(|view| is_about(&arm, &view.key))
            .map(|view| view.evidence.clone())
            .or_else(|| evidence(&arm));
        let (Some(counted), Some(since)) = (known, arm.since) else { return arm };
        if is_final(&arm) {
            return arm;
        }
        let rules = self.rules(&self.status, since);
        let found = conclude(&counted, &rules, self.now.duration_since(since));
        let is_news = !has_verdict(&arm, verdict(found.outcome));
        let point = found.difference.map(|difference| point(self.now, difference, found.samples));
        let history = with_point(arm.history, point, is_news, since);
        ArmStatus { result: Some(result(&found)), evidence: text(&counted), history, ..arm }
    }

    /// The challenger that won; without one, the one that is nearest to it. Without any interval, the first.
    pub(super) fn best<'a>(&self, arms: &'a [ArmStatus]) -> Option<&'a ArmStatus> {
        let goal = primary(&self.spec.metrics).goal;
        let wins = |arm: &ArmStatus| has_verdict(arm, Verdict::ChallengerWins);
        let gain =
            |arm: &ArmStatus| arm.history.last().map_or(f64::NEG_INFINITY, |last| goal.gain(last.estimate));
        let known = arms.iter().rev().filter(|arm| arm.result.is_some());
        known.max_by(|one, other| wins(one).cmp(&wins(other)).then(gain(one).total_cmp(&gain(other))))
    }
}

/// Whether a challenger has this verdict.
pub(super) fn has_verdict(arm: &ArmStatus, verdict: Verdict) -> bool {
    arm.result.as_ref().is_some_and(|result| result.verdict == verdict)
}

/// Whether a challenger has a verdict that stays.
pub(super) fn is_final(arm: &ArmStatus) -> bool {
    arm.result.is_some() && !has_verdict(arm, Verdict::Collecting)
}

/// Whether this is why a challenger has its verdict, or none.
pub(super) fn is_because_of(arm: &ArmStatus, why: Why) -> bool {
    let why: &str = why.into();
    arm.result.as_ref().is_some_and(|result| result.reason == why)
}

/// The time is over: nothing more will be known of it.
pub(super) fn end(arm: &mut ArmStatus) {
    if let Some(result) = arm.result.as_mut().filter(|result| result.verdict == Verdict::Collecting) {
        result.verdict = Verdict::Undecided;
    }
}

/// What was counted by the end of the last write of the status.
pub(super) fn evidence(arm: &ArmStatus) -> Option<ExperimentEvidence> {
    serde_json::from_str(arm.evidence.as_ref()?).ok()
}

/// The version of a challenger that a guardrail found worse.
pub(super) fn withdrawn(arm: &ArmStatus) -> Option<WithdrawnVersion> {
    let result = arm.result.as_ref().filter(|_| is_because_of(arm, Why::GuardrailFailed))?;
    let (alias, message) = (arm.alias.clone(), result.message.clone());
    Some(WithdrawnVersion { alias, version: arm.version?, message })
}

const fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Collecting => Verdict::Collecting,
        Outcome::ChallengerWins => Verdict::ChallengerWins,
        Outcome::ChampionWins => Verdict::ChampionWins,
        Outcome::NoDifference => Verdict::NoDifference,
    }
}

fn is_about(arm: &ArmStatus, key: &ContestKey) -> bool {
    let models = [&arm.against_model_uri, &arm.model_uri];
    let are_same = models.into_iter().eq(&key.models);
    arm.alias == key.alias
        && arm.version == Some(key.challenger)
        && arm.against == Some(key.champion)
        && are_same
}

fn anew(arm: &ArmStatus, key: &ContestKey, now: Timestamp) -> ArmStatus {
    let [against_model_uri, model_uri] = key.models.clone();
    ArmStatus {
        alias: arm.alias.clone(),
        version: Some(key.challenger),
        against: Some(key.champion),
        model_uri,
        against_model_uri,
        since: Some(now),
        weight: arm.weight,
        ..ArmStatus::default()
    }
}

fn text(counted: &ExperimentEvidence) -> Option<String> {
    serde_json::to_string(counted).ok()
}

fn result(found: &Conclusion) -> ExperimentResult {
    let number = |of: fn(&Interval) -> f64| found.difference.as_ref().map(|it| significant(of(it)));
    let interval =
        found.difference.map(|it| format!("{} to {}", significant(it.lower), significant(it.upper)));
    ExperimentResult {
        verdict: verdict(found.outcome),
        reason: found.why.to_string(),
        estimate: number(|it| it.estimate),
        interval,
        p_value: number(|it| it.p_value),
        samples: found.samples.iter().map(|samples| i64::try_from(*samples).unwrap_or(i64::MAX)).collect(),
        message: found.message.clone(),
    }
}

fn point(at: Timestamp, difference: Interval, samples: [u64; 2]) -> IntervalPoint {
    let [champion, challenger] = samples;
    IntervalPoint {
        at,
        estimate: difference.estimate,
        lower: difference.lower,
        upper: difference.upper,
        samples: i64::try_from(champion.saturating_add(challenger)).unwrap_or(i64::MAX),
    }
}

/// Adds a point to the history if the last one is old enough, or if there is news.
fn with_point(
    mut history: Vec<IntervalPoint>,
    point: Option<IntervalPoint>,
    is_news: bool,
    since: Timestamp,
) -> Vec<IntervalPoint> {
    let Some(point) = point else { return history };
    let apart = (point.at.duration_since(since) / 64).max(APART);
    let is_due = history
        .last()
        .is_none_or(|last| point.at.duration_since(last.at) >= apart && point.samples != last.samples);
    if is_due || is_news {
        history.push(point);
    }
    if history.len() > POINTS {
        // The newest one always stays.
        let parity = (history.len() - 1) % 2;
        let points = history.into_iter().enumerate().filter(|(index, _)| index % 2 == parity);
        return points.map(|(_, point)| point).collect();
    }
    history
}
