//! The MLflow backend: the REST API of MLflow 2 and 3, `registered-models/*` and `model-versions/*`.
//!
//! ```text
//! MlflowRegistry (this file: the requests, and what their answers mean)
//!   connection   the configuration, validated before the first request
//!   http         sends one request and returns the complete answer or an error
//!   answer       classifies answers: a value, "it does not exist", an error
//!   text         summarizes an HTML page or a JSON error in one line
//!   redact       removes our credentials from text
//!   filter       builds MLflow's search filter
//!   json         what all answers have in common: numbers as texts, times
//!   wire         the JSON, and its conversion to facts
//!   run          the run that created a version, and its metrics
//!   logged_model the metrics of a logged model
//!   stages       the predecessor of aliases in older servers
//!   example      finds the input example of a version
//!   versions     lists of versions
//!   webhooks     the webhooks of the server
//!   workspace    whether the server has workspaces
//!   script       for the fuzzer: a list of answers instead of a server
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::json;

use self::{
    answer::ErrorAnswer,
    http::{Call, Http},
    json::InvalidPayload,
    run::RunAnswer,
    wire::{Acknowledged, ModelAnswer, ModelPage, VersionAnswer},
};
use super::{
    Capabilities, InputExample, RegisteredModelFacts, Registry, RegistryError, VersionFacts,
    limiter::Priority,
    webhook::{DesiredWebhook, WebhookError, WebhookFacts},
};
use crate::api::{
    metric::Metric,
    model_registry::Stages,
    names::{AliasName, ModelName, Version},
};

mod answer;
mod connection;
mod example;
mod filter;
mod http;
mod json;
mod logged_model;
mod redact;
mod run;
#[cfg(any(test, fuzzing))]
pub mod script;
mod stages;
mod text;
mod versions;
mod webhooks;
mod wire;
mod workspace;

pub use self::connection::{Connection, ConnectionError, Credentials};

/// Maximum number of models per page; MLflow rejects more.
const PAGE: usize = 1000;
/// How many models are read at a time from a server that cannot list them by name.
const SIDE_BY_SIDE: usize = 8;

/// Maximum number of pages in a listing.
const MAX_PAGES: usize = 20;

/// An MLflow tracking server, as a registry of models.
///
/// Uses the proxies of the environment (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`), like other clients.
#[derive(Debug)]
pub struct MlflowRegistry {
    http: Http,
    stages: Stages,
    lists: Arc<ListFilter>,
}

impl MlflowRegistry {
    /// Creates a client for this connection. It sends nothing yet.
    ///
    /// # Errors
    ///
    /// When the configuration of the connection is not valid.
    pub fn new(connection: Connection) -> Result<Self, ConnectionError> {
        Ok(Self { stages: connection.stages, http: Http::new(connection)?, lists: Arc::default() })
    }

    /// Whether this alias is a stage of the server.
    fn has_stage(&self, alias: &AliasName) -> bool {
        self.stages == Stages::AsAliases && stages::is_stage(alias)
    }

    /// Reads one page of a listing.
    ///
    /// A listing has no object that could be missing, so if something does not exist, it is the workspace.
    async fn list<T: DeserializeOwned>(&self, call: &Call) -> Result<T, RegistryError> {
        match (self.http.ask(call).await, self.http.workspace()) {
            (Err(ErrorAnswer::Absent { detail }), Some(workspace)) => {
                Err(RegistryError::WorkspaceRefused { workspace: workspace.to_owned(), detail })
            }
            (answer, _) => answer.map_err(ErrorAnswer::into_error),
        }
    }

    /// Reads all pages with the models of one chunk.
    async fn search(&self, chunk: &[&ModelName]) -> Result<Vec<RegisteredModelFacts>, RegistryError> {
        let call = Call::get("registered-models/search")
            .query("filter", &filter::names(chunk))
            .query("max_results", &PAGE);
        let mut models = Vec::new();
        let mut pages = Pages::default();
        loop {
            let ModelPage { registered_models, next_page_token } = self.list(&pages.next(&call)).await?;
            models.extend(
                registered_models
                    .into_iter()
                    .flatten()
                    .filter_map(|model| model.into_facts(self.stages).ok()),
            );
            if !pages.turn(next_page_token).map_err(|detail| self.http.not_a_registry(&call, detail))? {
                return Ok(models);
            }
        }
    }

