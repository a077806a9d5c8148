//! Followers: which of the newest versions of the model is chosen.
//!
//! A choice needs complete data: while a run that might be the best cannot be read, the last choice is kept.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use semver::VersionReq;
use serde::{Deserialize, Serialize};

use super::{Desired, Lifecycle, Metrics, Observed, SmokeReport, VersionView};
use crate::api::{
    condition::{Reason, ReasonMessage},
    metric::Goal,
    names::Version,
};

/// A follower chooses from this many of a model's newest versions.
pub const NEWEST: usize = 100;

/// What chooses the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Follower {
    /// The newest.
    Latest,
    /// The best by a metric, among those with these tags.
    Best {
        /// The metric.
        metric: String,
        /// The direction in which it improves.
        goal: Goal,
        /// The tags.
        #[serde(default)]
        tags: BTreeMap<String, String>,
    },
    /// The highest semantic version in a range.
    Semver {
        /// The tag that holds it.
        tag: String,
        /// The range, as it was written.
        range: String,
    },
}

/// The versions to choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Candidates {
    /// They have not been read yet.
    #[default]
    NotRead,
    /// They could not be read; the cause.
    Unread(ReasonMessage),
    /// The newest ones, in any order.
    Known(Vec<Candidate>),
}

/// A version that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its number.
    pub version: Version,
    /// Whether it can be served.
    pub is_ready: bool,
    /// Its tags that the follower uses.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Its metrics that the follower uses.
    pub metrics: Metrics,
}

/// The result of a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This version.
    Version(Version),
    /// Not known at present; the cause. The last choice is kept.
    Unknown(ReasonMessage),
    /// No version qualifies; the cause.
    Nobody(ReasonMessage),
}

/// Chooses.
#[must_use]
pub fn choose(follower: &Follower, candidates: &Candidates) -> Choice {
    let candidates = match candidates {
        Candidates::NotRead => {
            let message = "the model's versions have not been read yet";
            return Choice::Unknown(ReasonMessage::new(Reason::RegistryNotRead, message));
        }
        Candidates::Unread(cause) => return Choice::Unknown(cause.clone()),
        Candidates::Known(candidates) => candidates,
    };
    let ready: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.is_ready).collect();
    if ready.is_empty() {
        return nobody(format!("none of the model's newest {NEWEST} versions is READY; register one"));
    }
    match follower {
        Follower::Latest => ready
            .iter()
            .map(|candidate| candidate.version)
            .max()
            .map_or_else(|| nobody("none"), Choice::Version),
        Follower::Best { metric, goal, tags } => best(&ready, metric, *goal, tags),
        Follower::Semver { tag, range } => highest(&ready, tag, range),
    }
}

fn nobody(message: impl Into<String>) -> Choice {
    Choice::Nobody(ReasonMessage::new(Reason::NoCandidate, format!("spec.follow: {}", message.into())))
}

/// Chooses the best value. Ties go to the newest version.
fn best(ready: &[&Candidate], metric: &str, goal: Goal, tags: &BTreeMap<String, String>) -> Choice {
    let is_eligible =
        |candidate: &&&Candidate| tags.iter().all(|tag| candidate.tags.get(tag.0) == Some(tag.1));
    let eligible: Vec<_> = ready.iter().filter(is_eligible).collect();
    let mut best: Option<(f64, Version)> = None;
    let mut nan = 0;
    for candidate in &eligible {
        let value = match &candidate.metrics {
            Metrics::Unread(cause) => return Choice::Unknown(cause.clone()),
            Metrics::Known(metrics) => metrics.get(metric).copied(),
        };
        let Some(value) = value else { continue };
        let Some(value) = value.number() else {
            nan += 1;
            continue;
        };
        let is_better = best.is_none_or(|(than, version)| {
            let gain = goal.gain(value, than);
            gain > 0.0 || (gain == 0.0 && candidate.version > version)
        });
        if is_better {
            best = Some((value, candidate.version));
        }
    }
    best.map_or_else(
        || {
            nobody(format!(
                "of {} READY versions among the newest {NEWEST}, {} have the tags in best.tags, and none of \
                 these has the metric {metric:?} with a number in its run ({nan} with NaN)",
                ready.len(),
                eligible.len()
            ))
        },
        |(_, version)| Choice::Version(version),
    )
}

/// Chooses the highest semantic version in the range. Ties go to the newest version.
fn highest(ready: &[&Candidate], tag: &str, range: &str) -> Choice {
    let wanted = match parse_range(range) {
        Ok(wanted) => wanted,
        Err(error) => {
            let message = format!(
                "spec.follow.semver.range: {range:?} is not a valid range of semantic versions: {error}"
            );
            return Choice::Nobody(ReasonMessage::new(Reason::InvalidRange, message));
        }
    };
    let tagged: Vec<_> = ready.iter().filter(|candidate| candidate.tags.contains_key(tag)).collect();
    let parsed =
        tagged.iter().filter_map(|candidate| Some((semantic(&candidate.tags[tag])?, candidate.version)));
    let parsed: Vec<_> = parsed.collect();
    let matching = parsed.iter().filter(|(semantic, _)| wanted.matches(semantic));
    matching.max().map_or_else(
        || {
            nobody(format!(
                "of {} READY versions among the newest {NEWEST}, {} have the tag {tag:?}, {} of them with a \
                 semantic version, and none of these lies in {range:?}",
                ready.len(),
                tagged.len(),
                parsed.len()
            ))
        },
        |(_, version)| Choice::Version(*version),
    )
}

