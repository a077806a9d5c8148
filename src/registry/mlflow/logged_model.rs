//! The metrics of a logged model (MLflow 3).
//!
//! A logged model has the metrics that were logged for it by any run. MLflow returns 0 there for NaN, so a 0
//! counts only if the run that logged it has no NaN.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{MlflowRegistry, http::Call, json::InvalidPayload};
use crate::{
    api::metric::Metric,
    registry::{Registry, RegistryError},
};

/// How many runs are read to tell 0 from NaN.
const RUNS_MAX: usize = 4;

#[derive(Debug, Deserialize)]
pub(super) struct LoggedModelAnswer {
    model: LoggedModel,
}

#[derive(Debug, Deserialize)]
struct LoggedModel {
    info: Info,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Info {
    model_id: String,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    metrics: Option<Vec<Logged>>,
}

/// One value of a metric. There is one for each dataset.
#[derive(Clone, Debug, Deserialize)]
struct Logged {
    key: String,
    value: Metric,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    step: Option<i64>,
    #[serde(default)]
    run_id: Option<String>,
}

impl LoggedModelAnswer {
    /// Returns the latest value of each metric, if the answer is about the requested model.
    fn latest(self, model_id: &str) -> Result<BTreeMap<String, Logged>, InvalidPayload> {
        if self.model.info.model_id != model_id {
            return Err(InvalidPayload::RawAnswer(format!(
                "requested logged model {model_id:?}, but it returned {:?}",
                self.model.info.model_id
            )));
        }
        let mut values = self.model.data.metrics.unwrap_or_default();
        values.sort_by_key(|value| (value.step, value.timestamp, value.value));
        Ok(values.into_iter().map(|value| (value.key.clone(), value)).collect())
    }
}

/// Reads the metrics of a logged model, but for those that are `known`.
pub(super) async fn read(
    registry: &MlflowRegistry,
    model_id: &str,
    known: &BTreeMap<String, Metric>,
) -> Result<Option<BTreeMap<String, Metric>>, RegistryError> {
    let call = Call::get(&format!("logged-models/{model_id}"));
    let answer = registry.http.ask::<LoggedModelAnswer>(&call).await;
    let Some(answer) = registry.absent_as_none(answer).await? else { return Ok(None) };
    let mut latest = answer.latest(model_id).map_err(|invalid| registry.http.explain(&call, invalid))?;
    latest.retain(|name, _| !known.contains_key(name));
    let zeros = latest.values().filter(|logged| is_zero(logged.value));
    let runs: BTreeSet<String> = zeros.filter_map(|logged| logged.run_id.clone()).take(RUNS_MAX).collect();
    let mut of_runs = BTreeMap::new();
    for run in runs {
        let metrics = registry.metrics(&run).await?.unwrap_or_default();
        of_runs.insert(run, metrics);
    }
    let value = |logged: &Logged| {
        if !is_zero(logged.value) {
            return logged.value;
        }
        let of_run = logged.run_id.as_ref().and_then(|run| of_runs.get(run)?.get(&logged.key));
        match of_run {
            Some(metric) if metric.number().is_some() => logged.value,
            // NaN, or there is no telling.
            _ => Metric::new(f64::NAN),
        }
    };
    Ok(Some(latest.iter().map(|(name, logged)| (name.clone(), value(logged))).collect()))
}

fn is_zero(metric: Metric) -> bool {
    metric.number() == Some(0.0)
}
