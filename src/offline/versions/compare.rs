//! Comparison of a few versions.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::Measured;
use crate::{
    api::{
        metric::{Goal, Metric},
        names::Version,
    },
    audit::is_audit_tag,
    registry::RegisteredModelFacts,
};

/// A few versions side by side. The values of a row are in the order of the versions.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The model.
    pub model: String,
    /// The versions.
    pub versions: Vec<Side>,
    /// Every metric of any of them.
    pub metrics: Vec<MetricRow>,
    /// Every tag that differs between them, except those of the audit log.
    pub tags: Vec<TagRow>,
}

/// One of the versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Its number.
    pub version: Version,
    /// Its aliases.
    pub aliases: Vec<String>,
    /// The state of its registration.
    pub state: &'static str,
    /// Time of its registration.
    pub registered_at: Timestamp,
    /// The run that created it, if any.
    pub run_id: Option<String>,
    /// Its description.
    pub description: String,
}

/// A metric of all versions.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricRow {
    /// Its name.
    pub name: String,
    /// Whether larger or smaller is better, if the promotion rules define it.
    pub goal: Option<Goal>,
    /// Its values; `None` if the run does not have it.
    pub values: Vec<Option<Metric>>,
    /// The versions with the best value, if the goal is known.
    pub best: Vec<Version>,
}

/// A tag of all versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagRow {
    /// Its key.
    pub key: String,
    /// Its values; `None` if it is not set.
    pub values: Vec<Option<String>>,
}

/// Compares versions.
///
/// # Errors
/// When a run could not be read.
pub fn compare(
    model: &RegisteredModelFacts,
    versions: &[Measured],
    goals: &BTreeMap<String, Goal>,
) -> Result<Comparison, String> {
    let metrics: Vec<_> = versions
        .iter()
        .map(|(_, metrics)| match metrics {
            Ok(metrics) => Ok(&metrics.values),
            Err(cause) => Err(cause.message.clone()),
        })
        .collect::<Result<_, _>>()?;
    let numbers: Vec<Version> = versions.iter().map(|(facts, _)| facts.version).collect();
    let names: BTreeSet<&String> = metrics.iter().flat_map(|metrics| metrics.keys()).collect();
    let row = |name: &String| {
        let values: Vec<_> = metrics.iter().map(|metrics| metrics.get(name).copied()).collect();
        let goal = goals.get(name).copied();
        let best = goal.map(|goal| best(goal, &numbers, &values)).unwrap_or_default();
        MetricRow { name: name.clone(), goal, values, best }
    };
    let keys = versions.iter().flat_map(|(facts, _)| facts.tags.keys());
    let keys: BTreeSet<&String> = keys.filter(|key| !is_audit_tag(key)).collect();
    let tag = |key: &String| {
        let values: Vec<_> = versions.iter().map(|(facts, _)| facts.tags.get(key).cloned()).collect();
        TagRow { key: key.clone(), values }
    };
    let differs = |row: &TagRow| row.values.iter().any(|value| *value != row.values[0]);
    Ok(Comparison {
        model: model.name.to_string(),
        versions: versions
            .iter()
            .map(|(facts, _)| Side {
                version: facts.version,
                aliases: super::aliases(model, facts.version),
                state: facts.state.as_str(),
                registered_at: facts.created_at,
                run_id: facts.run_id.clone(),
                description: facts.description.clone(),
            })
            .collect(),
        metrics: names.into_iter().map(row).collect(),
        tags: keys.into_iter().map(tag).filter(differs).collect(),
    })
}

/// Returns the versions with the best value; none if there is only one version.
fn best(goal: Goal, versions: &[Version], values: &[Option<Metric>]) -> Vec<Version> {
    let numbers =
        versions.iter().zip(values).filter_map(|(version, value)| Some((*version, (*value)?.number()?)));
    let numbers: Vec<_> = numbers.collect();
    if versions.len() < 2 {
        return Vec::new();
    }
    let is_best = |value: f64| numbers.iter().all(|(_, other)| goal.gain(value, *other) >= 0.0);
    numbers.iter().filter(|(_, value)| is_best(*value)).map(|(version, _)| *version).collect()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::{
        super::best::tests::{model, version},
        *,
    };

    #[test]
    fn metrics_are_compared_and_the_best_is_marked_if_the_goal_is_known() {
        let versions = [
            version(
                3,
                &[("auc", 0.9), ("cost", 12.0), ("only", 1.0)],
                &[("team", "risk"), ("validated", "no")],
            ),
            version(4, &[("auc", 0.9), ("cost", 11.0)], &[("team", "risk"), ("laurel.promoted_by", "ana")]),
            version(
                5,
                &[("auc", f64::NAN), ("cost", 13.0)],
                &[("team", "risk"), ("validated", "true"), ("laurel.experiment.fraud-q4", "wins")],
            ),
        ];
        let goals = BTreeMap::from([("auc".to_owned(), Goal::Maximize), ("cost".to_owned(), Goal::Minimize)]);
        let reported = compare(&model(&[("champion", 3), ("old", 3)]), &versions, &goals).unwrap();
        let best: Vec<_> = reported
            .metrics
            .iter()
            .map(|row| (row.name.as_str(), row.best.iter().map(ToString::to_string).collect::<Vec<_>>()))
            .collect();
        let all = |numbers: &[&str]| numbers.iter().map(|number| (*number).to_owned()).collect::<Vec<_>>();
        assert_eq!(best, [("auc", all(&["3", "4"])), ("cost", all(&["4"])), ("only", all(&[]))]);
        assert_eq!(reported.versions[0].aliases, ["champion", "old"]);
        let [experiment, tag] = reported.tags.as_slice() else { panic!("{:?}", reported.tags) };
        assert_eq!(experiment.key, "laurel.experiment.fraud-q4", "a verdict says something about a version");
        assert_eq!((tag.key.as_str(), tag.values[1].as_ref()), ("validated", None));
        assert_eq!(
            serde_json::to_value(&reported).unwrap()["metrics"][0]["values"],
            serde_json::json!([0.9, 0.9, "NaN"])
        );
    }
}
