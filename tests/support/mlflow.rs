//! MLflow's REST API, as another user of the same registry: it moves aliases by hand and registers versions,
//! good and bad ones.
//!
//! Requests go through the API server's proxy, so it works wherever kubectl works.

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use hyper::{Method, Request};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::cluster::Cluster;

/// The registry's URL inside the cluster.
pub(crate) const URL: &str = "http://mlflow.mlops.svc:5000";

/// The namespace and the name of its Service.
pub(crate) const SERVICE: (&str, &str) = ("mlops", "mlflow");

const REST: &str = "api/2.0/mlflow";
const ARTIFACTS: &str = "api/2.0/mlflow-artifacts/artifacts";

/// A client of the registry.
#[derive(Clone)]
pub(crate) struct Mlflow {
    client: Client,
}

impl Mlflow {
    pub(crate) async fn connect(cluster: &Cluster) -> Result<Self> {
        let mlflow = Self { client: cluster.client.clone() };
        let hint = "MLflow does not answer in the cluster: run `make cluster`";
        mlflow.get(&format!("{REST}/registered-models/search?max_results=1")).await.context(hint)?;
        Ok(mlflow)
    }

    /// The version that an alias names.
    pub(crate) async fn alias(&self, model: &str, alias: &str) -> Result<Option<String>> {
        let query = query(&[("name", model)]);
        let found = self.get(&format!("{REST}/registered-models/get?{query}")).await?;
        let aliases = found["registered_model"]["aliases"].as_array().cloned().unwrap_or_default();
        let it = aliases.into_iter().find(|each| each["alias"] == alias);
        Ok(it.and_then(|it| it["version"].as_str().map(str::to_owned)))
    }

    /// Lets an alias name a version.
    pub(crate) async fn set_alias(&self, model: &str, alias: &str, version: &str) -> Result<()> {
        let body = json!({ "name": model, "alias": alias, "version": version });
        self.send(Method::POST, &format!("{REST}/registered-models/alias"), &body).await.map(drop)
    }

    /// Removes an alias.
    pub(crate) async fn delete_alias(&self, model: &str, alias: &str) -> Result<()> {
        let body = json!({ "name": model, "alias": alias });
        self.send(Method::DELETE, &format!("{REST}/registered-models/alias"), &body).await.map(drop)
    }

    /// Registers a new model without versions; one of that name goes first.
    pub(crate) async fn fresh_model(&self, name: &str) -> Result<()> {
        self.delete_model(name).await?;
        self.send(Method::POST, &format!("{REST}/registered-models/create"), &json!({ "name": name }))
            .await
            .map(drop)
    }

    /// Deletes a model with its versions, if it is there.
    pub(crate) async fn delete_model(&self, name: &str) -> Result<()> {
        let path = format!("{REST}/registered-models/delete");
        let (status, text) =
            self.call(Method::DELETE, &path, json!({ "name": name }).to_string().into()).await?;
        ensure!(status == 200 || status == 404, "DELETE {path}: {status} {}", String::from_utf8_lossy(&text));
        Ok(())
    }

    /// Registers a version of `model` that is the same logged model, of the same run, as a version of another
    /// one; its number.
    pub(crate) async fn copy_version(&self, from: (&str, &str), model: &str) -> Result<String> {
        let facts = self.version_facts(from).await?;
        let source = facts["source"].as_str().context("a version has a source")?;
        let (model_id, run) = (source.strip_prefix("models:/"), &facts["run_id"]);
        self.create_version(json!({ "name": model, "source": source, "model_id": model_id, "run_id": run }))
            .await
    }

    /// Sets a tag of a version.
    pub(crate) async fn set_version_tag(&self, of: (&str, &str), key: &str, value: &str) -> Result<()> {
        let body = json!({ "name": of.0, "version": of.1, "key": key, "value": value });
        self.send(Method::POST, &format!("{REST}/model-versions/set-tag"), &body).await.map(drop)
    }

    /// Deletes a tag of a version.
    pub(crate) async fn delete_version_tag(&self, of: (&str, &str), key: &str) -> Result<()> {
        let body = json!({ "name": of.0, "version": of.1, "key": key });
        self.send(Method::DELETE, &format!("{REST}/model-versions/delete-tag"), &body).await.map(drop)
    }

    /// Registers a version whose artifacts cannot be loaded; its number. MLflow checks no source.
    pub(crate) async fn version_from_nowhere(&self, model: &str) -> Result<String> {
        self.create_version(json!({ "name": model, "source": "s3://nowhere/model" })).await
    }

