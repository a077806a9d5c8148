//! A real MLflow server as a process, and its REST API as another user.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_URL_SAFE};
use parking_lot::Mutex;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use url::form_urlencoded;

use super::{
    machine::{free_port, repository},
    process::Process,
};

/// An MLflow server. It accepts `127.0.0.1` as its host name, and no other.
pub(crate) struct Mlflow {
    pub(crate) port: u16,
    pub(crate) access: Access,
    http: Client,
    process: Mutex<Option<Process>>,
}

/// What a server requires of its clients.
#[derive(Clone, Default)]
pub(crate) struct Access {
    /// The password of the user [`ADMIN`].
    pub(crate) password: Option<String>,
    pub(crate) workspace: Option<String>,
}

/// The user who may do everything.
pub(crate) const ADMIN: &str = "admin";

impl Mlflow {
    /// Starts a server with an empty registry, and waits until it answers.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let log = folder.join("mlflow.log");
        let mut server = Command::new(program()?);
        server.args(["server", "--host", "127.0.0.1", "--workers", "1"]);
        server.args(["--allowed-hosts", "127.0.0.1:*"]);
        server.args(["--port", &port.to_string()]);
        server.args(["--backend-store-uri", &format!("sqlite:///{}", folder.join("mlflow.db").display())]);
        server.args(["--serve-artifacts", "--artifacts-destination"]).arg(folder.join("artifacts"));
        server.envs([("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false"), ("MLFLOW_DISABLE_TELEMETRY", "true")]);
        server.envs(webhooks()?);
        let process = Process::start(&mut server, &log)?;
        let mlflow = Self::new(port, Access::default(), process)?;
        let began = Instant::now();
        while mlflow.get("registered-models/search?max_results=1").await.is_err() {
            let reported = || std::fs::read_to_string(&log).unwrap_or_default();
            ensure!(began.elapsed() < Duration::from_secs(90), "MLflow does not answer: {}", reported());
            sleep(Duration::from_millis(200)).await;
        }
        Ok(mlflow)
    }

    /// Starts one of `tests/rig/rig mlflow-servers`, installed if it is missing, and waits until it answers.
    /// Whoever starts it also [stops](Self::stop) it.
    pub(crate) async fn start_server(name: &str, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let log = folder.join("mlflow.log");
        let mut server = Command::new(repository().join("tests/rig/rig"));
        server.args(["mlflow-serve", name, &port.to_string()]);
        // What it leaves behind when it is killed is deleted with the folder.
        server.env("TMPDIR", folder);
        let process = Process::start(&mut server, &log)?;
        let began = Instant::now();
        loop {
            let reported = std::fs::read_to_string(&log)?;
            let described = reported.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(server) = described {
                let text = |key: &str| server[key].as_str().map(str::to_owned);
                let access = Access {
                    password: text("LAUREL_TEST_MLFLOW_PASSWORD"),
                    workspace: text("LAUREL_TEST_MLFLOW_WORKSPACE"),
                };
                return Self::new(port, access, process);
            }
            // Installing it takes the most.
            ensure!(began.elapsed() < Duration::from_mins(8), "MLflow {name} does not answer: {reported}");
            ensure!(!reported.contains("rig: "), "MLflow {name} cannot be started: {reported}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn new(port: u16, access: Access, process: Process) -> Result<Self> {
        let http = Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
        Ok(Self { port, access, http, process: Mutex::new(Some(process)) })
    }

    /// Stops it.
    pub(crate) async fn stop(&self) -> Result<()> {
        let process = self.process.lock().take();
        // It ends its own server first, and a database.
        process.context("it was stopped before")?.terminate(Duration::from_mins(1)).await.map(drop)
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The process group of the server and its workers.
    pub(crate) fn process_group(&self) -> Option<u32> {
        self.process.lock().as_ref().map(Process::group)
    }

    /// The webhooks of this server.
    pub(crate) async fn webhooks(&self) -> Result<Vec<Value>> {
        let found = self.get("webhooks?max_results=100").await?;
        Ok(found["webhooks"].as_array().cloned().unwrap_or_default())
    }

    /// Registers a webhook for moved aliases. Returns its id.
    pub(crate) async fn create_webhook(&self, name: &str, url: &str, secret: &str) -> Result<String> {
        let events = [json!({ "entity": "MODEL_VERSION_ALIAS", "action": "CREATED" })];
        let body = json!({ "name": name, "url": url, "secret": secret, "events": events });
        let made = self.send(Method::POST, "webhooks", &body).await?;
        made["webhook"]["webhook_id"].as_str().map(str::to_owned).context("a webhook has an id")
    }

    /// Deletes a webhook.
    pub(crate) async fn delete_webhook(&self, id: &str) -> Result<()> {
        self.send(Method::DELETE, &format!("webhooks/{id}"), &json!({})).await.map(drop)
    }

    /// Registers a model without versions.
    pub(crate) async fn create_model(&self, name: &str) -> Result<()> {
        self.send(Method::POST, "registered-models/create", &json!({ "name": name })).await.map(drop)
    }

    /// Returns a model; `None` if there is none.
    pub(crate) async fn model(&self, name: &str) -> Result<Option<Value>> {
        let found = self.call(Method::GET, &format!("registered-models/get?name={name}"), None).await?;
        ensure!([200, 404].contains(&found.0), "{found:?}");
        Ok((found.0 == 200).then(|| found.1["registered_model"].clone()))
    }

    /// The tags of a model.
    pub(crate) async fn tags(&self, name: &str) -> Result<Value> {
        let model = self.model(name).await?.context("no such model")?;
        let tags = model["tags"].as_array().cloned().unwrap_or_default();
        let pair = |tag: Value| (tag["key"].as_str().unwrap_or_default().to_owned(), tag["value"].clone());
        Ok(Value::Object(tags.into_iter().map(pair).collect()))
    }

    /// Sets a tag of a model.
    pub(crate) async fn set_tag(&self, name: &str, key: &str, value: &str) -> Result<()> {
        let body = json!({ "name": name, "key": key, "value": value });
        self.send(Method::POST, "registered-models/set-tag", &body).await.map(drop)
    }

    /// The tags of a version.
    pub(crate) async fn version_tags(&self, model: &str, version: &str) -> Result<BTreeMap<String, String>> {
        let found = self.get(&format!("model-versions/get?name={model}&version={version}")).await?;
        let tags = found["model_version"]["tags"].as_array().into_iter().flatten();
        Ok(tags.map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect())
    }

    /// The tags of all versions of a model.
    pub(crate) async fn tags_of_versions(
        &self,
        model: &str,
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("filter", &format!("name = '{model}'"))
            .append_pair("max_results", "1000")
            .finish();
        let found = self.get(&format!("model-versions/search?{query}")).await?;
        let versions = found["model_versions"].as_array().into_iter().flatten();
        let tags = |version: &Value| {
            let tags = version["tags"].as_array().into_iter().flatten();
            tags.map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect()
        };
        Ok(versions.map(|version| (text(&version["version"]), tags(version))).collect())
    }

    /// Registers the next version of a model. MLflow does not check that its source exists.
    pub(crate) async fn register(&self, model: &str) -> Result<String> {
        let body = json!({ "name": model, "source": "s3://nowhere/model" });
        let made = self.send(Method::POST, "model-versions/create", &body).await?;
        made["model_version"]["version"].as_str().map(str::to_owned).context("a version has a number")
    }

    /// Registers the next version of a model as a new logged model, which is the version's source.
    pub(crate) async fn register_logged(&self, model: &str) -> Result<String> {
        let logged = json!({ "experiment_id": "0", "name": "logged" });
        let logged = self.send(Method::POST, "logged-models", &logged).await?;
        let id = logged["model"]["info"]["model_id"].as_str().context("a logged model has an id")?;
        let body = json!({ "name": model, "source": format!("models:/{id}"), "model_id": id });
        let made = self.send(Method::POST, "model-versions/create", &body).await?;
        made["model_version"]["version"].as_str().map(str::to_owned).context("a version has a number")
    }

    /// Deletes a model with its versions and aliases.
    pub(crate) async fn delete_model(&self, name: &str) -> Result<()> {
        self.send(Method::DELETE, "registered-models/delete", &json!({ "name": name })).await.map(drop)
    }

    /// Renames a model; it keeps its versions and aliases.
    pub(crate) async fn rename_model(&self, name: &str, new_name: &str) -> Result<()> {
        let body = json!({ "name": name, "new_name": new_name });
        self.send(Method::POST, "registered-models/rename", &body).await.map(drop)
    }

    /// Deletes a version, and the aliases that name it.
    pub(crate) async fn delete_version(&self, model: &str, version: &str) -> Result<()> {
        let body = json!({ "name": model, "version": version });
        self.send(Method::DELETE, "model-versions/delete", &body).await.map(drop)
    }

    /// The version that an alias names.
    pub(crate) async fn alias(&self, model: &str, alias: &str) -> Result<Option<String>> {
        let model = self.model(model).await?.context("no such model")?;
        let aliases = model["aliases"].as_array().cloned().unwrap_or_default();
        let it = aliases.into_iter().find(|each| each["alias"] == alias);
        Ok(it.and_then(|it| it["version"].as_str().map(str::to_owned)))
    }

    /// Returns the version that an alias names in each of these models, in one request. Missing models are
    /// left out.
    pub(crate) async fn aliases(
        &self,
        models: &[String],
        alias: &str,
    ) -> Result<BTreeMap<String, Option<String>>> {
        let quoted = models.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("filter", &format!("name IN ({quoted})"))
            .append_pair("max_results", "1000")
            .finish();
        let found = self.get(&format!("registered-models/search?{query}")).await?;
        let named = |model: &Value| {
            let mut aliases = model["aliases"].as_array().into_iter().flatten();
            let version = aliases.find(|each| each["alias"] == alias).map(|it| &it["version"]);
            (text(&model["name"]), version.map(text))
        };
        Ok(found["registered_models"].as_array().into_iter().flatten().map(named).collect())
    }

    /// Sets an alias to a version.
    pub(crate) async fn set_alias(&self, model: &str, alias: &str, version: &str) -> Result<()> {
        let body = json!({ "name": model, "alias": alias, "version": version });
        self.send(Method::POST, "registered-models/alias", &body).await.map(drop)
    }

    /// Deletes an alias.
    pub(crate) async fn delete_alias(&self, model: &str, alias: &str) -> Result<()> {
        let body = json!({ "name": model, "alias": alias });
        self.send(Method::DELETE, "registered-models/alias", &body).await.map(drop)
    }

    /// Moves a version to a stage, as was done before there were aliases.
    pub(crate) async fn transition_stage(&self, model: &str, version: &str, stage: &str) -> Result<()> {
        let body =
            json!({ "name": model, "version": version, "stage": stage, "archive_existing_versions": false });
        self.send(Method::POST, "model-versions/transition-stage", &body).await.map(drop)
    }

    /// The stage of a version.
    pub(crate) async fn stage(&self, model: &str, version: &str) -> Result<String> {
        let found = self.get(&format!("model-versions/get?name={model}&version={version}")).await?;
        Ok(text(&found["model_version"]["current_stage"]))
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.call(Method::GET, path, None).await?;
        ensure!(status == 200, "GET {path}: {status} {body}");
        Ok(body)
    }

    pub(super) async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.call(method.clone(), path, Some(body)).await?;
        ensure!(status == 200, "{method} {path} {body}: {status} {answer}");
        Ok(answer)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let mut request = self.http.request(method, format!("{}/api/2.0/mlflow/{path}", self.url()));
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(password) = &self.access.password {
            request = request.basic_auth(ADMIN, Some(password));
        }
        if let Some(workspace) = &self.access.workspace {
            request = request.header("X-MLFLOW-WORKSPACE", workspace);
        }
        let answer = request.timeout(Duration::from_secs(20)).send().await?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await.unwrap_or_default()))
    }
}

/// The environment of a server that delivers webhooks to this machine, with a unique key.
fn webhooks() -> Result<[(&'static str, String); 4]> {
    let mut key = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok([
        ("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", BASE64_URL_SAFE.encode(key)),
        ("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https".to_owned()),
        ("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true".to_owned()),
        // By default it caches its webhooks for a minute, and a new webhook would miss events.
        ("MLFLOW_WEBHOOK_CACHE_TTL", "1".to_owned()),
    ])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn program() -> Result<PathBuf> {
    let program = repository().join(".cluster/bin/mlflow");
    ensure!(program.exists(), "there is no MLflow for this machine: run `tests/rig/rig mlflow-venv`");
    Ok(program)
}