    /// Reads one model. The inner error is about what has that name, for instance a prompt.
    async fn read(
        &self,
        name: &ModelName,
    ) -> Result<Option<Result<RegisteredModelFacts, RegistryError>>, RegistryError> {
        let call = Call::get("registered-models/get").query("name", name);
        let answer = self.http.ask::<ModelAnswer>(&call).await;
        let Some(answer) = self.absent_as_none(answer).await? else { return Ok(None) };
        match answer.registered_model.expect_model(name, self.stages) {
            Ok(model) => Ok(Some(Ok(model))),
            Err(invalid @ InvalidPayload::Object(_)) => Ok(Some(Err(self.http.explain(&call, invalid)))),
            Err(invalid @ InvalidPayload::Response(_)) => Err(self.http.explain(&call, invalid)),
        }
    }

    /// Reads the models of one chunk one by one. Like a listing, leaves out those that the server rejects, and
    /// prompts.
    async fn each(&self, chunk: &[&ModelName]) -> Result<Vec<RegisteredModelFacts>, RegistryError> {
        let mut models = Vec::new();
        let mut errors = Vec::new();
        // Owned names: a stream of futures that borrow its items is not Send.
        let names: Vec<ModelName> = chunk.iter().map(|name| (*name).clone()).collect();
        let reads = names.into_iter().map(|name| async move { self.read(&name).await });
        let mut reads = stream::iter(reads).buffer_unordered(SIDE_BY_SIDE);
        while let Some(model) = reads.next().await {
            match model {
                Ok(model) => models.extend(model.and_then(Result::ok)),
                Err(error @ (RegistryError::Rejected { .. } | RegistryError::Forbidden { .. })) => {
                    errors.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        // If all of them fail, the cause is not the names.
        if errors.len() == chunk.len() { errors.pop().map_or(Ok(models), Err) } else { Ok(models) }
    }

    /// Returns `Ok(None)` if the server reports that the object does not exist.
    async fn absent_as_none<T>(&self, result: Result<T, ErrorAnswer>) -> Result<Option<T>, RegistryError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(ErrorAnswer::Absent { .. }) => self.confirm_workspace().await.map(|()| None),
            Err(answer) => Err(answer.into_error()),
        }
    }

    /// Checks that the workspace exists.
    ///
    /// The server answers a missing workspace like a missing model; only the message differs.
    async fn confirm_workspace(&self) -> Result<(), RegistryError> {
        match self.http.workspace() {
            Some(_) => self.list::<ModelPage>(&any_model()).await.map(drop),
            None => Ok(()),
        }
    }

    /// Sends a change of an object that must exist.
    async fn change(&self, call: Call) -> Result<(), RegistryError> {
        match self.http.ask::<Acknowledged>(&call).await {
            Ok(_) => Ok(()),
            Err(ErrorAnswer::Absent { detail }) => {
                self.confirm_workspace().await.and(Err(RegistryError::Rejected { detail }))
            }
            Err(answer) => Err(answer.into_error()),
        }
    }

    /// Sends a deletion; an object that does not exist counts as deleted.
    async fn remove(&self, call: Call) -> Result<(), RegistryError> {
        let answer = self.http.ask::<Acknowledged>(&call).await;
        self.absent_as_none(answer).await.map(drop)
    }
}

#[async_trait]
impl Registry for MlflowRegistry {
    fn with_priority(self: Arc<Self>, priority: Priority) -> Arc<dyn Registry> {
        Arc::new(Self {
            http: self.http.with_priority(priority),
            stages: self.stages,
            lists: self.lists.clone(),
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { aliases: true, batch_listing: true, tags: true, metrics: true }
    }

    async fn probe(&self) -> Result<Option<String>, RegistryError> {
        self.list::<ModelPage>(&any_model()).await?;
        Ok(self.http.server_version().await)
    }

    async fn models(
        &self,
        names: &BTreeSet<ModelName>,
    ) -> Result<BTreeMap<ModelName, RegisteredModelFacts>, RegistryError> {
        let mut found = BTreeMap::new();
        for chunk in filter::chunks(names) {
            let models = if self.lists.are_supported() {
                match self.search(&chunk).await {
                    // One name that a server rejects must not hide the others.
                    Err(RegistryError::Rejected { detail }) => {
                        self.lists.heed(&detail);
                        self.each(&chunk).await?
                    }
                    other => other?,
                }
            } else {
                self.each(&chunk).await?
            };
            found.extend(models.into_iter().map(|model| (model.name.clone(), model)));
        }
        // Some databases compare names case-insensitively: drop models that were not requested.
        found.retain(|name, _| names.contains(name));
        Ok(found)
    }

    async fn model(&self, name: &ModelName) -> Result<Option<RegisteredModelFacts>, RegistryError> {
        self.read(name).await?.transpose()
    }

    async fn version(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionFacts>, RegistryError> {
        let call = Call::get("model-versions/get").query("name", name).query("version", &version);
        let answer = self.http.ask::<VersionAnswer>(&call).await;
        let Some(answer) = self.absent_as_none(answer).await? else { return Ok(None) };
        answer
            .model_version
            .expect_version(name, version)
            .map(Some)
            .map_err(|invalid| self.http.explain(&call, invalid))
    }

    async fn newest_versions(
        &self,
        name: &ModelName,
        limit: usize,
    ) -> Result<Vec<VersionFacts>, RegistryError> {
        self.newest(name, limit).await
    }

    async fn newest_versions_of(
        &self,
        names: &BTreeSet<ModelName>,
        limit: usize,
    ) -> Result<BTreeMap<ModelName, Vec<VersionFacts>>, RegistryError> {
        self.newest_of_each(names, limit).await
    }

    async fn metrics(&self, run_id: &str) -> Result<Option<BTreeMap<String, Metric>>, RegistryError> {
        let call = Call::get("runs/get").query("run_id", run_id);
        let answer = self.http.ask::<RunAnswer>(&call).await;
        let Some(answer) = self.absent_as_none(answer).await? else { return Ok(None) };
        answer.metrics_of(run_id).map(Some).map_err(|invalid| self.http.explain(&call, invalid))
    }

    async fn logged_model_metrics(
        &self,
        model_id: &str,
        known: &BTreeMap<String, Metric>,
    ) -> Result<Option<BTreeMap<String, Metric>>, RegistryError> {
        logged_model::read(self, model_id, known).await
    }

    async fn input_example(
        &self,
        name: &ModelName,
        version: Version,
        limit: usize,
    ) -> Result<Option<InputExample>, RegistryError> {
        example::read(self, name, version, limit).await
    }

    async fn create_model(
        &self,
        name: &ModelName,
        description: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), RegistryError> {
        let tags: Vec<_> = tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let body = json!({ "name": name, "description": description, "tags": tags });
        match self.http.ask::<ModelAnswer>(&Call::post("registered-models/create", body)).await {
            // "Exists" may also mean that a prompt has the name; reading the model shows which.
            Ok(_) | Err(ErrorAnswer::Exists { .. }) => Ok(()),
            Err(ErrorAnswer::Absent { detail }) => {
                self.confirm_workspace().await.and(Err(RegistryError::Rejected { detail }))
            }
            Err(answer) => Err(answer.into_error()),
        }
    }

    async fn set_description(&self, name: &ModelName, description: &str) -> Result<(), RegistryError> {
        let body = json!({ "name": name, "description": description });
        self.change(Call::patch("registered-models/update", body)).await
    }

    async fn set_model_tag(&self, name: &ModelName, key: &str, value: &str) -> Result<(), RegistryError> {
        let body = json!({ "name": name, "key": key, "value": value });
        self.change(Call::post("registered-models/set-tag", body)).await
    }

    async fn delete_model_tag(&self, name: &ModelName, key: &str) -> Result<(), RegistryError> {
        self.remove(Call::delete("registered-models/delete-tag", json!({ "name": name, "key": key }))).await
    }

    async fn set_version_tag(
        &self,
        name: &ModelName,
        version: Version,
        key: &str,
        value: &str,
    ) -> Result<(), RegistryError> {
        let body = json!({ "name": name, "version": version, "key": key, "value": value });
        self.change(Call::post("model-versions/set-tag", body)).await
    }

    async fn delete_version_tag(
        &self,
        name: &ModelName,
        version: Version,
        key: &str,
    ) -> Result<(), RegistryError> {
        let body = json!({ "name": name, "version": version, "key": key });
        self.remove(Call::delete("model-versions/delete-tag", body)).await
    }

    async fn delete_model(&self, name: &ModelName) -> Result<(), RegistryError> {
        self.remove(Call::delete("registered-models/delete", json!({ "name": name }))).await
    }

    async fn set_alias(
        &self,
        name: &ModelName,
        alias: &AliasName,
        version: Version,
    ) -> Result<(), RegistryError> {
        if self.has_stage(alias) {
            return self.change(stages::enter(name, alias, version)).await;
        }
        let body = json!({ "name": name, "alias": alias, "version": version });
        self.change(Call::post("registered-models/alias", body)).await
    }

    async fn delete_alias(&self, name: &ModelName, alias: &AliasName) -> Result<(), RegistryError> {
        if self.has_stage(alias) {
            let model = self.model(name).await?;
            return match model.and_then(|model| model.aliases.get(alias).copied()) {
                Some(version) => self.remove(stages::leave(name, version)).await,
                None => Ok(()),
            };
        }
        self.remove(Call::delete("registered-models/alias", json!({ "name": name, "alias": alias }))).await
    }

    async fn webhooks(&self) -> Result<Vec<WebhookFacts>, WebhookError> {
        self.list_webhooks().await
    }

    async fn create_webhook(&self, desired: &DesiredWebhook) -> Result<String, WebhookError> {
        self.make_webhook(desired).await
    }

    async fn update_webhook(&self, id: &str, desired: &DesiredWebhook) -> Result<(), WebhookError> {
        self.change_webhook(id, desired).await
    }

    async fn delete_webhook(&self, id: &str) -> Result<(), WebhookError> {
        self.remove_webhook(id).await
    }

    async fn test_webhook(&self, id: &str) -> Result<Result<(), String>, WebhookError> {
        self.try_webhook(id).await
    }
}

/// Whether the server's filter understands a list of names. Older servers, MLflow 2.22 and 3.8 among
/// them, answer "Only the `run_id` attribute supports comparison with a list".
#[derive(Debug, Default)]
struct ListFilter(Mutex<Option<Instant>>);

impl ListFilter {
    /// A server may be upgraded, so a list is tried again after this time.
    const TRIED_AGAIN_AFTER: Duration = Duration::from_mins(30);

    fn are_supported(&self) -> bool {
        self.0.lock().is_none_or(|refused| refused.elapsed() >= Self::TRIED_AGAIN_AFTER)
    }

    /// Remembers that the server does not support the list.
    fn heed(&self, detail: &str) {
        if detail.contains("supports comparison with a list") {
            *self.0.lock() = Some(Instant::now());
        }
    }
}

/// Returns the cheapest request that needs the database and permission to read.
fn any_model() -> Call {
    Call::get("registered-models/search").query("max_results", &1)
}

/// The position in a paged listing.
#[derive(Default)]
struct Pages {
    seen: BTreeSet<String>,
    token: Option<String>,
}

impl Pages {
    /// Returns the call for the next page.
    fn next(&self, call: &Call) -> Call {
        let call = call.clone();
        match &self.token {
            Some(token) => call.query("page_token", token),
            None => call,
        }
    }

    /// Moves to the page with this token; returns `false` if there is none, and an error if the listing would
    /// not end.
    fn turn(&mut self, token: Option<String>) -> Result<bool, String> {
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(false) };
        if !self.seen.insert(token.clone()) {
            return Err("the pages of its listing repeat".to_owned());
        }
        if self.seen.len() >= MAX_PAGES {
            return Err(format!("its listing has more than {MAX_PAGES} pages"));
        }
        self.token = Some(token);
        Ok(true)
    }
}
