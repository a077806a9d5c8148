//! What is done about a ModelExperiment: what to count, what the counts say, and what follows from a verdict.
//!
//! ```text
//!                            ┌ arm ───── the contest of one challenger: begun, counted, concluded
//! ExperimentObserved ─ decide ┤
//!                            └ actions ─ tags and the alias, once a verdict is in the status
//! ```
//!
//! Each challenger has a contest of its own with the champion, over the minutes in which both served the
//! versions that are compared. Another version of either begins anew. What was counted is in the status, so a
//! restart loses a few minutes of it, which weakens a verdict and never changes it. A verdict is written to the
//! status before anything depends on it.

mod arm;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::{Readiness, registered_model::blocked};
use crate::{
    analysis::{
        experiment::{ExperimentEvidence, ExperimentRules, Goal, Kind, Metric, Why},
        ledger::{Gap, Outage},
        live::Assignment,
    },
    api::{
        ModelExperimentSpec, ModelExperimentStatus,
        condition::{ConditionStatus, Reason, ReasonMessage},
        model_experiment::{
            ArmStatus, ExperimentMetric, ExperimentPhase, ExperimentResult, MetricGoal, MetricRole,
            OnGuardrail, OnWinner, WithdrawnVersion,
        },
        names::{ModelUri, Version},
        std_duration,
    },
};
use jiff::{SignedDuration, Timestamp};

/// The prefix of the tag that a verdict becomes, before the name of the experiment.
pub const VERDICT_TAG: &str = "laurel.experiment.";

/// What is known of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentObserved {
    /// The time of the observation.
    pub now: Timestamp,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// What is to be compared.
    pub spec: ModelExperimentSpec,
    /// The newest status.
    pub status: ModelExperimentStatus,
    /// The champion, or why nothing can be compared with it now.
    pub champion: Result<ChampionArm, ReasonMessage>,
    /// The challengers in the order of the spec, or why one cannot be compared now.
    pub challengers: Vec<Result<ChallengerArm, ReasonMessage>>,
    /// Challengers that serve another registered model than the champion: their version numbers mean nothing to
    /// its alias.
    pub of_other_models: BTreeSet<String>,
    /// What was counted lately.
    pub counted: Vec<CountedView>,
}

/// The champion of an experiment, which serves one version alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChampionArm {
    /// The version.
    pub version: Version,
    /// The model that its pods load.
    pub model_uri: Option<ModelUri>,
    /// Its share of the requests in per cent.
    pub weight: u32,
    /// Whether it follows its alias in the registry.
    pub follows_registry: bool,
}

/// A challenger that answers a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengerArm {
    /// The version.
    pub version: Version,
    /// The model that its pods load.
    pub model_uri: Option<ModelUri>,
    /// Its share of the requests in per cent.
    pub weight: u32,
}

/// Which versions are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContestKey {
    /// The champion's version.
    pub champion: Version,
    /// The ModelAlias of the challenger.
    pub alias: String,
    /// Its version.
    pub challenger: Version,
    /// The models that the pods of the champion and of the challenger load.
    pub models: [Option<ModelUri>; 2],
}

/// A challenger to be compared with the champion.
#[derive(Clone, Debug, PartialEq)]
pub struct Contest {
    /// Which versions.
    pub key: ContestKey,
    /// Since when.
    pub since: Timestamp,
    /// The planned shares of the champion and the challenger.
    pub weights: [u32; 2],
    /// What was counted before, to go on from.
    pub evidence: Option<ExperimentEvidence>,
    /// How it is judged.
    pub rules: ExperimentRules,
}

/// What was counted of two versions.
#[derive(Clone, Debug, PartialEq)]
pub struct CountedView {
    /// Which versions.
    pub key: ContestKey,
    /// What was counted, with what was known before.
    pub evidence: ExperimentEvidence,
    /// Whether samples have stopped.
    pub outage: Option<Outage>,
}

/// Something to do in the registry.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum ExperimentAction {
    /// The verdict becomes a tag of the challenger's version.
    SetTag {
        /// The challenger.
        alias: String,
        /// Its version.
        version: Version,
        /// The model of that version: a number that means another one by now gets no tag.
        model_uri: Option<ModelUri>,
        /// The key of the tag.
        key: String,
        /// Its value.
        value: String,
    },
    /// The champion's alias is set to the version that won.
    SetAlias {
        /// The version that it names now.
        from: Version,
        /// The version that won.
        version: Version,
    },
}

