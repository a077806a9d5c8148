//! The candidates of a follower, reduced to the data that it uses.

use std::collections::BTreeMap;

use crate::{
    api::condition::ReasonMessage,
    decide::{Candidate, Candidates, Follower, Metrics},
    registry::{
        VersionFacts, VersionState,
        metrics::VersionMetrics,
        polled::{FollowerNeeds, ListedVersion},
    },
    resolve::Model,
};

/// Returns the versions that it chooses from, as listed by a poll.
pub(super) fn candidates(follower: &Follower, model: &Model) -> Candidates {
    match model.registry.listing(&model.name, &needs(follower)) {
        None => Candidates::NotRead,
        Some(listing) => match &*listing {
            Err(cause) => Candidates::Unread(cause.clone()),
            Ok(versions) => {
                let relevant = |version: &ListedVersion| {
                    candidate(follower, &version.facts, (*version.metrics).as_ref())
                };
                Candidates::Known(versions.iter().map(relevant).collect())
            }
        },
    }
}

/// Returns what a follower uses of the versions that it chooses from.
pub(super) fn needs(follower: &Follower) -> FollowerNeeds {
    match follower {
        Follower::Latest => FollowerNeeds::default(),
        Follower::Best { metric, tags, .. } => {
            FollowerNeeds { metrics: [metric.clone()].into(), has_tags: !tags.is_empty() }
        }
        Follower::Semver { .. } => FollowerNeeds { has_tags: true, ..FollowerNeeds::default() },
    }
}

/// Converts a version into a candidate.
#[must_use]
pub fn candidate(
    follower: &Follower,
    facts: &VersionFacts,
    metrics: Result<&VersionMetrics, &ReasonMessage>,
) -> Candidate {
    let speaks_of_tag = |key: &String| match follower {
        Follower::Latest => false,
        Follower::Best { tags, .. } => tags.contains_key(key),
        Follower::Semver { tag, .. } => tag == key,
    };
    let metrics = match (follower, metrics) {
        (Follower::Best { .. }, Err(cause)) => Metrics::Unread(cause.clone()),
        (Follower::Best { metric, .. }, Ok(metrics)) => match metrics.value(metric) {
            Err(cause) => Metrics::Unread(cause),
            Ok(value) => Metrics::Known(value.map(|value| (metric.clone(), value)).into_iter().collect()),
        },
        (Follower::Latest | Follower::Semver { .. }, _) => Metrics::Known(BTreeMap::new()),
    };
    let tags = facts.tags.iter().filter(|(key, _)| speaks_of_tag(key));
    Candidate {
        version: facts.version,
        is_ready: facts.state == VersionState::Ready,
        tags: tags.map(|(key, value)| (key.clone(), value.clone())).collect(),
        metrics,
    }
}
