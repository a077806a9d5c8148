//! The metrics of a logged model: what MLflow 3.17 answers to `logged-models/{id}`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use laurel::{
    api::{condition::Reason, metric::Metric, names::Version},
    registry::{
        Registry, RegistryError,
        limiter::Limits,
        polled::{PolledRegistry, Registries, RegistryKey, Settings},
    },
    render::RegistryForPods,
};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use wiremock::MockServer;

use super::support::{Exactly, absent, answer, model, ok, page, registry};

const ID: &str = "m-bc7c332e91bc4c47a6ab921f8590913a";
const RUN: &str = "e6c3fcacdb9e4a30a34fecb9ecea333f";

fn value(key: &str, value: impl Into<Value>, step: i64) -> Value {
    json!({
        "key": key, "value": value.into(), "timestamp": 1_795_308_509_807_i64, "step": step, "model_id": ID, "run_id": RUN,
    })
}

fn logged_model(metrics: &Value) -> Value {
    json!({ "model": {
        "info": {
            "model_id": ID, "experiment_id": "1", "name": "model", "creation_timestamp_ms": 1_795_308_503_214_i64,
            "artifact_uri": format!("mlflow-artifacts:/1/models/{ID}/artifacts"), "status": "LOGGED_MODEL_READY",
            "source_run_id": RUN, "tags": [],
        },
        "data": { "params": [{ "key": "C", "value": "1.0" }], "metrics": metrics },
    } })
}

fn run(metrics: &Value) -> Value {
    json!({ "run": { "info": { "run_id": RUN }, "data": { "metrics": metrics } } })
}

fn get() -> Exactly {
    Exactly::get(&format!("logged-models/{ID}"))
}

fn get_run() -> Exactly {
    Exactly::get("runs/get").query("run_id", RUN)
}

async fn read(server: &MockServer, known: &[&str]) -> Result<Option<Vec<String>>, RegistryError> {
    let known: BTreeMap<String, Metric> =
        known.iter().map(|name| ((*name).to_owned(), Metric::new(1.0))).collect();
    let read = registry(&server.uri()).logged_model_metrics(ID, &known).await?;
    Ok(read.map(|read| read.iter().map(|(name, value)| format!("{name}={value}")).collect()))
}

#[tokio::test]
async fn a_logged_model_has_its_latest_metrics() {
    let server = MockServer::start().await;
    let metrics =
        json!([value("auc", 0.8, 1), value("auc", 0.9, 2), value("auc", 0.7, 0), value("p99", 41, 0)]);
    answer(&server, get(), ok(&logged_model(&metrics))).await;
    assert_eq!(read(&server, &[]).await.unwrap().unwrap(), ["auc=0.9", "p99=41"]);
    server.reset().await;
    answer(&server, get(), ok(&logged_model(&metrics))).await;
    assert_eq!(read(&server, &["auc"]).await.unwrap().unwrap(), ["p99=41"]);
}

/// MLflow keeps 0 in a logged model for what is NaN in the run. A limit like `max: 50` must not take it for
/// good.
#[tokio::test]
async fn a_zero_counts_only_if_the_run_that_logged_it_has_a_number() {
    let server = MockServer::start().await;
    let metrics = json!([value("errors", 0.0, 0), value("p99", 0.0, 0), value("gone", 0.0, 0)]);
    answer(&server, get(), ok(&logged_model(&metrics))).await;
    let of_run = json!([{ "key": "errors", "value": 0.0 }, { "key": "p99", "value": "NaN" }]);
    answer(&server, get_run(), ok(&run(&of_run))).await;
    assert_eq!(read(&server, &[]).await.unwrap().unwrap(), ["errors=0", "gone=NaN", "p99=NaN"]);
}

#[tokio::test]
async fn a_logged_model_that_was_deleted_is_absent_and_an_old_server_is_no_proof_of_that() {
    let server = MockServer::start().await;
    answer(&server, get(), absent(&format!("Logged model with ID '{ID}'"))).await;
    assert_eq!(read(&server, &[]).await.unwrap(), None);
    server.reset().await;
    answer(&server, get(), page(404, "text/html", "<title>404 Not Found</title>")).await;
    let error = read(&server, &[]).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotARegistry { .. }), "{error}");
    server.reset().await;
    let mut other = logged_model(&json!([]));
    other["model"]["info"]["model_id"] = json!("m-other");
    answer(&server, get(), ok(&other)).await;
    let error = read(&server, &[]).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotARegistry { .. }), "{error}");
}