/// What to do, and what to report.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentDecision {
    /// What to do in the registry.
    pub actions: Vec<ExperimentAction>,
    /// What to count from now on, and nothing else.
    pub contests: Vec<Contest>,
    /// The status, without its conditions and without what the actions change.
    pub status: ModelExperimentStatus,
    /// Whether it goes on as it should.
    pub readiness: Readiness,
    /// Whether requests are shared as planned, once that is known.
    pub split: Option<(ConditionStatus, ReasonMessage)>,
    /// Whether it is over.
    pub concluded: (ConditionStatus, ReasonMessage),
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// Decides what to do next. The same observation always gives the same decision.
#[must_use]
pub fn decide(observed: &ExperimentObserved) -> ExperimentDecision {
    let arms = observed.arms();
    let is_over = observed.is_over() || observed.is_out_of_time();
    let are_final = !arms.is_empty() && arms.iter().all(|arm| arm.result.as_ref().is_some_and(is_final));
    let is_concluded = is_over || are_final;
    let status = status(observed, arms, is_concluded);
    let actions = if observed.is_over() { observed.actions() } else { observed.tags() };
    let contests = if is_concluded { Vec::new() } else { observed.contests(&status) };
    ExperimentDecision {
        readiness: readiness(observed, &status, &actions),
        split: split(&status),
        concluded: concluded(observed, &status),
        wake: if is_concluded { None } else { observed.look_again(&status) },
        actions,
        contests,
        status,
    }
}

impl ExperimentObserved {
    /// Whether the status says that it is over.
    fn is_over(&self) -> bool {
        self.status.phase == Some(ExperimentPhase::Concluded)
    }

    /// Whether it has begun, and lasted as long as it may.
    fn is_out_of_time(&self) -> bool {
        let begun = self.status.started_at;
        let end = begun.and_then(|begun| begun.checked_add(lasts(self.spec.duration.at_most)).ok());
        end.is_some_and(|end| end <= self.now)
    }

