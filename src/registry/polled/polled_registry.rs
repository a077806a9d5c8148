//! One registry: its client and the results of its last poll.
//!
//! A poll reads every watched model in as few requests as possible, treats one as deleted only after a direct
//! read, and returns the models that changed. Versions are read one by one when they are needed, and again
//! after their model changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use url::Url;

use super::{
    RegistryKey, Settings,
    debounce::Debounce,
    memory::{KnownFacts, ModelMemory, ModelRead, ModelView, RegistryMemory},
    message::{StableMessages, explain},
};
use crate::{
    api::{
        RegistryStatus,
        condition::{Reason, ReasonMessage},
        names::{AliasName, ModelName, Version},
    },
    registry::{
        RegisteredModelFacts, Registry, RegistryError, VersionFacts, VersionState,
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
    client: RwLock<Result<Arc<dyn Registry>, ReasonMessage>>,
    /// The fingerprint of the connection that the client was created from.
    connection: Mutex<Option<[u8; 32]>>,
    memory: Mutex<RegistryMemory>,
    /// The latest messages about its errors.
    messages: Mutex<StableMessages>,
    /// End of the pause that it asked for.
    hold_off: Mutex<Option<Instant>>,
    wake: Notify,
    debounce: Debounce,
    retired: tokio_util::sync::CancellationToken,
}

/// Whether an error is about the requested model only, and not about the registry, which has just answered.
fn is_about_one(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Forbidden { .. }
            | RegistryError::Rejected { .. }
            | RegistryError::ServerFailed { .. }
            | RegistryError::NotARegistry { .. }
    )
}

/// What a poll has to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollPlan {
    /// The models that some object refers to.
    pub models: BTreeSet<ModelName>,
    /// The versions that promotion rules judge, or compare others with.
    pub judged: BTreeSet<(ModelName, Version)>,
    /// The models with followers, and whether a follower chooses by a metric.
    pub followed: BTreeMap<ModelName, bool>,
}

