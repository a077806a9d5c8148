//! MLflow's JSON of a run: the part with its metrics.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::json::InvalidPayload;
use crate::api::metric::Metric;

#[derive(Debug, Deserialize)]
pub(super) struct RunAnswer {
    run: Run,
}

#[derive(Debug, Deserialize)]
struct Run {
    info: Info,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Info {
    run_id: String,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    metrics: Option<Vec<Logged>>,
}

/// One value of a metric. MLflow returns one per name; another server may return more.
#[derive(Debug, Deserialize)]
struct Logged {
    key: String,
    value: Metric,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    step: Option<i64>,
}

impl RunAnswer {
    /// Returns the latest value of each metric, if the answer is about the requested run.
    pub(super) fn metrics_of(self, run_id: &str) -> Result<BTreeMap<String, Metric>, InvalidPayload> {
        if self.run.info.run_id != run_id {
            return Err(InvalidPayload::RawAnswer(format!(
                "requested run {run_id:?}, but it returned {:?}",
                self.run.info.run_id
            )));
        }
        let mut values = self.run.data.metrics.unwrap_or_default();
        // MLflow itself prefers the largest step, then the latest time, then the largest value.
        values.sort_by_key(|value| (value.step, value.timestamp, value.value));
        Ok(values.into_iter().map(|value| (value.key, value.value)).collect())
    }
}
