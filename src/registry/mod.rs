//! The model registry, behind one trait.
//!
//! [`Registry`] is what Laurel needs of a registry; [`mlflow`] is the backend that exists. Another one is another
//! module beside it. What a backend cannot do it says in [`Capabilities`], and a wish that needs it is refused.
//!
//! One rule holds for every backend: **unknown is not absent.** A method answers `Ok(None)` only when the registry
//! itself said, about that one object, that it does not exist. Everything else that is not an answer is a
//! [`RegistryError`].
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: asks the registry, and polls it by the clock"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::api::{
    metric::Metric,
    names::{AliasName, ModelName, ModelUri, Version},
};

pub mod mlflow;
pub mod polled;
pub mod webhook;

use webhook::{DesiredWebhook, WebhookError, WebhookFacts};

/// What a registry backend can do. A wish that needs what is missing is refused with the reason.
#[expect(clippy::struct_excessive_bools, reason = "each is an answer by itself, and all combinations exist")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// It has aliases that point at one version each.
    pub aliases: bool,
    /// Many models can be read in one request.
    pub batch_listing: bool,
    /// Models and versions carry tags that can be written.
    pub tags: bool,
    /// Versions have metrics that can be read.
    pub metrics: bool,
}

/// A registered model as one read of the registry shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredModelFacts {
    /// Its name.
    pub name: ModelName,
    /// When it was made. A model that was deleted and made anew under the same name has another one.
    pub created_at: Timestamp,
    /// When it, or the set of its versions, last changed. Moving an alias or setting a tag does not change it.
    pub updated_at: Timestamp,
    /// Its description; empty where it has none.
    pub description: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Which version each alias names. Aliases that Laurel cannot express are left out.
    pub aliases: BTreeMap<AliasName, Version>,
}

/// Whether a version can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// Its registration is complete.
    Ready,
    /// The registry is still taking it in.
    Pending,
    /// Its registration failed.
    Failed,
}

impl VersionState {
    /// In one word, as a status has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Pending => "Pending",
            Self::Failed => "Failed",
        }
    }
}

/// A model version as one read of the registry shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionFacts {
    /// Its number.
    pub version: Version,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it can be served.
    pub state: VersionState,
    /// What a server loads: the logged model's own identity where the registry gives one
    /// (`models:/m-<32 hex digits>`), otherwise `models:/<name>/<version>`.
    pub model_uri: ModelUri,
    /// The run that made it, where there is one.
    pub run_id: Option<String>,
    /// Its description; empty where it has none.
    pub description: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A request that the model's author logged with a version, ready to be sent to its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputExample {
    /// The body for `POST /invocations`, as it was logged.
    Body(Vec<u8>),
    /// It is larger than what was asked for.
    TooLarge,
}

/// What Laurel needs of a model registry.
///
/// All methods are bounded in time by the backend, and safe to call again.
#[async_trait]
pub trait Registry: Send + Sync + std::fmt::Debug {
    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Checks that the registry can be reached and that we are let in, and answers its version where it tells it.
    async fn probe(&self) -> Result<Option<String>, RegistryError>;

    /// Reads many models in as few requests as the backend can.
    ///
    /// A name that is missing from the answer is *unknown*: ask for it with [`Registry::model`] before believing
    /// that it is gone.
    async fn models(
        &self,
        names: &BTreeSet<ModelName>,
    ) -> Result<BTreeMap<ModelName, RegisteredModelFacts>, RegistryError>;

    /// Reads one model; `None` when the registry says that it does not exist.
    async fn model(&self, name: &ModelName) -> Result<Option<RegisteredModelFacts>, RegistryError>;

