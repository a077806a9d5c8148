//! The newest versions of a model, as shown in the status of its RegisteredModel.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::{RegisteredModelSpec, metric::Metric, names::Version, registered_model::VersionStatus},
    registry::VersionFacts,
};

/// Maximum number of metrics for each version.
const METRICS_MAX: usize = 24;

/// The value of a metric that the run does not have.
const NONE: &str = "none";

/// The value of a metric whose run was never read.
const UNKNOWN: &str = "unknown";

/// Returns the metrics to show: first `displayMetrics`, then those of the rules.
#[must_use]
pub fn display_metrics(spec: &RegisteredModelSpec) -> BTreeSet<String> {
    let rules = &spec.promotion;
    let bounded = rules.iter().flat_map(|rule| &rule.metrics).map(|metric| &metric.name);
    let improved = rules.iter().filter_map(|rule| Some(&rule.improves.as_ref()?.metric));
    let mut shown = BTreeSet::new();
    for name in spec.display_metrics.iter().chain(bounded).chain(improved) {
        if shown.len() < METRICS_MAX {
            shown.insert(name.clone());
        }
    }
    shown
}

/// Returns the versions with their aliases and metrics. Values that cannot be read now stay as they were.
#[must_use]
pub fn version_statuses(
    versions: Vec<VersionFacts>,
    aliases: &BTreeMap<String, Version>,
    names: &BTreeSet<String>,
    metrics: &BTreeMap<Version, Option<BTreeMap<String, Metric>>>,
    before: &[VersionStatus],
) -> Vec<VersionStatus> {
    let status = |facts: VersionFacts| {
        let held = aliases.iter().filter(|(_, version)| **version == facts.version);
        let known = metrics.get(&facts.version).and_then(Option::as_ref);
        let last = before.iter().find(|last| last.version == facts.version && last.run_id == facts.run_id);
        let value = |name: &String| match known {
            Some(metrics) => metrics.get(name).map_or_else(|| NONE.to_owned(), Metric::to_string),
            None => {
                last.and_then(|last| last.metrics.get(name).cloned()).unwrap_or_else(|| UNKNOWN.to_owned())
            }
        };
        VersionStatus {
            version: facts.version,
            created_at: facts.created_at,
            aliases: held.map(|(alias, _)| alias.clone()).collect(),
            state: facts.state.as_str().to_owned(),
            metrics: names.iter().map(|name| (name.clone(), value(name))).collect(),
            run_id: facts.run_id,
        }
    };
    versions.into_iter().map(status).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::registry::VersionState;

    #[test]
    fn display_metrics_come_before_those_of_rules_and_are_bounded() {
        let spec: RegisteredModelSpec = serde_yaml::from_str(
            "
displayMetrics: [f1]
promotion:
  - {name: a, aliases: [a], metrics: [{name: auc, min: 0.9}], improves: {metric: cost, over: a, goal: \
  Minimize}}
",
        )
        .unwrap();
        assert_eq!(display_metrics(&spec), ["auc", "cost", "f1"].map(str::to_owned).into());
        let many: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let spec = RegisteredModelSpec { display_metrics: many, ..spec };
        assert_eq!(display_metrics(&spec).len(), METRICS_MAX);
    }

    #[test]
    fn missing_nan_and_unknown_metrics_are_shown_as_such() {
        let version = |number| Version::new(number).unwrap();
        let facts = |number: u32| VersionFacts {
            version: version(number),
            created_at: Timestamp::UNIX_EPOCH,
            state: VersionState::Ready,
            model_uri: "models:/fraud/1".parse().unwrap(),
            run_id: Some(number.to_string()),
            description: String::new(),
            tags: BTreeMap::new(),
        };
        let names = BTreeSet::from(["auc", "f1"].map(str::to_owned));
        let read = BTreeMap::from([("auc".to_owned(), Metric::new(f64::NAN))]);
        let metrics = BTreeMap::from([(version(2), Some(read)), (version(1), None)]);
        let aliases = BTreeMap::from([("champion".to_owned(), version(1))]);
        let shown = version_statuses(vec![facts(2), facts(1)], &aliases, &names, &metrics, &[]);
        let reported = |status: &VersionStatus| [status.metrics["auc"].clone(), status.metrics["f1"].clone()];
        assert_eq!(reported(&shown[0]), ["NaN", "none"]);
        assert_eq!(reported(&shown[1]), ["unknown", "unknown"]);
        assert_eq!(shown[1].aliases, ["champion"]);
        let again = version_statuses(vec![facts(2)], &aliases, &names, &BTreeMap::new(), &shown);
        assert_eq!(reported(&again[0]), ["NaN", "none"], "known values stay while they cannot be read");
    }
}