    /// Both versions that are compared now, with their shares; or why none are.
    fn contestants(
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

    fn challenger_names(&self) -> impl Iterator<Item = &str> {
        self.spec.challengers.iter().map(|challenger| challenger.alias_ref.name.as_str())
    }

    /// The challengers as they are known now.
    fn arms(&self) -> Vec<ArmStatus> {
        let both = self.challenger_names().zip(&self.challengers);
        both.map(|(alias, challenger)| self.arm(alias, challenger)).collect()
    }

    /// What is to be counted: the contests that have no verdict yet.
    fn contests(&self, status: &ModelExperimentStatus) -> Vec<Contest> {
        let arms = status.arms.iter().zip(&self.challengers);
        let open = arms.filter(|(arm, _)| !arm.result.as_ref().is_some_and(is_final));
        let contest = |(arm, challenger): (&ArmStatus, _)| {
            let (key, weights) = self.contestants(&arm.alias, challenger).ok()?;
            let since = arm.since?;
            let rules = self.rules(status, since);
            Some(Contest { evidence: evidence(arm), key, since, weights, rules })
        };
        open.filter_map(contest).collect()
    }

    /// The rules in the terms of the tests, for a challenger that is compared since a time.
    fn rules(&self, status: &ModelExperimentStatus, since: Timestamp) -> ExperimentRules {
        let spec = &self.spec;
        let begun = status.started_at.unwrap_or(since);
        ExperimentRules {
            false_alarm: spec.false_alarm,
            challengers: spec.challengers.len(),
            min_samples: u64::from(spec.min_samples),
            at_least: lasts(spec.duration.at_least),
            // The end is that of the experiment, also for a challenger that began anew.
            at_most: lasts(spec.duration.at_most) - since.duration_since(begun),
            primary: primary(&spec.metrics),
            guardrails: guardrails(&spec.metrics),
            min_failures: u64::from(spec.min_failures),
            assignment: Assignment::default(),
        }
    }

    /// What follows from the verdicts in the status.
    fn tags(&self) -> Vec<ExperimentAction> {
        let tag = |arm: &ArmStatus| {
            let value = tag(arm).filter(|tag| arm.tagged.as_deref() != Some(*tag))?;
            Some(ExperimentAction::SetTag {
                alias: arm.alias.clone(),
                version: arm.version?,
                model_uri: arm.model_uri.clone(),
                key: format!("{VERDICT_TAG}{}", self.name),
                value: value.to_owned(),
            })
        };
        self.status.arms.iter().filter_map(tag).collect()
    }

    fn actions(&self) -> Vec<ExperimentAction> {
        let alias = match self.alias_plan() {
            AliasPlan::Set(action) => Some(action),
            AliasPlan::Nothing | AliasPlan::IsThere | AliasPlan::Wait(_) | AliasPlan::Skip(_) => None,
        };
        self.tags().into_iter().chain(alias).collect()
    }

    /// What to do about the champion's alias. It is decided once: later changes are those of people.
    fn alias_plan(&self) -> AliasPlan {
        let winner = self.status.arms.iter().find(|arm| Some(&arm.alias) == self.status.winner.as_ref());
        let is_decided = self.status.alias_set || self.status.alias_skipped.is_some();
        let is_asked = self.is_over() && !is_decided && self.spec.on_winner == OnWinner::SetAlias;
        let Some((winner, version)) =
            winner.and_then(|winner| Some((winner, winner.version?))).filter(|_| is_asked)
        else {
            return AliasPlan::Nothing;
        };
        let champion = match &self.champion {
            Ok(champion) => champion,
            Err(cause) => return AliasPlan::Wait(cause.clone()),
        };
        let name = &self.spec.champion_ref.name;
        if self.of_other_models.contains(&winner.alias) {
            return AliasPlan::Skip(format!(
                "{} serves another registered model than the ModelAlias {name}",
                winner.alias
            ));
        }
        // After a crash between the write and its mark in the status, it may have been followed already.
        if champion.version == version {
            return AliasPlan::IsThere;
        }
        if !champion.follows_registry {
            return AliasPlan::Skip(format!(
                "the ModelAlias {name} does not follow its alias in the registry (spec.follow.registry)"
            ));
        }
        if Some(champion.version) != winner.against {
            return AliasPlan::Skip(format!(
                "the ModelAlias {name} serves version {} by now, which was not compared",
                champion.version
            ));
        }
        AliasPlan::Set(ExperimentAction::SetAlias { from: champion.version, version })
    }

    /// The versions that get no requests any more: those of before, and those that a guardrail finds worse now.
    fn withdrawn(&self, arms: &[ArmStatus]) -> Vec<WithdrawnVersion> {
        if self.spec.on_guardrail == OnGuardrail::Report {
            return Vec::new();
        }
        let mut withdrawn = self.status.withdrawn.clone();
        for worse in arms.iter().filter_map(arm::withdrawn) {
            if !withdrawn.iter().any(|it| it.alias == worse.alias && it.version == worse.version) {
                withdrawn.push(worse);
            }
        }
        withdrawn.split_off(withdrawn.len().saturating_sub(WITHDRAWN_MAX))
    }

    /// When time alone changes something.
    fn look_again(&self, status: &ModelExperimentStatus) -> Option<Timestamp> {
        let after = |begin: Timestamp, lasts: SignedDuration| begin.checked_add(lasts).ok();
        let begun = status.arms.iter().filter_map(|arm| arm.since);
        let earliest = begun.filter_map(|since| after(since, lasts(self.spec.duration.at_least)));
        let end = status.started_at.and_then(|begun| after(begun, lasts(self.spec.duration.at_most)));
        let regularly = after(self.now, LOOK_AGAIN);
        earliest.chain(end).chain(regularly).filter(|at| *at > self.now).min()
    }
}

/// What to do about the champion's alias.
enum AliasPlan {
    /// It does not matter, or was decided before.
    Nothing,
    /// The champion serves the version that won.
    IsThere,
    /// It cannot be decided yet.
    Wait(ReasonMessage),
    /// It is not set, and will not be.
    Skip(String),
    /// It is to be set.
    Set(ExperimentAction),
}

/// Whether a challenger has a verdict.
fn is_final(result: &ExperimentResult) -> bool {
    result.verdict != COLLECTING
}

/// How many withdrawn versions are remembered: the newest ones.
const WITHDRAWN_MAX: usize = 32;

/// While it counts, an experiment is looked at so often, whatever happens.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// The verdict while nothing is known, and that at the end if nothing was ever known.
const COLLECTING: &str = "Collecting";
const UNDECIDED: &str = "Undecided";
const CHALLENGER_WINS: &str = "ChallengerWins";

/// The verdict as the value of a tag.
fn tag(arm: &ArmStatus) -> Option<&'static str> {
    use strum::IntoEnumIterator;
    let verdict = &arm.result.as_ref()?.verdict;
    crate::analysis::experiment::Outcome::iter().find(|it| it.to_string() == *verdict)?.tag()
}