    /// Reads one version; `None` when the registry says that it, or its model, does not exist.
    async fn version(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionFacts>, RegistryError>;

    /// The newest versions of a model, newest first, at most `limit`.
    async fn newest_versions(
        &self,
        name: &ModelName,
        limit: usize,
    ) -> Result<Vec<VersionFacts>, RegistryError>;

    /// The metrics of the run that made a version, the latest value of each; `None` when the registry says that there is no
    /// such run. A run that somebody deleted can be read until it is purged.
    async fn metrics(&self, run_id: &str) -> Result<Option<BTreeMap<String, Metric>>, RegistryError>;

    /// The input example that was logged with a version, if it has at most `limit` bytes; `None` when it has none.
    async fn input_example(
        &self,
        name: &ModelName,
        version: Version,
        limit: usize,
    ) -> Result<Option<InputExample>, RegistryError>;

    /// Makes a model; one that exists already is left as it is.
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

    /// Removes one tag of a model; fine when it is not there.
    async fn delete_model_tag(&self, name: &ModelName, key: &str) -> Result<(), RegistryError>;

    /// Sets one tag of a version.
    async fn set_version_tag(
        &self,
        name: &ModelName,
        version: Version,
        key: &str,
        value: &str,
    ) -> Result<(), RegistryError>;

    /// Removes one tag of a version; fine when it is not there.
    async fn delete_version_tag(
        &self,
        name: &ModelName,
        version: Version,
        key: &str,
    ) -> Result<(), RegistryError>;

    /// Deletes a model with all its versions; fine when it is not there.
    async fn delete_model(&self, name: &ModelName) -> Result<(), RegistryError>;

    /// Lets an alias name a version, whatever it named before.
    async fn set_alias(
        &self,
        name: &ModelName,
        alias: &AliasName,
        version: Version,
    ) -> Result<(), RegistryError>;

    /// Removes an alias; fine when it, or its model, is not there.
    async fn delete_alias(&self, name: &ModelName, alias: &AliasName) -> Result<(), RegistryError>;

    /// All webhooks. It is safe at any time, and to be asked before one is made: where it fails, one more makes it worse.
    async fn webhooks(&self) -> Result<Vec<WebhookFacts>, WebhookError>;

    /// Makes a webhook, also where there is one of that name. Answers its id.
    async fn create_webhook(&self, desired: &DesiredWebhook) -> Result<String, WebhookError>;

    /// Lets a webhook be as wished, its secret included.
    async fn update_webhook(&self, id: &str, desired: &DesiredWebhook) -> Result<(), WebhookError>;

    /// Deletes a webhook; fine when it is not there.
    async fn delete_webhook(&self, id: &str) -> Result<(), WebhookError>;

    /// Lets the registry deliver an example now. The inner result is what the registry says came of it.
    async fn test_webhook(&self, id: &str) -> Result<Result<(), String>, WebhookError>;
}

/// Why the registry gave no answer. No variant means that something does not exist.
///
/// The message says what was seen and what to do; it never carries a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke.
    #[error("cannot reach {url}: {cause}")]
    Unreachable {
        /// The base URL that was tried, without credentials.
        url: String,
        /// What went wrong, innermost cause included.
        cause: String,
    },
    /// No complete answer in time.
    #[error("no answer from {url} within {}s", limit.as_secs())]
    TimedOut {
        /// The base URL that was tried.
        url: String,
        /// How long was waited.
        limit: Duration,
    },
    /// 401, or an answer that asks for a login.
    #[error("the registry does not know these credentials (HTTP 401): {detail}")]
    Unauthorized {
        /// What the registry said, shortened.
        detail: String,
    },
    /// 403 for these credentials.
    #[error("the registry refuses these credentials permission (HTTP 403): {detail}")]
    Forbidden {
        /// What the registry said, shortened.
        detail: String,
    },
    /// `MLflow` refuses the Host header (DNS-rebinding protection, on by default since 3.5).
    #[error(
        "MLflow refuses the Host header {host:?} (HTTP 403): start it with --allowed-hosts '{host}', which replaces its defaults and matches the port exactly"
    )]
    HostRefused {
        /// The Host header that was sent, with the port.
        host: String,
    },
    /// The workspace does not exist there, or the server has no workspaces.
    #[error("the registry refuses workspace {workspace:?}: {detail}")]
    WorkspaceRefused {
        /// The workspace that was asked for.
        workspace: String,
        /// What the registry said, shortened.
        detail: String,
    },
    /// The registry says that the request itself is wrong (400, 409, a 404 where something has to exist).
    #[error("the registry refuses the request: {detail}")]
    Refused {
        /// What the registry said, shortened.
        detail: String,
    },
    /// Too many requests.
    #[error("the registry asks for fewer requests (HTTP 429)")]
    RateLimited {
        /// How long it asks to wait, where it says.
        retry_after: Option<Duration>,
    },
    /// A 5xx.
    #[error("the registry failed with HTTP {status}: {detail}")]
    ServerFailed {
        /// The status code.
        status: u16,
        /// What it said, shortened.
        detail: String,
    },
    /// An answer that is not what this registry's API gives: HTML from a proxy, a 404 page, cut-off JSON.
    #[error("{url} does not answer like a model registry: {detail}; check the URL, also its path")]
    NotARegistry {
        /// The URL that was asked, without query and credentials.
        url: String,
        /// What was seen, shortened.
        detail: String,
    },
}