/// The changes that a poll found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollOutcome {
    /// The models that changed.
    pub changed: BTreeSet<ModelName>,
    /// Whether the health of the registry changed.
    pub health_changed: bool,
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
    pub(super) fn new(key: RegistryKey, settings: Settings) -> Self {
        Self {
            key,
            settings,
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
        let unchanged = {
            let mut known = self.connection.lock();
            let unchanged = fingerprint.is_some() && *known == fingerprint;
            *known = fingerprint;
            unchanged
        };
        match connection {
            Ok(_) if unchanged => {}
            Ok(connection) => self.set_client(client(*connection)),
            Err(error) if self.client().is_err_and(|known| known == error) => {}
            Err(error) => self.set_client(Err(error)),
        }
    }

    /// Returns the client.
    ///
    /// # Errors
    /// Why there is none: a missing Secret, an invalid certificate.
    pub fn client(&self) -> Result<Arc<dyn Registry>, ReasonMessage> {
        self.client.read().clone()
    }

    /// Starts the next poll now.
    pub fn poll_now(&self) {
        self.wake.notify_one();
    }

    /// Starts the next poll soon, because a webhook delivery arrived. However many arrive, at most one poll
    /// waits while another one runs, and there is a pause between them.
    pub fn delivery_arrived(&self) {
        self.debounce.delivery_arrived();
    }

    /// Waits until the next poll is due. A pause that the registry asked for is kept, even if somebody waits.
    pub async fn next_poll(&self) {
        tokio::select! {
            () = tokio::time::sleep(self.settings.poll_interval) => {}
            () = self.wake.notified() => {}
            () = self.debounce.due() => {}
        }
        let until = *self.hold_off.lock();
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
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

    /// Returns a model, as far as known. If it is requested for the first time, this starts a poll that reads
    /// it.
    #[must_use]
    pub fn model(&self, name: &ModelName) -> ModelView {
        let mut memory = self.memory();
        let error = memory.error();
        let known = memory.models.entry(name.clone()).or_insert_with(|| {
            self.poll_now();
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
        self.memory().models.get(name)?.versions.get(&version).cloned()
    }

    /// Reads a version from the registry, and remembers it for good unless its registration is in progress.
    ///
    /// # Errors
    /// Why it cannot be known now.
    pub async fn read_version(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionFacts>, ReasonMessage> {
        let times = |memory: &RegistryMemory| memory.models.get(name).and_then(|known| known.facts.times());
        let before = {
            let memory = self.memory();
            if let Some(error) = memory.error() {
                return Err(error);
            }
            times(&memory)
        };
        let answer = self.request_version(name, version).await;
        let mut memory = self.memory();
        // What was read before a poll saw the model change may be older than the change.
        let is_current = times(&memory) == before;
        let known = memory.models.entry(name.clone()).or_default();
        match &answer {
            Ok(_) if !is_current => {}
            Ok(facts) if facts.as_ref().is_none_or(|facts| facts.state != VersionState::Pending) => {
                known.versions.insert(version, facts.clone());
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
    ) -> Result<Option<VersionFacts>, ReasonMessage> {
        self.client()?.version(name, version).await.map_err(|error| self.explain(Some(name), &error))
    }

    /// Remembers our own write, so that it need not be read back.
    pub fn remember_alias(&self, name: &ModelName, alias: &AliasName, version: Option<Version>) {
        if let Some(ModelMemory { facts: KnownFacts::Present(facts), writes, has_changed, .. }) =
            self.memory().models.get_mut(name)
        {
            *writes += 1;
            *has_changed = true;
            match version {
                Some(version) => drop(facts.aliases.insert(alias.clone(), version)),
                None => drop(facts.aliases.remove(alias)),
            }
        }
        self.poll_now();
    }

    /// Replaces a model with a fresh read.
    pub fn remember_model(&self, name: &ModelName, facts: Option<RegisteredModelFacts>) {
        let mut memory = self.memory();
        if memory.remember(name, facts)
            && let Some(known) = memory.models.get_mut(name)
        {
            known.writes += 1;
            known.has_changed = true;
            drop(memory);
            self.poll_now();
        }
    }

    /// Reads a model now, without waiting for a poll, and remembers the answer.
    ///
    /// # Errors
    /// Why it cannot be known now.
    pub async fn read_model(&self, name: &ModelName) -> Result<Option<RegisteredModelFacts>, ReasonMessage> {
        let answer = self.client()?.model(name).await.map_err(|error| self.explain(Some(name), &error))?;
        self.remember_model(name, answer.clone());
        Ok(answer)
    }

    /// Forgets a model after writes with an unknown result. It is unread until the next poll, which starts
    /// now.
    pub fn forget_model(&self, name: &ModelName) {
        if let Some(known) = self.memory().models.get_mut(name) {
            known.writes += 1;
            known.facts = KnownFacts::Unread;
        }
        self.poll_now();
    }

    /// Reads every watched model, and forgets those that are not watched any more. `plan` is called after the
    /// known models were listed, so that a model requested in the meantime is not forgotten.
    pub async fn poll(&self, plan: impl FnOnce() -> PollPlan) -> PollOutcome {
        self.debounce.poll_started(Instant::now());
        let writes_before: HashMap<ModelName, u64> =
            self.memory().models.iter().map(|(name, model)| (name.clone(), model.writes)).collect();
        let PollPlan { models: watched, judged, followed } = plan();
        let result = self.read(&watched).await;
        let (evidence, listings, display) = if result.is_ok() {
            let evidence = self.read_all_evidence(judged).await;
            (evidence, self.read_listings(&followed).await, self.read_display_metrics(&watched).await)
        } else {
            Default::default()
        };
        let mut memory = self.memory();
        let mut outcome = PollOutcome::default();
        let health = match result {
            Ok((server_version, models)) => {
                memory.server_version = server_version.or_else(|| memory.server_version.take());
                for (name, facts) in models {
                    let writes = memory.models.get(&name).map_or(0, |model| model.writes);
                    if writes != writes_before.get(&name).copied().unwrap_or_default() {
                        self.poll_now();
                        continue;
                    }
                    let has_changed = memory.models.get_mut(&name).is_some_and(ModelMemory::take_changes);
                    let changed = match facts {
                        Ok(facts) => memory.remember(&name, facts),
                        Err(error) => memory.models.entry(name.clone()).or_default().set_error(error),
                    };
                    if changed || has_changed {
                        outcome.changed.insert(name);
                    }
                }
                memory.models.retain(|name, _| watched.contains(name) || !writes_before.contains_key(name));
                outcome.changed.extend(memory.remember_evidence(evidence));
                outcome.changed.extend(memory.remember_listings(listings));
                outcome.changed.extend(display);
                Ok(())
            }
            Err(error) => Err(error),
        };
        outcome.health_changed = memory.health.as_ref() != Some(&health);
        memory.health = Some(health);
        self.debounce.poll_ended(Instant::now());
        outcome
    }

    async fn read(
        &self,
        watched: &BTreeSet<ModelName>,
    ) -> Result<(Option<String>, BTreeMap<ModelName, ModelRead>), ReasonMessage> {
        let client = self.client()?;
        let failed = |error| self.explain(None, &error);
        let known_version = self.memory().server_version.is_some();
        let server_version =
            if known_version && !watched.is_empty() { None } else { client.probe().await.map_err(failed)? };
        let found = client.models(watched).await.map_err(failed)?;
        let mut models = BTreeMap::new();
        for name in watched {
            let read = match found.get(name) {
                Some(facts) => Ok(Some(facts.clone())),
                // Missing from a listing is not absent: the listing is paged by offset, so a concurrent
                // delete hides others.
                None => match client.model(name).await {
                    Ok(facts) => Ok(facts),
                    Err(error) if is_about_one(&error) => Err(self.explain(Some(name), &error)),
                    Err(error) => return Err(failed(error)),
                },
            };
            models.insert(name.clone(), read);
        }
        Ok((server_version, models))
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
