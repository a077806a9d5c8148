//! What is done about a ModelExperiment: what to count, what the counts say, and what follows from a verdict.
//!
//! ```text
//!                             ┌ arm ───── the contest of one challenger: begun, counted, concluded
//! ExperimentObserved ─ decide ┼ winner ── the champion's alias, once a winner is in the status
//!                             ├ rules ─── the spec in the terms of the tests
//!                             └ report ── the conditions
//! ```
//!
//! Each challenger has a contest of its own with the champion, over the minutes in which both served the
//! versions that are compared. Another version of either begins anew. What was counted is in the status, so a
//! restart loses a few minutes of it, which weakens a verdict and never changes it. A verdict is written to
//! the status before anything depends on it.

mod arm;
mod report;
mod rules;
#[cfg(test)]
mod tests;
mod winner;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use self::winner::AliasPlan;
use super::Readiness;
use crate::{
    analysis::{
        experiment::{ExperimentEvidence, ExperimentRules},
        ledger::Outage,
    },
    api::{
        ModelExperimentSpec, ModelExperimentStatus,
        condition::{ConditionStatus, ReasonMessage},
        model_experiment::{ArmStatus, ExperimentPhase, OnGuardrail, VERDICT_TAG, Verdict, WithdrawnVersion},
        names::{ModelUri, Version},
        signed_duration,
    },
};

/// How many withdrawn versions are remembered: the newest ones.
const WITHDRAWN_MAX: usize = 32;

/// While it counts, an experiment is looked at so often, whatever happens.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(10);

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
    let are_final = !arms.is_empty() && arms.iter().all(arm::is_final);
    let is_concluded = observed.is_over() || observed.is_out_of_time() || are_final;
    let alias = observed.alias_plan();
    let status = if observed.is_over() {
        observed.status_at_rest(arms, &alias)
    } else {
        observed.status_under_way(arms, is_concluded)
    };
    let actions: Vec<ExperimentAction> = observed.tags().chain(alias.action()).collect();
    let concluded = report::concluded(observed, &status);
    ExperimentDecision {
        contests: if is_concluded { Vec::new() } else { observed.contests(&status) },
        readiness: report::readiness(observed, &status, &alias, !actions.is_empty(), &concluded.1),
        split: report::split(&status),
        wake: if is_concluded { None } else { observed.look_again(&status) },
        concluded,
        actions,
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
        let end = begun.and_then(|begun| begun.checked_add(signed_duration(self.spec.duration.at_most)).ok());
        end.is_some_and(|end| end <= self.now)
    }

    /// The challengers as they are known now.
    fn arms(&self) -> Vec<ArmStatus> {
        let names = self.spec.challengers.iter().map(|challenger| &challenger.alias_ref.name);
        names.zip(&self.challengers).map(|(alias, challenger)| self.arm(alias, challenger)).collect()
    }

    /// What is to be counted: the contests that have no verdict yet.
    fn contests(&self, status: &ModelExperimentStatus) -> Vec<Contest> {
        let arms = status.arms.iter().zip(&self.challengers);
        let contest = |(arm, challenger): (&ArmStatus, _)| {
            let (key, weights) = self.contestants(&arm.alias, challenger).ok()?;
            let since = arm.since?;
            let rules = self.rules(status, since);
            Some(Contest { evidence: arm::evidence(arm), key, since, weights, rules })
        };
        arms.filter(|(arm, _)| !arm::is_final(arm)).filter_map(contest).collect()
    }

    /// The verdicts in the status that are not in the registry yet.
    fn tags(&self) -> impl Iterator<Item = ExperimentAction> {
        let tag = |arm: &ArmStatus| {
            let value = arm.result.as_ref()?.verdict.tag()?;
            (arm.tagged.as_deref() != Some(value)).then_some(())?;
            Some(ExperimentAction::SetTag {
                alias: arm.alias.clone(),
                version: arm.version?,
                model_uri: arm.model_uri.clone(),
                key: format!("{VERDICT_TAG}{}", self.name),
                value: value.to_owned(),
            })
        };
        self.status.arms.iter().filter_map(tag)
    }

    /// The status once it is over: only what follows from the verdict changes.
    fn status_at_rest(&self, arms: Vec<ArmStatus>, alias: &AliasPlan) -> ModelExperimentStatus {
        let withdrawn = self.withdrawn(&arms);
        let before = &self.status;
        ModelExperimentStatus {
            observed_generation: self.generation,
            alias_set: before.alias_set || matches!(alias, AliasPlan::IsThere),
            alias_skipped: alias.skipped().or_else(|| before.alias_skipped.clone()),
            withdrawn,
            arms,
            ..before.clone()
        }
    }

    fn status_under_way(&self, mut arms: Vec<ArmStatus>, is_concluded: bool) -> ModelExperimentStatus {
        if is_concluded {
            arms.iter_mut().for_each(arm::end);
        }
        let before = &self.status;
        let begun = arms.iter().filter_map(|arm| arm.since).min();
        let best = self.best(&arms);
        let wins = best.filter(|arm| arm::has_verdict(arm, Verdict::ChallengerWins));
        ModelExperimentStatus {
            observed_generation: self.generation,
            phase: Some(match (is_concluded, begun) {
                (true, _) => ExperimentPhase::Concluded,
                (false, Some(_)) => ExperimentPhase::Collecting,
                (false, None) => ExperimentPhase::Pending,
            }),
            started_at: before.started_at.or(begun),
            concluded_at: is_concluded.then_some(self.now),
            champion_version: self.champion.as_ref().map_or(before.champion_version, |it| Some(it.version)),
            result: best.and_then(|arm| arm.result.clone()),
            winner: wins.filter(|_| is_concluded).map(|arm| arm.alias.clone()),
            withdrawn: self.withdrawn(&arms),
            arms,
            ..before.clone()
        }
    }

    /// The versions that no longer get requests: those of before, and those that a guardrail finds worse now.
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
        let after = |begin: Timestamp, lasts| begin.checked_add(lasts).ok();
        let [at_least, at_most] =
            [self.spec.duration.at_least, self.spec.duration.at_most].map(signed_duration);
        let begun = status.arms.iter().filter_map(|arm| arm.since);
        let earliest = begun.filter_map(|since| after(since, at_least));
        let end = status.started_at.and_then(|begun| after(begun, at_most));
        let regularly = after(self.now, LOOK_AGAIN);
        earliest.chain(end).chain(regularly).filter(|at| *at > self.now).min()
    }
}
