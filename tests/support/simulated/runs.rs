//! MLflow runs as training jobs write them: metrics, and versions produced by a run.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use super::mlflow::Mlflow;

impl Mlflow {
    /// Registers the next version of a model, produced by a run with these metrics. Returns its number and
    /// the run.
    pub(crate) async fn register_run(
        &self,
        model: &str,
        metrics: &[(&str, f64)],
    ) -> Result<(String, String)> {
        let body = json!({ "experiment_id": self.experiment().await?, "start_time": 1_800_000_000_000_i64 });
        let made = self.send(Method::POST, "runs/create", &body).await?;
        let run = made["run"]["info"]["run_id"].as_str().context("a run has an id")?.to_owned();
        for (key, value) in metrics {
            self.log_metric(&run, key, *value).await?;
        }
        let body = json!({ "name": model, "source": "s3://nowhere/model", "run_id": run });
        let made = self.send(Method::POST, "model-versions/create", &body).await?;
        let version = made["model_version"]["version"].as_str().context("a version has a number")?;
        Ok((version.to_owned(), run))
    }

    /// The experiment of all runs: a workspace has none from the beginning.
    async fn experiment(&self) -> Result<String> {
        const NAME: &str = "tests";
        let find = format!("experiments/get-by-name?experiment_name={NAME}");
        if let Ok(found) = self.get(&find).await {
            return found["experiment"]["experiment_id"].as_str().map(str::to_owned).context("it has an id");
        }
        // Another test may have created it in the meantime.
        let _ = self.send(Method::POST, "experiments/create", &json!({ "name": NAME })).await;
        let found = self.get(&find).await?;
        found["experiment"]["experiment_id"].as_str().map(str::to_owned).context("it has an id")
    }

    /// Logs a metric of a run, which may be NaN.
    pub(crate) async fn log_metric(&self, run: &str, key: &str, value: f64) -> Result<()> {
        // JSON has no other representation.
        let value = if value.is_nan() { json!("NaN") } else { json!(value) };
        let timestamp = jiff::Timestamp::now().as_millisecond();
        let body = json!({ "run_id": run, "key": key, "value": value, "timestamp": timestamp, "step": 0 });
        self.send(Method::POST, "runs/log-metric", &body).await.map(drop)
    }

    /// Sets a tag of a version.
    pub(crate) async fn set_version_tag(&self, of: (&str, &str), key: &str, value: &str) -> Result<()> {
        let body = json!({ "name": of.0, "version": of.1, "key": key, "value": value });
        self.send(Method::POST, "model-versions/set-tag", &body).await.map(drop)
    }

    /// Describes a version.
    pub(crate) async fn describe_version(&self, of: (&str, &str), text: &str) -> Result<()> {
        let body: Value = json!({ "name": of.0, "version": of.1, "description": text });
        self.send(Method::PATCH, "model-versions/update", &body).await.map(drop)
    }
}
