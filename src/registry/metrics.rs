//! The metrics of a version: those of its run, and those of its logged model that the run lacks.

use std::collections::{BTreeMap, BTreeSet};

use super::{Registry, RegistryError, VersionFacts};
use crate::api::{condition::ReasonMessage, metric::Metric};

/// The metrics of a version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VersionMetrics {
    /// The latest value of each.
    pub values: BTreeMap<String, Metric>,
    /// The names of those that the logged model has and the run has not.
    pub of_logged_model: BTreeSet<String>,
    /// Why the logged model could not be read. What is not among the values is then unknown.
    pub unread: Option<ReasonMessage>,
}

impl VersionMetrics {
    /// Returns a metric; `None` if the version does not have it.
    ///
    /// # Errors
    /// Why that is unknown.
    pub fn value(&self, name: &str) -> Result<Option<Metric>, ReasonMessage> {
        match (self.values.get(name), &self.unread) {
            (None, Some(unread)) => Err(unread.clone()),
            (value, _) => Ok(value.copied()),
        }
    }
}

/// What has the metrics of a version. Versions with the same sources have the same metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricSources {
    /// The run that created it.
    pub run_id: Option<String>,
    /// Its logged model.
    pub logged_model: Option<String>,
}

impl MetricSources {
    /// Whether the version can have no metrics.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.run_id.is_none() && self.logged_model.is_none()
    }
}

impl VersionFacts {
    /// Returns what has the metrics of the version.
    #[must_use]
    pub fn metric_sources(&self) -> MetricSources {
        let logged_model = self.model_uri.logged_model().map(str::to_owned);
        MetricSources { run_id: self.run_id.clone(), logged_model }
    }
}

/// Reads the metrics of a version. `explain` gets what could not be read and why.
///
/// The run comes first: a logged model repeats the metrics of its run, but without NaN.
///
/// # Errors
/// Why nothing is known of them.
pub async fn version_metrics(
    registry: &dyn Registry,
    facts: &VersionFacts,
    explain: impl Fn(&str, &RegistryError) -> ReasonMessage,
) -> Result<VersionMetrics, ReasonMessage> {
    let MetricSources { run_id, logged_model } = facts.metric_sources();
    let mut metrics = VersionMetrics::default();
    if let Some(run_id) = &run_id {
        let read = registry.metrics(run_id).await;
        let values = read.map_err(|error| explain(&format!("the run {run_id}"), &error))?;
        // A run that was purged has none.
        metrics.values = values.unwrap_or_default();
    }
    let Some(model_id) = logged_model else { return Ok(metrics) };
    match registry.logged_model_metrics(&model_id, &metrics.values).await {
        Ok(logged) => {
            let logged = logged.unwrap_or_default();
            let missing = logged.into_iter().filter(|(name, _)| !metrics.values.contains_key(name));
            let missing: BTreeMap<_, _> = missing.collect();
            metrics.of_logged_model = missing.keys().cloned().collect();
            metrics.values.extend(missing);
        }
        Err(error) => {
            let unread = explain(&format!("the logged model {model_id}"), &error);
            if run_id.is_none() {
                return Err(unread);
            }
            metrics.unread = Some(unread);
        }
    }
    Ok(metrics)
}