    /// Registers a version with the files of a version of another model, except that `replaced` has other
    /// content; its number.
    pub(crate) async fn altered_version(
        &self,
        from: (&str, &str),
        model: &str,
        replaced: (&str, &str),
    ) -> Result<String> {
        let origin = self.logged_model(&self.model_id(from).await?).await?;
        let experiment = &origin["info"]["experiment_id"];
        let created = json!({ "experiment_id": experiment, "name": "altered" });
        let created = self.send(Method::POST, &format!("{REST}/logged-models"), &created).await?;
        let info = &created["model"]["info"];
        let model_id = info["model_id"].as_str().context("a logged model has an id")?;
        let (old, new) = (artifact_path(&origin["info"])?, artifact_path(info)?);
        self.copy_files(&old, &new, replaced).await?;
        let ready = json!({ "status": "LOGGED_MODEL_READY", "model_id": model_id });
        self.send(Method::PATCH, &format!("{REST}/logged-models/{model_id}"), &ready).await?;
        let source = format!("models:/{model_id}");
        self.create_version(json!({ "name": model, "source": source, "model_id": model_id })).await
    }

    async fn copy_files(&self, from: &str, to: &str, replaced: (&str, &str)) -> Result<()> {
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let path = format!("{from}{folder}");
            let listed = self.get(&format!("{ARTIFACTS}?{}", query(&[("path", &path)]))).await?;
            for file in listed["files"].as_array().into_iter().flatten() {
                let name = file["path"].as_str().context("a file has a path")?;
                // Paths are relative to the folder that is listed.
                let name = format!("{folder}/{}", name.rsplit('/').next().unwrap_or(name));
                if file["is_dir"] == true {
                    folders.push(name);
                    continue;
                }
                let content = if name == format!("/{}", replaced.0) {
                    replaced.1.into()
                } else {
                    self.bytes(&format!("{ARTIFACTS}/{from}{name}")).await?
                };
                let (status, text) =
                    self.call(Method::PUT, &format!("{ARTIFACTS}/{to}{name}"), content).await?;
                ensure!(status == 200, "PUT {name}: {status} {}", String::from_utf8_lossy(&text));
            }
        }
        Ok(())
    }

    /// A file of a version.
    pub(crate) async fn artifact(&self, (model, version): (&str, &str), path: &str) -> Result<Vec<u8>> {
        let query = query(&[("name", model), ("version", version), ("path", path)]);
        self.bytes(&format!("model-versions/get-artifact?{query}")).await
    }

    /// A tag of a version.
    pub(crate) async fn version_facts(&self, (model, version): (&str, &str)) -> Result<Value> {
        let query = query(&[("name", model), ("version", version)]);
        Ok(self.get(&format!("{REST}/model-versions/get?{query}")).await?["model_version"].take())
    }

    async fn source(&self, of: (&str, &str)) -> Result<String> {
        let facts = self.version_facts(of).await?;
        facts["source"].as_str().map(str::to_owned).context("a version has a source")
    }

    async fn model_id(&self, of: (&str, &str)) -> Result<String> {
        let source = self.source(of).await?;
        source.strip_prefix("models:/").map(str::to_owned).context("the version is no logged model")
    }

    async fn logged_model(&self, id: &str) -> Result<Value> {
        Ok(self.get(&format!("{REST}/logged-models/{id}")).await?["model"].take())
    }

    async fn create_version(&self, body: Value) -> Result<String> {
        let created = self.send(Method::POST, &format!("{REST}/model-versions/create"), &body).await?;
        created["model_version"]["version"].as_str().map(str::to_owned).context("a version has a number")
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.bytes(path).await?)?)
    }

    async fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let (status, content) = self.call(Method::GET, path, Vec::new()).await?;
        ensure!(status == 200, "GET {path}: {status} {}", String::from_utf8_lossy(&content));
        Ok(content)
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let (status, text) = self.call(method.clone(), path, body.to_string().into()).await?;
        ensure!(status == 200, "{method} {path} {body}: {status} {}", String::from_utf8_lossy(&text));
        Ok(serde_json::from_slice(&text)?)
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>)> {
        let (namespace, service) = SERVICE;
        let uri = format!("/api/v1/namespaces/{namespace}/services/{service}:5000/proxy/{path}");
        let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let response = self.client.send(request.body(Body::from(body))?).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes().into()))
    }
}

/// Where a logged model's files are behind the artifact proxy.
fn artifact_path(info: &Value) -> Result<String> {
    let uri = info["artifact_uri"].as_str().context("a logged model has an artifact_uri")?;
    let path =
        uri.strip_prefix("mlflow-artifacts:/").with_context(|| format!("{uri} is not behind the proxy"))?;
    Ok(path.trim_matches('/').to_owned())
}

fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