/// Parses a semantic version, with or without the leading `v` of many Git tags.
fn semantic(text: &str) -> Option<semver::Version> {
    let text = text.trim();
    semver::Version::parse(text.strip_prefix(['v', 'V']).unwrap_or(text)).ok()
}

/// Parses a range. Its parts are separated by commas or spaces: `>=2.1 <3`.
fn parse_range(range: &str) -> Result<VersionReq, semver::Error> {
    let is_operator = |c: char| "<>=~^".contains(c);
    let mut parts: Vec<String> = Vec::new();
    for word in range.split([' ', ',']).filter(|word| !word.is_empty()) {
        match parts.last_mut() {
            // An operator separated from its version by a space.
            Some(last) if last.chars().all(is_operator) => last.push_str(word),
            _ => parts.push(word.to_owned()),
        }
    }
    VersionReq::parse(&parts.join(", "))
}

/// Returns the target version of a follower. A listing can be incomplete, and the choice can change faster
/// than a version starts. So the current target is kept while its start is under way. If the list lacks it
/// and the choice is a lower version, it is also kept until a direct read confirms that it is gone.
pub(super) fn target(observed: &Observed, follower: &Follower) -> Choice {
    let choice = choose(follower, &observed.registry.candidates);
    let Choice::Version(version) = choice else { return choice };
    let stays = |present: &Version| {
        let is_replaced = *present != version;
        is_replaced
            && !is_gone(observed, *present)
            && (is_missing(observed, *present, version) || is_starting(observed, *present))
    };
    let present = observed.status.target_version.filter(stays);
    Choice::Version(present.unwrap_or(version))
}

/// Returns when the start of a version ends that keeps the follower from another one. What the version waits
/// for may set no wake-up for that time.
pub(super) fn turns_later(observed: &Observed) -> Option<Timestamp> {
    let Desired::Chosen(follower) = &observed.intent.desired else { return None };
    let choice = choose(follower, &observed.registry.candidates);
    let present =
        observed.status.target_version.filter(|_| observed.intent.lifecycle == Lifecycle::Active)?;
    let is_kept = matches!(choice, Choice::Version(version) if version != present);
    start_ends(observed, present)
        .filter(|ends| is_kept && *ends > observed.now && is_starting(observed, present))
}

/// Whether a direct read of the version shows that it cannot be served.
fn is_gone(observed: &Observed, version: Version) -> bool {
    let output = observed.registry.versions.get(&version);
    matches!(output, Some(VersionView::Absent | VersionView::Failed))
}

/// Whether the list of candidates lacks the current target, which is newer than the choice.
fn is_missing(observed: &Observed, present: Version, chosen: Version) -> bool {
    let Candidates::Known(candidates) = &observed.registry.candidates else { return false };
    chosen < present && candidates.iter().all(|candidate| candidate.version != present)
}

/// Whether a version that has not served yet is being started, and has neither failed nor exceeded its
/// deadline.
fn is_starting(observed: &Observed, version: Version) -> bool {
    let Some(workload) =
        observed.cluster.workloads.get(&version).filter(|_| observed.intent.serving.is_some())
    else {
        return false;
    };
    let is_rejected = observed.status.rejected.iter().any(|rejection| {
        rejection.version == version && rejection.active && rejection.settings == workload.settings
    });
    let is_under_way = workload.desired > 0 && !observed.has_served(version) && !is_rejected;
    let ends = start_ends(observed, version).unwrap_or(observed.now);
    // A smoke test that cannot be run has no deadline of its own, so it does not hold up the next version.
    let report = workload.smoke.as_ref().map(|test| &test.report);
    let is_tested = matches!(report, Some(SmokeReport::Running(_)));
    is_under_way && (observed.now < ends || is_tested)
}

fn start_ends(observed: &Observed, version: Version) -> Option<Timestamp> {
    let (serving, workload) = (observed.intent.serving.as_ref()?, observed.cluster.workloads.get(&version)?);
    let started = observed.remembered(version).and_then(|held| held.started_at);
    let begun = [started, workload.started_at, workload.tried_since].into_iter().flatten().max();
    let ends = begun.unwrap_or(observed.now).checked_add(serving.progress_deadline);
    Some(ends.unwrap_or(Timestamp::MAX))
}

/// Returns why the follower's choice is not known although the registry answers. Right after a start this is
/// normal and not reported.
pub(super) fn uncertainty(observed: &Observed) -> Option<ReasonMessage> {
    let Desired::Chosen(follower) = &observed.intent.desired else { return None };
    if observed.registry.error.is_some() {
        return None;
    }
    match choose(follower, &observed.registry.candidates) {
        Choice::Unknown(cause) if cause.reason != Reason::RegistryNotRead => {
            let message = format!("the choice of spec.follow is not known: {}", cause.message);
            Some(ReasonMessage::new(cause.reason, message))
        }
        _ => None,
    }
}