/// What was counted by the end of the last write of the status.
fn evidence(arm: &ArmStatus) -> Option<ExperimentEvidence> {
    serde_json::from_str(arm.evidence.as_ref()?).ok()
}

fn lasts(duration: kube::core::Duration) -> SignedDuration {
    SignedDuration::try_from(std_duration(duration)).unwrap_or(SignedDuration::MAX)
}

fn primary(metrics: &[ExperimentMetric]) -> Metric {
    let metric = metrics.iter().find(|metric| metric.role == MetricRole::Primary);
    let is_mean = metric.is_some_and(|it| it.predictions.as_ref().is_some_and(|it| it.mean.is_some()));
    Metric {
        name: metric.map(|metric| metric.name.clone()).unwrap_or_default(),
        kind: if is_mean { Kind::Mean } else { Kind::Share },
        goal: match metric.and_then(|metric| metric.goal) {
            Some(MetricGoal::Maximize) => Goal::Maximize,
            Some(MetricGoal::Minimize) | None => Goal::Minimize,
        },
        margin: metric.and_then(|metric| metric.margin).unwrap_or_default(),
    }
}

fn guardrails(metrics: &[ExperimentMetric]) -> Vec<(String, f64)> {
    let guardrails = metrics.iter().filter(|metric| metric.role == MetricRole::Guardrail);
    guardrails.map(|metric| (metric.name.clone(), metric.tolerate.unwrap_or(1.0))).collect()
}

fn status(observed: &ExperimentObserved, arms: Vec<ArmStatus>, is_concluded: bool) -> ModelExperimentStatus {
    let before = &observed.status;
    let withdrawn = observed.withdrawn(&arms);
    if observed.is_over() {
        let mut status = ModelExperimentStatus {
            observed_generation: observed.generation,
            arms,
            withdrawn,
            ..before.clone()
        };
        match observed.alias_plan() {
            AliasPlan::IsThere => status.alias_set = true,
            AliasPlan::Skip(why) => status.alias_skipped = Some(why),
            AliasPlan::Nothing | AliasPlan::Wait(_) | AliasPlan::Set(_) => {}
        }
        return status;
    }
    let begun = arms.iter().filter_map(|arm| arm.since).min();
    let arms: Vec<ArmStatus> =
        if is_concluded { arms.into_iter().map(without_verdict_at_the_end).collect() } else { arms };
    let best = arm::best(&arms, primary(&observed.spec.metrics).goal);
    let wins = best.filter(|arm| arm.result.as_ref().is_some_and(|it| it.verdict == CHALLENGER_WINS));
    ModelExperimentStatus {
        observed_generation: observed.generation,
        phase: Some(match (is_concluded, begun) {
            (true, _) => ExperimentPhase::Concluded,
            (false, Some(_)) => ExperimentPhase::Collecting,
            (false, None) => ExperimentPhase::Pending,
        }),
        started_at: before.started_at.or(begun),
        concluded_at: is_concluded.then_some(observed.now),
        champion_version: observed.champion.as_ref().map_or(before.champion_version, |it| Some(it.version)),
        result: best.and_then(|arm| arm.result.clone()),
        winner: wins.filter(|_| is_concluded).map(|arm| arm.alias.clone()),
        alias_set: before.alias_set,
        alias_skipped: before.alias_skipped.clone(),
        withdrawn,
        conditions: before.conditions.clone(),
        arms,
    }
}

/// Nothing more will be known of it.
fn without_verdict_at_the_end(mut arm: ArmStatus) -> ArmStatus {
    if let Some(result) = arm.result.as_mut().filter(|result| !is_final(result)) {
        UNDECIDED.clone_into(&mut result.verdict);
    }
    arm
}

