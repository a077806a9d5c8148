//! The model registry, behind one trait.
//!
//! [`Registry`] is the interface that Laurel needs; [`mlflow`] is the only backend so far. Another backend
//! would be another module beside it. A backend lists what it supports in [`Capabilities`]; a spec that needs
//! more is rejected.
//!
//! One rule holds for every backend: **unknown is not absent.** A method returns `Ok(None)` only if the
//! registry itself reported that this one object does not exist. Every other failed request is a
//! [`RegistryError`].
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: asks the registry, and polls it by the clock"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::api::{
    metric::Metric,
    names::{AliasName, ModelName, ModelUri, Version},
};

#[cfg(test)]
pub(crate) mod fake;
pub mod limiter;
pub mod metrics;
pub mod mlflow;
pub mod polled;
pub mod webhook;

use limiter::Priority;
use webhook::{DesiredWebhook, WebhookError, WebhookFacts};

/// The features of a registry backend. A spec that needs a missing one is rejected with the reason.
#[expect(clippy::struct_excessive_bools, reason = "the features are independent of each other")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// It has aliases, each of which points to one version.
    pub aliases: bool,
    /// Many models can be read in one request.
    pub batch_listing: bool,
    /// Models and versions have writable tags.
    pub tags: bool,
    /// Versions have readable metrics.
    pub metrics: bool,
}

/// A registered model as read from the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredModelFacts {
    /// Its name.
    pub name: ModelName,
    /// Time of its creation. A model deleted and created again under the same name has a different one.
    pub created_at: Timestamp,
    /// Time of the last change of the model or of its set of versions. Moving an alias or setting a tag does
    /// not count.
    pub updated_at: Timestamp,
    /// Its description; empty if it has none.
    pub description: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The version that each alias points to. Aliases that are not valid in Laurel are left out.
    pub aliases: BTreeMap<AliasName, Version>,
}

/// Whether a version can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// Its registration is complete.
    Ready,
    /// Its registration is in progress.
    Pending,
    /// Its registration failed.
    Failed,
}

impl VersionState {
    /// Returns the word for it that a status shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Pending => "Pending",
            Self::Failed => "Failed",
        }
    }
}

/// A model version as read from the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionFacts {
    /// Its number.
    pub version: Version,
    /// Time of its creation.
    pub created_at: Timestamp,
    /// Whether it can be served.
    pub state: VersionState,
    /// The URI that a server loads: the logged model's own identity if the registry gives one
    /// (`models:/m-<32 hex digits>`), otherwise `models:/<name>/<version>`.
    pub model_uri: ModelUri,
    /// The run that created it, if any.
    pub run_id: Option<String>,
    /// Its description; empty if it has none.
    pub description: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A request that the model's author logged with a version, ready to send to its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputExample {
    /// The body for `POST /invocations`, as it was logged.
    Body(Vec<u8>),
    /// It is larger than what was asked for.
    TooLarge,
}

/// The interface of a model registry.
///
/// The backend limits the duration of all methods, and all are safe to repeat.
#[async_trait]
pub trait Registry: Send + Sync + std::fmt::Debug {
    /// Returns a client for requests of this priority. It shares everything else with this one.
    fn with_priority(self: Arc<Self>, priority: Priority) -> Arc<dyn Registry>;

    /// Returns the features of this backend.
    fn capabilities(&self) -> Capabilities;

    /// Checks that the registry can be reached and grants access. Returns its version, if it reports one.
    async fn probe(&self) -> Result<Option<String>, RegistryError>;

    /// Reads many models in as few requests as possible.
    ///
    /// A name that is missing from the result is *unknown*: read it with [`Registry::model`] before treating
    /// it as deleted.
    async fn models(
        &self,
        names: &BTreeSet<ModelName>,
    ) -> Result<BTreeMap<ModelName, RegisteredModelFacts>, RegistryError>;

    /// Reads one model; returns `None` if the registry reports that it does not exist.
    async fn model(&self, name: &ModelName) -> Result<Option<RegisteredModelFacts>, RegistryError>;

