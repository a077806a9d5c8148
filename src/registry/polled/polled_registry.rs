//! One registry: its client and the results of its last poll.
//!
//! A poll reads every watched model in as few requests as possible, treats one as deleted only after a direct
//! read, and returns the models that changed. Versions are read one by one when they are needed, and again
//! after their model changed.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use url::Url;

use super::{
    RegistryKey, Settings,
    debounce::{Debounce, Pending},
    memory::{KnownFacts, ModelMemory, ModelView, RegistryMemory, Sequence},
    message::{StableMessages, explain},
    reading::pause_after,
};
use crate::{
    api::{
        RegistryStatus,
        condition::{Reason, ReasonMessage},
        names::{AliasName, ModelName, Version},
    },
    registry::{
        Capabilities, RegisteredModelFacts, Registry, RegistryError, VersionFacts, VersionState,
        limiter::{Limiter, Priority},
        mlflow::{Connection, MlflowRegistry},
    },
};

/// Maximum pause when a registry asks for one.
const HOLD_OFF_MAX: Duration = Duration::from_mins(5);

/// One registry: its client and the results of its last poll.
#[derive(Debug)]
pub struct PolledRegistry {
    /// The object that describes it.
    pub key: RegistryKey,
    /// Its settings.
    pub settings: Settings,
    /// Limits the requests to it.
    pub limiter: Limiter,
    client: RwLock<Result<Arc<dyn Registry>, ReasonMessage>>,
    /// The fingerprint of the connection that the client was created from.
    connection: Mutex<Option<[u8; 32]>>,
    memory: Mutex<RegistryMemory>,
    /// The latest messages about its errors.
    messages: Mutex<StableMessages>,
    /// End of the pause that it asked for.
    hold_off: Mutex<Option<Instant>>,
    wake: Notify,
    pub(super) debounce: Debounce,
    retired: tokio_util::sync::CancellationToken,
}

/// What has to be read next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Everything that is watched.
    Poll,
    /// These models.
    Models(BTreeSet<ModelName>),
}

/// The URL of a registry and its workspace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryIdentity {
    /// The URL, without a slash at its end.
    pub url: String,
    /// The workspace, unless it is the server's default.
    pub workspace: Option<String>,
}

impl RegistryIdentity {
    /// Without a workspace, MLflow uses the one called `default`.
    #[must_use]
    pub fn new(url: &Url, workspace: Option<&str>) -> Self {
        Self {
            url: url.as_str().trim_end_matches('/').to_owned(),
            workspace: workspace.filter(|workspace| *workspace != "default").map(str::to_owned),
        }
    }
}