fn polled(server: &MockServer) -> Arc<PolledRegistry> {
    let url: url::Url = server.uri().parse().unwrap();
    let settings = Settings {
        url: url.clone(),
        workspace: None,
        poll_interval: Duration::from_secs(30),
        limits: Limits::default(),
        pods: RegistryForPods { tracking_uri: url, workspace: None, ca: None, env_from: Vec::new() },
    };
    let (polled, _) =
        Registries::default().set(&RegistryKey::Cluster { name: "mlflow".to_owned() }, settings);
    polled.set_client(Ok(Arc::new(registry(&server.uri()))));
    polled
}

async fn version(server: &MockServer, run_id: &str, source: &str) {
    let version = json!({ "model_version": {
        "name": "fraud", "version": "3", "creation_timestamp": 1, "run_id": run_id, "source": source, "status": "READY",
    } });
    let get = Exactly::get("model-versions/get").query("name", "fraud").query("version", "3");
    answer(server, get, ok(&version)).await;
}

#[tokio::test]
async fn a_version_without_a_run_has_the_metrics_of_its_logged_model() {
    let server = MockServer::start().await;
    version(&server, "", &format!("models:/{ID}")).await;
    answer(&server, get(), ok(&logged_model(&json!([value("auc", 0.9, 0)])))).await;
    let three = Version::new(3).unwrap();
    let evidence = polled(&server).evidence(&model("fraud"), three).await.unwrap().unwrap();
    let metrics = evidence.metrics.unwrap();
    assert_eq!(metrics.value("auc"), Ok(Some(Metric::new(0.9))));
    assert!(metrics.of_logged_model.contains("auc"));
}

#[tokio::test]
async fn the_run_comes_first_and_without_the_logged_model_only_what_it_lacks_is_unknown() {
    let server = MockServer::start().await;
    version(&server, RUN, &format!("models:/{ID}")).await;
    answer(&server, get_run(), ok(&run(&json!([{ "key": "auc", "value": 0.5 }])))).await;
    answer(&server, get(), ok(&logged_model(&json!([value("auc", 0.9, 0), value("f1", 0.8, 0)])))).await;
    let three = Version::new(3).unwrap();
    let evidence = polled(&server).evidence(&model("fraud"), three).await.unwrap().unwrap();
    let metrics = evidence.metrics.unwrap();
    assert_eq!(metrics.value("auc"), Ok(Some(Metric::new(0.5))));
    assert_eq!(metrics.value("f1"), Ok(Some(Metric::new(0.8))));
    assert_eq!(metrics.of_logged_model.iter().collect::<Vec<_>>(), ["f1"]);

    server.reset().await;
    version(&server, RUN, &format!("models:/{ID}")).await;
    answer(&server, get_run(), ok(&run(&json!([{ "key": "auc", "value": 0.5 }])))).await;
    answer(&server, get(), page(502, "text/html", "bad gateway")).await;
    let evidence = polled(&server).evidence(&model("fraud"), three).await.unwrap().unwrap();
    let metrics = evidence.metrics.unwrap();
    assert_eq!(metrics.value("auc"), Ok(Some(Metric::new(0.5))));
    assert_eq!(metrics.value("f1").unwrap_err().reason, Reason::RegistryFailing);
}

#[tokio::test]
async fn a_login_that_may_read_the_model_but_not_its_runs_is_told_which_permission_it_lacks() {
    let server = MockServer::start().await;
    version(&server, RUN, "").await;
    answer(&server, get_run(), page(403, "text/html", "Permission denied")).await;
    let three = Version::new(3).unwrap();
    let evidence = polled(&server).evidence(&model("fraud"), three).await.unwrap().unwrap();
    let cause = evidence.metrics.unwrap_err();
    assert_eq!(cause.reason, Reason::RegistryForbidden);
    let parts = [format!("the run {RUN} of version 3"), "may read the model but not its metrics".to_owned()];
    for part in parts.iter().map(String::as_str).chain(["permission to read the experiment", "HTTP 403"]) {
        assert!(cause.message.contains(part), "{part:?} is missing: {}", cause.message);
    }
}
