//! What a follower chooses from, cut down to what it speaks of.

use std::collections::BTreeMap;

use super::model_alias::Model;
use crate::{
    api::{ModelAliasSpec, condition::Note, metric::Metric},
    decide::{Candidate, Candidates, Follower, Metrics},
    registry::{VersionFacts, VersionState},
};

/// What chooses the version, where that is neither a person nor the alias in the registry.
#[must_use]
pub fn follower(spec: &ModelAliasSpec) -> Option<Follower> {
    let follow = spec.follow.as_ref().filter(|_| spec.version.is_none())?;
    if let Some(best) = &follow.best {
        let tags = best.tags.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
        return Some(Follower::Best { metric: best.metric.clone(), goal: best.goal, tags });
    }
    if let Some(semver) = &follow.semver {
        return Some(Follower::Semver { tag: semver.tag.clone(), range: semver.range.clone() });
    }
    follow.latest.as_ref().map(|_| Follower::Latest)
}

/// The versions that it chooses from, as a poll listed them.
pub(super) fn candidates(follower: &Follower, model: &Model) -> Candidates {
    match model.registry.listing(&model.name) {
        None => Candidates::NotRead,
        Some(Err(note)) => Candidates::Unread(note),
        Some(Ok(versions)) => {
            let told = versions.into_iter().map(|(facts, metrics)| candidate(follower, facts, metrics));
            Candidates::Known(told.collect())
        }
    }
}

/// A version as a follower sees it.
#[must_use]
pub fn candidate(
    follower: &Follower,
    facts: VersionFacts,
    metrics: Result<BTreeMap<String, Metric>, Note>,
) -> Candidate {
    let speaks_of_tag = |key: &String| match follower {
        Follower::Latest => false,
        Follower::Best { tags, .. } => tags.contains_key(key),
        Follower::Semver { tag, .. } => tag == key,
    };
    let metrics = match (follower, metrics) {
        (Follower::Best { .. }, Err(note)) => Metrics::Unread(note),
        (Follower::Best { metric, .. }, Ok(metrics)) => {
            Metrics::Known(metrics.into_iter().filter(|(name, _)| name == metric).collect())
        }
        (Follower::Latest | Follower::Semver { .. }, _) => Metrics::Known(BTreeMap::new()),
    };
    Candidate {
        version: facts.version,
        is_ready: facts.state == VersionState::Ready,
        tags: facts.tags.into_iter().filter(|(key, _)| speaks_of_tag(key)).collect(),
        metrics,
    }
}
