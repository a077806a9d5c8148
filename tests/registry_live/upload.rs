#![expect(
    clippy::disallowed_types,
    reason = "effects: training jobs write versions over HTTP, and so does this"
)]
//! Creates runs, logged models and versions, as training jobs do.

use laurel::api::names::ModelName;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    server::{ADMIN, Server},
    unique,
};

pub(crate) struct Upload {
    client: Client,
    server: Server,
}

impl Upload {
    pub(crate) fn new() -> Self {
        Self { client: Client::new(), server: Server::get() }
    }

    /// Registers a version with this `source`.
    pub(crate) async fn version(&self, name: &ModelName, source: &str) {
        self.json("mlflow/model-versions/create", &json!({ "name": name, "source": source })).await;
    }

    /// Registers a version that a run created. Returns the run.
    pub(crate) async fn version_of_run(&self, name: &ModelName, metrics: &[(&str, Value)]) -> String {
        let (run, _) = self.run().await;
        for (key, value) in metrics {
            let body = json!({ "run_id": run, "key": key, "value": value, "timestamp": 1, "step": 0 });
            self.json("mlflow/runs/log-metric", &body).await;
        }
        let version = json!({ "name": name, "source": "s3://nowhere/model", "run_id": run });
        self.json("mlflow/model-versions/create", &version).await;
        run
    }

    /// Uploads a model with these files and registers it as a version: as a logged model where the server has
    /// them, otherwise as files of a run. Returns the URI by which Laurel lets it be loaded.
    pub(crate) async fn model(&self, name: &ModelName, number: u32, files: &[(&str, &str)]) -> String {
        if !self.server.has_logged_models() {
            let (run, place) = self.run().await;
            let source = format!("{place}/model");
            self.files(&source, files).await;
            let version = json!({ "name": name, "source": source, "run_id": run });
            self.json("mlflow/model-versions/create", &version).await;
            return format!("models:/{name}/{number}");
        }
        let experiment = json!({ "experiment_id": self.experiment().await, "name": "laurel" });
        let logged = self.json("mlflow/logged-models", &experiment).await;
        let info = &logged["model"]["info"];
        let (id, place) = (info["model_id"].as_str().unwrap(), info["artifact_uri"].as_str().unwrap());
        self.files(place, files).await;
        let uri = format!("models:/{id}");
        let version = json!({ "name": name, "source": uri, "model_id": id });
        self.json("mlflow/model-versions/create", &version).await;
        uri
    }

    /// Creates a run. Returns its id and where its files are.
    async fn run(&self) -> (String, String) {
        let body = json!({ "experiment_id": self.experiment().await, "start_time": 1_800_000_000_000_i64 });
        let made = self.json("mlflow/runs/create", &body).await;
        let info = &made["run"]["info"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&info["run_id"]), text(&info["artifact_uri"]))
    }

    /// Creates an experiment. A workspace has none from the beginning.
    async fn experiment(&self) -> String {
        let made = self.json("mlflow/experiments/create", &json!({ "name": unique("experiment") })).await;
        made["experiment_id"].as_str().unwrap().to_owned()
    }

    async fn files(&self, place: &str, files: &[(&str, &str)]) {
        let folder = place.strip_prefix("mlflow-artifacts:/").expect("the server has to serve artifacts");
        for (path, content) in files {
            let url = format!("mlflow-artifacts/artifacts/{folder}/{path}");
            send(self.request(Method::PUT, &url).body((*content).to_owned())).await;
        }
    }

    async fn json(&self, path: &str, body: &Value) -> Value {
        serde_json::from_str(&send(self.request(Method::POST, path).json(body)).await).unwrap()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let base = self.server.url.as_str().trim_end_matches('/');
        let mut request = self.client.request(method, format!("{base}/api/2.0/{path}"));
        if let Some(password) = &self.server.password {
            request = request.basic_auth(ADMIN, Some(password));
        }
        if let Some(workspace) = &self.server.workspace {
            request = request.header("X-MLFLOW-WORKSPACE", workspace);
        }
        request
    }
}

async fn send(request: RequestBuilder) -> String {
    let response = request.send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
    text
}
