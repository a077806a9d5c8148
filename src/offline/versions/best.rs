//! The best version by a metric: the one that `follow.best` would choose now.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::Serialize;

use super::Measured;
use crate::{
    api::{
        metric::{Goal, Metric},
        names::Version,
    },
    decide::{Candidates, Choice, Follower, Metrics, choose},
    observe::candidate,
    registry::RegisteredModelFacts,
};

/// The query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The metric.
    pub metric: String,
    /// Whether larger or smaller is better.
    pub goal: Goal,
    /// Only versions with all these tags.
    pub tags: BTreeMap<String, String>,
}

/// The result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BestVersion {
    /// The model.
    pub model: String,
    /// The metric.
    pub metric: String,
    /// Whether larger or smaller is better.
    pub goal: Goal,
    /// The best version, if there is one.
    pub version: Option<Version>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The READY versions with the tags, the best first; those without a value last.
    pub candidates: Vec<Ranked>,
}

/// A version in the ranking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ranked {
    /// Its number.
    pub version: Version,
    /// The metric; `None` if its run does not have it.
    pub value: Option<Metric>,
    /// Its aliases.
    pub aliases: Vec<String>,
    /// The state of its registration.
    pub state: &'static str,
}

/// Finds the best version.
///
/// # Errors
/// When the best version is unknown, because a run that might be the best one could not be read.
pub fn best(
    question: &Question,
    model: &RegisteredModelFacts,
    versions: &[Measured],
) -> Result<BestVersion, String> {
    let Question { metric, goal, tags } = question.clone();
    let follower = Follower::Best { metric: metric.clone(), goal, tags: tags.clone() };
    let candidates = versions.iter().map(|(facts, metrics)| candidate(&follower, facts, metrics.as_ref()));
    let candidates: Vec<_> = candidates.collect();
    let eligible = candidates
        .iter()
        .filter(|it| it.is_ready && tags.iter().all(|(key, value)| it.tags.get(key) == Some(value)));
    let mut ranked: Vec<_> = eligible
        .map(|it| Ranked {
            version: it.version,
            value: match &it.metrics {
                Metrics::Known(metrics) => metrics.get(&metric).copied(),
                Metrics::Unread(_) => None,
            },
            aliases: super::aliases(model, it.version),
            state: crate::registry::VersionState::Ready.as_str(),
        })
        .collect();
    ranked.sort_by(|a, b| order(goal, a, b));
    let (version, reason) = match choose(&follower, &Candidates::Known(candidates)) {
        Choice::Version(version) => (Some(version), None),
        Choice::Nobody(cause) => {
            let reason = cause.message.trim_start_matches("spec.follow: ").to_owned();
            (None, Some(reason))
        }
        Choice::Unknown(cause) => return Err(cause.message),
    };
    Ok(BestVersion { model: model.name.to_string(), metric, goal, version, reason, candidates: ranked })
}

/// Orders the better one first, then the newer one; those without a value last.
fn order(goal: Goal, a: &Ranked, b: &Ranked) -> Ordering {
    let number = |it: &Ranked| it.value.and_then(Metric::number);
    let by_value = match (number(a), number(b)) {
        (Some(a), Some(b)) => goal.gain(b, a).total_cmp(&0.0),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    by_value.then(b.version.cmp(&a.version))
}

#[cfg(test)]
pub(super) mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        api::condition::{Reason, ReasonMessage},
        registry::{VersionFacts, VersionState, metrics::VersionMetrics},
    };

    pub(crate) fn model(aliases: &[(&str, u32)]) -> RegisteredModelFacts {
        RegisteredModelFacts {
            name: "fraud".parse().unwrap(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
            description: String::new(),
            tags: BTreeMap::new(),
            aliases: aliases
                .iter()
                .map(|(alias, version)| (alias.parse().unwrap(), Version::new(*version).unwrap()))
                .collect(),
        }
    }

    pub(crate) fn version(number: u32, metrics: &[(&str, f64)], tags: &[(&str, &str)]) -> Measured {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let facts = VersionFacts {
            version: Version::new(number).unwrap(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            state: VersionState::Ready,
            model_uri: format!("models:/fraud/{number}").parse().unwrap(),
            run_id: Some(format!("run{number}")),
            description: String::new(),
            tags: tags.iter().map(text).collect(),
        };
        {
            let values = metrics.iter().map(|(name, value)| ((*name).to_owned(), Metric::new(*value)));
            let metrics = VersionMetrics { values: values.collect(), ..VersionMetrics::default() };
            (facts, Ok(metrics))
        }
    }

    fn asked(goal: Goal, tags: &[(&str, &str)]) -> Question {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Question { metric: "auc".to_owned(), goal, tags }
    }

    #[test]
    fn the_best_comes_first_and_versions_without_a_value_last() {
        let versions = vec![
            version(1, &[("auc", 0.9)], &[]),
            version(2, &[("auc", f64::NAN)], &[]),
            version(3, &[("auc", 0.9)], &[]),
            version(4, &[], &[]),
            version(5, &[("auc", 0.8)], &[]),
        ];
        let answer = best(&asked(Goal::Maximize, &[]), &model(&[("champion", 1)]), &versions).unwrap();
        let order: Vec<_> = answer.candidates.iter().map(|it| it.version.to_string()).collect();
        assert_eq!(order, ["3", "1", "5", "4", "2"]);
        assert_eq!(answer.version, Version::new(3));
        assert_eq!(answer.candidates[1].aliases, ["champion"]);
        let least = best(&asked(Goal::Minimize, &[]), &model(&[]), &versions).unwrap();
        assert_eq!(least.version, Version::new(5));
    }

    #[test]
    fn tags_limit_the_choice_and_no_version_is_a_valid_result() {
        let versions =
            vec![version(1, &[("auc", 0.9)], &[("validated", "true")]), version(2, &[("auc", 1.0)], &[])];
        let answer = best(&asked(Goal::Maximize, &[("validated", "true")]), &model(&[]), &versions).unwrap();
        assert_eq!((answer.version, answer.candidates.len()), (Version::new(1), 1));
        let nobody = best(&asked(Goal::Maximize, &[("team", "risk")]), &model(&[]), &versions).unwrap();
        assert_eq!(nobody.version, None);
        assert!(nobody.reason.unwrap().contains("0 have the tags"));
    }

    #[test]
    fn a_run_that_cannot_be_read_is_an_error() {
        let (facts, _) = version(2, &[], &[]);
        let unread = (facts, Err(ReasonMessage::new(Reason::RegistryFailing, "500")));
        let versions = vec![version(1, &[("auc", 0.9)], &[]), unread];
        assert_eq!(best(&asked(Goal::Maximize, &[]), &model(&[]), &versions).unwrap_err(), "500");
    }

    proptest! {
        #[test]
        fn the_first_in_the_ranking_is_the_one_that_a_follower_chooses(
            values in proptest::collection::vec(proptest::option::of(prop_oneof![Just(f64::NAN), Just(0.5), -1.0..1.0]), 0..12),
            minimize in any::<bool>(),
        ) {
            let goal = if minimize { Goal::Minimize } else { Goal::Maximize };
            let versions = values.iter().zip(1..).map(|(value, number)| {
                let metrics: Vec<_> = value.iter().map(|value| ("auc", *value)).collect();
                version(number, &metrics, &[])
            });
            let answer = best(&asked(goal, &[]), &model(&[]), &versions.collect::<Vec<_>>()).unwrap();
            let first = answer.candidates.first().filter(|it| it.value.and_then(Metric::number).is_some());
            prop_assert_eq!(answer.version, first.map(|it| it.version));
        }
    }
}