fn concluded(
    observed: &ExperimentObserved,
    status: &ModelExperimentStatus,
) -> (ConditionStatus, ReasonMessage) {
    let result = status.result.as_ref();
    let message = result.map_or("nothing has been counted yet", |result| result.message.as_str());
    let about = |alias: &str| format!("{alias} against {}: {message}", observed.spec.champion_ref.name);
    let best = arm::best(&status.arms, primary(&observed.spec.metrics).goal);
    let message = best.map_or_else(|| message.to_owned(), |arm| about(&arm.alias));
    if status.phase != Some(ExperimentPhase::Concluded) {
        return (ConditionStatus::False, ReasonMessage::new(Reason::Collecting, message));
    }
    let reason = result.and_then(|result| result.verdict.parse().ok()).unwrap_or(Reason::Undecided);
    (ConditionStatus::True, ReasonMessage::new(reason, message))
}

fn split(status: &ModelExperimentStatus) -> Option<(ConditionStatus, ReasonMessage)> {
    let wrong: &str = (&Why::SplitMismatch).into();
    let results = || status.arms.iter().filter_map(|arm| Some((&arm.alias, arm.result.as_ref()?)));
    if let Some((alias, result)) = results().find(|(_, result)| result.reason == wrong) {
        let message = format!(
            "{alias}: {}; do all requests come through the route that shares them, and do its Gateways keep to the \
             weights? Another version, or another ModelExperiment, begins anew",
            result.message
        );
        return Some((ConditionStatus::False, ReasonMessage::new(Reason::SplitMismatch, message)));
    }
    let is_counted = results().any(|(_, result)| result.samples.iter().any(|samples| *samples > 0));
    let message = "the requests that were counted are shared as the weights say";
    let planned = ReasonMessage::new(Reason::SplitAsPlanned, message);
    is_counted.then_some((ConditionStatus::True, planned))
}

fn readiness(
    observed: &ExperimentObserved,
    status: &ModelExperimentStatus,
    actions: &[ExperimentAction],
) -> Readiness {
    let (_, verdict) = concluded(observed, status);
    if status.phase == Some(ExperimentPhase::Concluded) {
        if !actions.is_empty() || !observed.is_over() {
            let message = format!("the verdict is being written to the registry; {}", verdict.message);
            return Readiness::Progressing(ReasonMessage::new(Reason::RegistryPending, message));
        }
        let about_alias = match (observed.alias_plan(), &status.alias_skipped) {
            (AliasPlan::Wait(cause), _) => return blocked(cause),
            (_, Some(why)) => format!("; the alias was not set to the version that won: {why}"),
            _ => String::new(),
        };
        let message = format!("{}{about_alias}", verdict.message);
        return Readiness::Settled(ReasonMessage::new(verdict.reason, message));
    }
    if let Some((ConditionStatus::False, cause)) = split(status) {
        return Readiness::Stalled(cause);
    }
    // Of a challenger that has a verdict, nothing is wanted any more.
    let open = status.arms.iter().zip(&observed.challengers);
    let mut open = open.filter(|(arm, _)| !arm.result.as_ref().is_some_and(is_final));
    if let Some(cause) = open.find_map(|(arm, it)| observed.contestants(&arm.alias, it).err()) {
        return blocked(cause);
    }
    match observed.counted.iter().find_map(|view| Some((&view.key, view.outage?))) {
        Some((key, outage)) => Readiness::Progressing(without_data(key, outage)),
        None => Readiness::Settled(verdict),
    }
}

/// Says that nothing is counted, and what to do about it.
fn without_data(key: &ContestKey, outage: Outage) -> ReasonMessage {
    let (reason, what) = match outage.gap {
        Gap::Unreachable | Gap::Late => (
            Reason::MetricsUnreachable,
            "their pods cannot be read: let Laurel's pod reach the port `metrics` of all pods",
        ),
        Gap::Ambiguous => (Reason::MetricsAmbiguous, "a pod counts the same thing twice"),
        Gap::Missing | Gap::Partial | Gap::NotACount | Gap::Inconsistent => (
            Reason::MetricsMissing,
            "a pod does not count what the metrics are about: see spec.serving.metrics of the ModelAliases \
             (predictions: Numbers for a mean, Classes for a class), and whether each version has a ready pod; pods \
             of an earlier release of Laurel count nothing until they are replaced",
        ),
    };
    let message = format!(
        "nothing has been counted of {} version {} and of the champion's version {} since {}: {what}",
        key.alias, key.challenger, key.champion, outage.since
    );
    ReasonMessage::new(reason, message)
}