impl PolledRegistry {
    pub(super) fn new(key: RegistryKey, settings: Settings, limiter: Limiter) -> Self {
        Self {
            key,
            settings,
            limiter,
            client: RwLock::new(Err(ReasonMessage::new(
                Reason::RegistryNotRead,
                "the registry has not been read yet",
            ))),
            connection: Mutex::default(),
            memory: Mutex::default(),
            messages: Mutex::default(),
            hold_off: Mutex::default(),
            wake: Notify::new(),
            debounce: Debounce::default(),
            retired: tokio_util::sync::CancellationToken::new(),
        }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, RegistryMemory> {
        self.memory.lock()
    }

    pub(super) fn retire(&self) {
        self.retired.cancel();
    }

    /// Whether it was replaced or removed, and is not polled any more.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    /// Resolves when the registry must not be polled any more.
    pub async fn retirement(&self) {
        self.retired.cancelled().await;
    }

    /// Returns the registry as shown in a status.
    #[must_use]
    pub fn status(&self) -> RegistryStatus {
        let (kind, name) = self.key.object();
        RegistryStatus {
            kind: kind.to_string(),
            name: name.to_owned(),
            url: self.settings.url.as_str().trim_end_matches('/').to_owned(),
            workspace: self.settings.workspace.clone(),
        }
    }

    /// Returns the identity of the registry: two registries with the same identity have the same aliases.
    #[must_use]
    pub fn identity(&self) -> RegistryIdentity {
        RegistryIdentity::new(&self.settings.url, self.settings.workspace.as_deref())
    }

    /// Replaces the client, for instance after a Secret changed, or sets why there is none.
    pub fn set_client(&self, client: Result<Arc<dyn Registry>, ReasonMessage>) {
        *self.client.write() = client;
        self.poll_now();
    }

    /// Updates the connection as just read. Creates a new client only if the connection changed.
    pub fn renew_client(&self, connection: Result<Box<Connection>, ReasonMessage>) {
        let fingerprint = connection.as_ref().ok().map(|connection| connection.fingerprint());
        let unchanged = fingerprint.is_some() && *self.connection.lock() == fingerprint;
        match connection {
            Ok(_) if unchanged => {}
            Ok(connection) => {
                *self.connection.lock() = fingerprint;
                self.set_client(client(*connection));
            }
            // What the Secret holds is not known now. Unknown is not absent.
            Err(error) if error.reason.is_api_server_error() && self.capabilities().is_ok() => {
                tracing::warn!(
                    registry = %self.key,
                    message = error.message,
                    "the connection cannot be read again, so the one of before is used"
                );
            }
            Err(error) if self.capabilities().is_err_and(|known| known == error) => {}
            Err(error) => {
                *self.connection.lock() = None;
                self.set_client(Err(error));
            }
        }
    }

    /// Returns the client for requests of this priority.
    ///
    /// # Errors
    /// Why there is none: a missing Secret, an invalid certificate.
    pub fn client(&self, priority: Priority) -> Result<Arc<dyn Registry>, ReasonMessage> {
        Ok(self.client.read().clone()?.with_priority(priority))
    }

    /// Returns the features of the registry's backend.
    ///
    /// # Errors
    /// Why there is no client.
    pub fn capabilities(&self) -> Result<Capabilities, ReasonMessage> {
        self.client.read().as_ref().map(|client| client.capabilities()).map_err(Clone::clone)
    }

    /// Starts the next poll now.
    pub fn poll_now(&self) {
        self.wake.notify_one();
    }

    /// A poll that starts now covers all that was asked for before.
    pub(super) fn poll_started(&self) {
        self.wake.notified().now_or_never();
        self.debounce.poll_started(Instant::now());
    }

    /// Reads a model soon. However often that is asked for, there is a pause between two such reads.
    pub fn read_soon(&self, name: &ModelName) {
        self.debounce.add(Some(name.clone()));
    }

    /// Whether somebody asked for a model lately.
    #[must_use]
    pub fn watches(&self, name: &ModelName) -> bool {
        self.memory().models.contains_key(name)
    }

    /// Starts the next poll soon, because a webhook delivery arrived that names no model.
    pub fn delivery_arrived(&self) {
        self.debounce.add(None);
    }

    /// Returns when the next poll is due if nobody asks for it.
    #[must_use]
    pub fn next_regular_poll(&self) -> Instant {
        Instant::now() + pause_after(self.memory().failed_polls, self.settings.poll_interval)
    }

    /// Waits until something has to be read. A pause that the registry asked for is kept, even if somebody
    /// waits.
    pub async fn next_due(&self, regular: Instant) -> Due {
        let due = tokio::select! {
            biased;
            () = tokio::time::sleep_until(regular.into()) => Due::Poll,
            () = self.wake.notified() => Due::Poll,
            pending = self.debounce.due() => match pending {
                Pending::Models(names) => Due::Models(names),
                Pending::Nothing | Pending::Everything => Due::Poll,
            },
        };
        let until = *self.hold_off.lock();
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
        due
    }

    /// Returns the reason and message of an error; `about` is the requested model, if it was one. An error
    /// that differs from a recent one only in details such as a time gets the same message, so that the
    /// status does not change.
    pub fn explain(&self, about: Option<&ModelName>, error: &RegistryError) -> ReasonMessage {
        if let RegistryError::RateLimited { retry_after: Some(pause) } = error {
            let until = Instant::now() + (*pause).min(HOLD_OFF_MAX);
            *self.hold_off.lock() = Some(until);
        }
        let mut messages = self.messages.lock();
        messages.stabilize(about, explain(&self.settings.url, error), Instant::now())
    }

    /// Returns the registry's health, `None` before the first poll, and its version.
    #[must_use]
    pub fn health(&self) -> (Option<Result<(), ReasonMessage>>, Option<String>) {
        let memory = self.memory();
        (memory.health.clone(), memory.server_version.clone())
    }

    /// Returns a model, as far as known. If it is requested for the first time, it is read soon.
    #[must_use]
    pub fn model(&self, name: &ModelName) -> ModelView {
        let mut memory = self.memory();
        let error = memory.error();
        let known = memory.models.entry(name.clone()).or_insert_with(|| {
            self.read_soon(name);
            ModelMemory::default()
        });
        match (error.or_else(|| known.error.clone()), &known.facts) {
            (Some(error), _) => ModelView::Unknown(error),
            (None, KnownFacts::Unread) => ModelView::Unknown(ReasonMessage::new(
                Reason::RegistryNotRead,
                format!("the model {:?} is being read", name.as_str()),
            )),
            (None, KnownFacts::Absent) => ModelView::Absent,
            (None, KnownFacts::Present(facts)) => ModelView::Present(facts.clone()),
        }
    }

    /// Returns a version as remembered; `None` if it was not read yet.
    #[must_use]
    pub fn remembered_version(&self, name: &ModelName, version: Version) -> Option<Option<VersionFacts>> {
        let mut memory = self.memory();
        let known = memory.models.get(name)?.versions.get(&version).map(|(_, facts)| facts.clone());
        known.or_else(|| memory.version_ahead(name, version).map(Some))
    }

    /// Reads a version from the registry, and remembers it for good unless its registration is in progress.
    ///
    /// # Errors
    /// Why it cannot be known now.
    pub async fn read_version(
        &self,
        name: &ModelName,
        version: Version,
        priority: Priority,
    ) -> Result<Option<VersionFacts>, ReasonMessage> {
        let times = |memory: &RegistryMemory| memory.models.get(name).and_then(|known| known.facts.times());
        let (sequence, before) = {
            let mut memory = self.memory();
            if let Some(error) = memory.error() {
                return Err(error);
            }
            (memory.begin(), times(&memory))
        };
        let answer = self.request_version(name, version, priority).await;
        let mut memory = self.memory();
        // What was read before a poll saw the model change may be older than the change.
        let is_current = times(&memory) == before;
        let known = memory.models.entry(name.clone()).or_default();
        match &answer {
            Ok(_) if !is_current => {}
            Ok(facts) if facts.as_ref().is_none_or(|facts| facts.state != VersionState::Pending) => {
                known.remember_version(version, (sequence, facts.clone()));
            }
            Ok(_) => {}
            Err(_) => known.failed = true,
        }
        answer
    }

    async fn request_version(
        &self,
        name: &ModelName,
        version: Version,
        priority: Priority,
    ) -> Result<Option<VersionFacts>, ReasonMessage> {
        let client = self.client(priority)?;
        client.version(name, version).await.map_err(|error| self.explain(Some(name), &error))
    }

    /// Remembers our own write, so that it need not be read back.
    pub fn remember_alias(&self, name: &ModelName, alias: &AliasName, version: Option<Version>) {
        {
            let mut memory = self.memory();
            let written = memory.begin();
            let known = memory.models.entry(name.clone()).or_default();
            // What is read before a poll that began after the write may be from before it.
            known.as_of = written;
            known.has_changed = true;
            if let KnownFacts::Present(facts) = &mut known.facts {
                match version {
                    Some(version) => drop(facts.aliases.insert(alias.clone(), version)),
                    None => drop(facts.aliases.remove(alias)),
                }
            }
        }
        self.read_soon(name);
    }

    /// Takes the position of a request that is begun now, for [`Self::remember_model`].
    #[must_use]
    pub fn begin(&self) -> Sequence {
        self.memory().begin()
    }

    /// Replaces a model with what a request read of it, unless a later one is known.
    pub fn remember_model(&self, name: &ModelName, begun: Sequence, facts: Option<RegisteredModelFacts>) {
        let mut memory = self.memory();
        if memory.models.get(name).is_some_and(|known| known.as_of > begun) {
            return;
        }
        if memory.remember(name, (begun, facts))
            && let Some(known) = memory.models.get_mut(name)
        {
            known.has_changed = true;
            drop(memory);
            self.read_soon(name);
        }
    }

    /// Remembers that we deleted a model.
    pub fn remember_deletion(&self, name: &ModelName) {
        self.remember_model(name, self.begin(), None);
    }

    /// Reads a model now, without waiting for a poll, and remembers the answer.
    ///
    /// # Errors
    /// Why it cannot be known now.
    pub async fn read_model(
        &self,
        name: &ModelName,
        priority: Priority,
    ) -> Result<Option<RegisteredModelFacts>, ReasonMessage> {
        let (client, begun) = (self.client(priority)?, self.begin());
        let answer = client.model(name).await.map_err(|error| self.explain(Some(name), &error))?;
        self.remember_model(name, begun, answer.clone());
        Ok(answer)
    }

    /// Forgets a model after writes with an unknown result. It is unread until it is read
    /// again, which is soon.
    pub fn forget_model(&self, name: &ModelName) {
        {
            let mut memory = self.memory();
            let ended = memory.begin();
            if let Some(known) = memory.models.get_mut(name) {
                known.as_of = ended;
                known.facts = KnownFacts::Unread;
            }
        }
        self.read_soon(name);
    }
}

/// Creates the client for a connection, or returns why it cannot be created.
fn client(connection: Connection) -> Result<Arc<dyn Registry>, ReasonMessage> {
    match MlflowRegistry::new(connection) {
        Ok(client) => Ok(Arc::new(client)),
        Err(error) => {
            Err(ReasonMessage::new(Reason::RegistryInvalid, format!("spec.mlflow and spec.auth: {error}")))
        }
    }
}
