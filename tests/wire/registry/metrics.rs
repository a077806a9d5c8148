//! The metrics of a run: what MLflow 3.17 answers to `runs/get`.

use std::collections::BTreeMap;

use laurel::{
    api::metric::Metric,
    registry::{Registry, RegistryError},
};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, matchers::any};

use super::support::{Exactly, absent, answer, in_workspace, ok, page, registry};

const RUN: &str = "e6c3fcacdb9e4a30a34fecb9ecea333f";

/// A run as MLflow tells of it, with these metrics.
fn run(metrics: &Value) -> Value {
    json!({ "run": {
        "info": {
            "run_uuid": RUN, "experiment_id": "1", "run_name": "iris-C1.0", "user_id": "root", "status": "FINISHED",
            "start_time": 1_795_308_502_924_i64, "end_time": 1_795_308_510_122_i64,
            "artifact_uri": format!("mlflow-artifacts:/1/{RUN}/artifacts"), "lifecycle_stage": "active", "run_id": RUN,
        },
        "data": { "metrics": metrics, "params": [{ "key": "C", "value": "1.0" }], "tags": [] },
        "inputs": {},
    } })
}

fn value(key: &str, value: impl Into<Value>) -> Value {
    json!({ "key": key, "value": value.into(), "timestamp": 1_795_308_509_807_i64, "step": 0 })
}

fn get() -> Exactly {
    Exactly::get("runs/get").query("run_id", RUN)
}

async fn read(body: &Value) -> Result<Option<BTreeMap<String, Metric>>, RegistryError> {
    let server = MockServer::start().await;
    answer(&server, get(), ok(body)).await;
    registry(&server.uri()).metrics(RUN).await
}

fn reported(metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    metrics.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[tokio::test]
async fn metrics_of_a_run_are_read_including_nan() {
    let metrics = json!([
        value("accuracy", 0.973_684_210_526_315_8),
        value("nan_metric", "NaN"),
        value("inf_metric", f64::MAX),
        value("count", 3),
    ]);
    let read = read(&run(&metrics)).await.unwrap().unwrap();
    let shown =
        ["accuracy=0.9736842105263158", "count=3", "inf_metric=1.7976931348623157e308", "nan_metric=NaN"];
    assert_eq!(reported(&read), shown);
    assert_eq!(read["nan_metric"].number(), None);
}

#[tokio::test]
async fn the_value_of_the_latest_step_counts() {
    let at = |step: i64, timestamp: i64, value: f64| json!({ "key": "auc", "value": value, "step": step, "timestamp": timestamp });
    let metrics = json!([at(2, 20, 0.8), at(3, 10, 0.9), at(1, 30, 0.7)]);
    assert_eq!(reported(&read(&run(&metrics)).await.unwrap().unwrap()), ["auc=0.9"]);
}

#[tokio::test]
async fn a_run_without_metrics_and_one_that_was_deleted_can_be_read() {
    for metrics in [Value::Null, json!([])] {
        assert_eq!(read(&run(&metrics)).await.unwrap(), Some(BTreeMap::new()));
    }
    let mut bare = run(&Value::Null);
    bare["run"].as_object_mut().unwrap().remove("data");
    bare["run"]["info"]["lifecycle_stage"] = json!("deleted");
    assert_eq!(read(&bare).await.unwrap(), Some(BTreeMap::new()));
}

#[tokio::test]
async fn only_a_purged_run_is_absent() {
    let server = MockServer::start().await;
    answer(&server, get(), absent(&format!("Run with id={RUN}"))).await;
    assert_eq!(registry(&server.uri()).metrics(RUN).await.unwrap(), None);
    server.reset().await;
    Mock::given(any()).respond_with(page(403, "text/html", "Permission denied")).mount(&server).await;
    let error = registry(&server.uri()).metrics(RUN).await.unwrap_err();
    assert!(matches!(error, RegistryError::Forbidden { .. }), "{error}");
    server.reset().await;
    Mock::given(any()).respond_with(absent("Workspace 'team-a'")).mount(&server).await;
    let error = in_workspace(&server.uri(), "team-a").metrics(RUN).await.unwrap_err();
    assert!(matches!(error, RegistryError::WorkspaceRefused { .. }), "{error}");
}

#[tokio::test]
async fn a_response_about_another_run_or_with_a_word_as_value_is_invalid() {
    let mut other = run(&json!([]));
    other["run"]["info"]["run_id"] = json!("another");
    for body in [other, run(&json!([value("auc", "good")])), json!({ "run": {} })] {
        let error = read(&body).await.unwrap_err();
        assert!(matches!(error, RegistryError::NotARegistry { .. }), "{error}");
    }
}
