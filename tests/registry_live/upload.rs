#![expect(
    clippy::disallowed_types,
    reason = "effects: training jobs write versions over HTTP, and so does this"
)]
//! Creates logged models and versions, as training jobs do.

use laurel::api::names::ModelName;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use url::Url;

pub(crate) struct Upload {
    client: Client,
    base: Url,
}

impl Upload {
    pub(crate) fn new(base: &Url) -> Self {
        Self { client: Client::new(), base: base.clone() }
    }

    /// Registers a version with this `source`.
    pub(crate) async fn version(&self, name: &ModelName, source: &str) {
        self.json("mlflow/model-versions/create", &json!({ "name": name, "source": source })).await;
    }

    /// Logs a model with these files and registers it as a version. Returns its `models:/m-…` URI.
    pub(crate) async fn logged_model(&self, name: &ModelName, files: &[(&str, &str)]) -> String {
        let experiment = json!({ "experiment_id": "0", "name": "laurel" });
        let logged = self.json("mlflow/logged-models", &experiment).await;
        let info = &logged["model"]["info"];
        let (id, place) = (info["model_id"].as_str().unwrap(), info["artifact_uri"].as_str().unwrap());
        let folder = place.strip_prefix("mlflow-artifacts:/").expect("the server has to serve artifacts");
        for (path, content) in files {
            let url = format!("mlflow-artifacts/artifacts/{folder}/{path}");
            send(self.request(Method::PUT, &url).body((*content).to_owned())).await;
        }
        let uri = format!("models:/{id}");
        let version = json!({ "name": name, "source": uri, "model_id": id });
        self.json("mlflow/model-versions/create", &version).await;
        uri
    }

    async fn json(&self, path: &str, body: &Value) -> Value {
        serde_json::from_str(&send(self.request(Method::POST, path).json(body)).await).unwrap()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let base = self.base.as_str().trim_end_matches('/');
        self.client.request(method, format!("{base}/api/2.0/{path}"))
    }
}

async fn send(request: RequestBuilder) -> String {
    let response = request.send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
    text
}