    /// Reads one version; returns `None` if the registry reports that it, or its model, does not exist.
    async fn version(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionFacts>, RegistryError>;

    /// Reads the newest versions of a model, newest first, at most `limit`.
    async fn newest_versions(
        &self,
        name: &ModelName,
        limit: usize,
    ) -> Result<Vec<VersionFacts>, RegistryError>;

    /// Reads the newest versions of many models in as few requests as possible, newest first: of each at least
    /// `limit`, or else all that there are.
    ///
    /// A name that is missing from the result is *unknown*: read it with [`Registry::newest_versions`].
    async fn newest_versions_of(
        &self,
        names: &BTreeSet<ModelName>,
        limit: usize,
    ) -> Result<BTreeMap<ModelName, Vec<VersionFacts>>, RegistryError>;

    /// Reads the latest value of each metric of a run; returns `None` if the registry reports that the run
    /// does not exist. A deleted run can be read until it is purged.
    async fn metrics(&self, run_id: &str) -> Result<Option<BTreeMap<String, Metric>>, RegistryError>;

    /// Reads the latest value of each metric of a logged model, but for those that are `known`; returns
    /// `None` if the registry reports that the logged model does not exist.
    async fn logged_model_metrics(
        &self,
        model_id: &str,
        known: &BTreeMap<String, Metric>,
    ) -> Result<Option<BTreeMap<String, Metric>>, RegistryError>;

    /// Reads the input example logged with a version, if it has at most `limit` bytes; returns `None` if it
    /// has none.
    async fn input_example(
        &self,
        name: &ModelName,
        version: Version,
        limit: usize,
    ) -> Result<Option<InputExample>, RegistryError>;

    /// Creates a model; an existing one is not changed.
    async fn create_model(
        &self,
        name: &ModelName,
        description: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), RegistryError>;

    /// Sets a model's description.
    async fn set_description(&self, name: &ModelName, description: &str) -> Result<(), RegistryError>;

    /// Sets one tag of a model.
    async fn set_model_tag(&self, name: &ModelName, key: &str, value: &str) -> Result<(), RegistryError>;

    /// Deletes one tag of a model; succeeds if it does not exist.
    async fn delete_model_tag(&self, name: &ModelName, key: &str) -> Result<(), RegistryError>;

    /// Sets one tag of a version.
    async fn set_version_tag(
        &self,
        name: &ModelName,
        version: Version,
        key: &str,
        value: &str,
    ) -> Result<(), RegistryError>;

    /// Deletes one tag of a version; succeeds if it does not exist.
    async fn delete_version_tag(
        &self,
        name: &ModelName,
        version: Version,
        key: &str,
    ) -> Result<(), RegistryError>;

    /// Deletes a model with all its versions; succeeds if it does not exist.
    async fn delete_model(&self, name: &ModelName) -> Result<(), RegistryError>;

    /// Points an alias to a version, whatever it pointed to before.
    async fn set_alias(
        &self,
        name: &ModelName,
        alias: &AliasName,
        version: Version,
    ) -> Result<(), RegistryError>;

    /// Deletes an alias; succeeds if it, or its model, does not exist.
    async fn delete_alias(&self, name: &ModelName, alias: &AliasName) -> Result<(), RegistryError>;

    /// Lists all webhooks. Safe at any time. Call it before creating one: if listing fails, another webhook
    /// makes it worse.
    async fn webhooks(&self) -> Result<Vec<WebhookFacts>, WebhookError>;

    /// Creates a webhook, even if one with that name exists. Returns its id.
    async fn create_webhook(&self, desired: &DesiredWebhook) -> Result<String, WebhookError>;

    /// Changes a webhook to the desired one, including its secret.
    async fn update_webhook(&self, id: &str, desired: &DesiredWebhook) -> Result<(), WebhookError>;

    /// Deletes a webhook; succeeds if it does not exist.
    async fn delete_webhook(&self, id: &str) -> Result<(), WebhookError>;

    /// Makes the registry send a test delivery now. The inner result is the one that the registry reports.
    async fn test_webhook(&self, id: &str) -> Result<Result<(), String>, WebhookError>;
}

/// Why a request to the registry failed. No variant means that an object does not exist.
///
/// The message contains the cause and the next step, but never a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it was interrupted.
    #[error("cannot reach {url}: {cause}")]
    Unreachable {
        /// The base URL that was tried, without credentials.
        url: String,
        /// The error with its innermost cause.
        cause: String,
    },
    /// No complete response in time.
    #[error("no response from {url} within {}s", limit.as_secs())]
    TimedOut {
        /// The base URL that was tried.
        url: String,
        /// The time limit.
        limit: Duration,
    },
    /// 401, or a response that asks for a login.
    #[error("the registry does not accept these credentials (HTTP 401): {detail}")]
    Unauthorized {
        /// The registry's message, shortened.
        detail: String,
    },
    /// 403 for these credentials.
    #[error("permission denied for these credentials (HTTP 403): {detail}")]
    Forbidden {
        /// The registry's message, shortened.
        detail: String,
    },
    /// MLflow rejects the Host header (DNS-rebinding protection, on by default since 3.5).
    #[error(
        "MLflow rejects the Host header {host:?} (HTTP 403): start it with --allowed-hosts '{host}', which \
         replaces its defaults and matches the port exactly"
    )]
    HostRefused {
        /// The Host header that was sent, with the port.
        host: String,
    },
    /// The workspace does not exist there, or the server has no workspaces.
    #[error("the registry rejects workspace {workspace:?}: {detail}")]
    WorkspaceRefused {
        /// The requested workspace.
        workspace: String,
        /// The registry's message, shortened.
        detail: String,
    },
    /// The registry reports that the request itself is wrong (400, 409, or 404 for an object that must
    /// exist).
    #[error("the registry rejects the request: {detail}")]
    Rejected {
        /// The registry's message, shortened.
        detail: String,
    },
    /// Too many requests.
    #[error("the registry limits the request rate (HTTP 429)")]
    RateLimited {
        /// How long it asks to wait, if given.
        retry_after: Option<Duration>,
    },
    /// A 5xx.
    #[error("the registry failed with HTTP {status}: {detail}")]
    ServerFailed {
        /// The status code.
        status: u16,
        /// Its message, shortened.
        detail: String,
    },
    /// A response that does not come from this registry's API: HTML from a proxy, a 404 page, truncated JSON.
    #[error("{url} does not answer like a model registry: {detail}; check the URL and its path")]
    NotARegistry {
        /// The requested URL, without query and credentials.
        url: String,
        /// The unexpected response, shortened.
        detail: String,
    },
}
