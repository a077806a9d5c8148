//! The registries that are watched: one [`Handle`] each, read in batches, remembered in between.
//!
//! A poll reads every watched model in as few requests as the backend can, believes that one is gone only after a direct
//! read, and says which models have changed. Versions are read one by one when somebody asks, and again after their
//! model changed.
#![expect(clippy::disallowed_methods, reason = "effects: polls by the clock")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Notify;
use url::Url;

use crate::{
    api::{
        condition::{Note, Reason},
        names::{AliasName, ModelName, Version},
    },
    registry::{
        RegisteredModelFacts, Registry, RegistryError, VersionFacts, VersionState,
        mlflow::{Connection, MlflowRegistry},
    },
    render::RegistryForPods,
};

/// How long one read on behalf of a decision may take: a hanging registry must not hold up a rollback, which needs
/// nothing from it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Names a registry: the one that Laurel was installed with, or a ModelRegistry by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegistryKey {
    /// The one that Laurel was installed with.
    Default,
    /// A ModelRegistry.
    Object {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// What a registry is, apart from what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The registry's URL.
    pub url: Url,
    /// The workspace in it.
    pub workspace: Option<String>,
    /// How often it is read.
    pub poll_interval: Duration,
    /// What serving pods need to know.
    pub pods: RegistryForPods,
}

/// Every registry that is known.
#[derive(Debug, Default)]
pub struct Hub {
    handles: RwLock<HashMap<RegistryKey, Arc<Handle>>>,
}

impl Hub {
    /// The registry of this name, if it is known.
    #[must_use]
    pub fn get(&self, key: &RegistryKey) -> Option<Arc<Handle>> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Adds or replaces a registry. Answers its handle, and whether it is a new one that has to be polled.
    pub fn set(&self, key: &RegistryKey, settings: Settings) -> (Arc<Handle>, bool) {
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        match handles.get(key) {
            Some(known) if known.settings == settings => (known.clone(), false),
            known => {
                if let Some(handle) = known {
                    handle.retire();
                }
                let handle = Arc::new(Handle::new(settings));
                handles.insert(key.clone(), handle.clone());
                (handle, true)
            }
        }
    }

    /// Forgets a registry and ends its polling.
    pub fn remove(&self, key: &RegistryKey) {
        let removed = self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(handle) = removed {
            handle.retire();
        }
    }
}

/// One registry: how to ask it, and what it said last.
#[derive(Debug)]
pub struct Handle {
    /// What it is.
    pub settings: Settings,
    client: RwLock<Result<Arc<dyn Registry>, Note>>,
    /// The fingerprint of the connection that the client was made from.
    connection: Mutex<Option<[u8; 32]>>,
    memory: Mutex<Memory>,
    wake: Notify,
    retired: tokio_util::sync::CancellationToken,
}

#[derive(Debug, Default)]
struct Memory {
    /// `None` until the first poll.
    health: Option<Result<(), Note>>,
    server_version: Option<String>,
    models: HashMap<ModelName, ModelMemory>,
}

/// What was read of a model.
#[derive(Clone, Debug, Default, PartialEq)]
enum Facts {
    /// It was not read yet.
    #[default]
    Unread,
    /// The registry itself said that it does not exist.
    Absent,
    /// What the registry said last.
    Present(RegisteredModelFacts),
}

impl Facts {
    /// When the model was made, and when it or the set of its versions last changed.
    fn times(&self) -> Option<(Timestamp, Timestamp)> {
        match self {
            Self::Present(facts) => Some((facts.created_at, facts.updated_at)),
            Self::Unread | Self::Absent => None,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct ModelMemory {
    facts: Facts,
    versions: BTreeMap<Version, Option<VersionFacts>>,
    /// How often a write of our own was noted. A poll that began before the last of them does not know of it.
    notes: u64,
    /// Something was noted that others than the writer have to hear of.
    news: bool,
}

/// What a model looks like, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelView {
    /// It cannot be known now, and why.
    Unknown(Note),
    /// The registry itself said that it does not exist.
    Absent,
    /// This is what the registry said last.
    Present(RegisteredModelFacts),
}

/// What a poll found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollOutcome {
    /// The models about which something is known now that was not before.
    pub changed: BTreeSet<ModelName>,
    /// Whether the registry came or went.
    pub health_changed: bool,
}

impl Handle {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            client: RwLock::new(Err(Note::new(
                Reason::RegistryNotRead,
                "the registry has not been read yet",
            ))),
            connection: Mutex::default(),
            memory: Mutex::default(),
            wake: Notify::new(),
            retired: tokio_util::sync::CancellationToken::new(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retire(&self) {
        self.retired.cancel();
    }

    /// Resolves when the registry is not to be polled any more.
    pub async fn retirement(&self) {
        self.retired.cancelled().await;
    }

    /// Who is meant by this registry: two handles with the same identity speak of the same aliases. Without a workspace, MLflow
    /// takes the one called `default`.
    #[must_use]
    pub fn identity(&self) -> (Url, Option<String>) {
        let workspace = self.settings.workspace.clone().filter(|workspace| workspace != "default");
        (self.settings.url.clone(), workspace)
    }

    /// Replaces the client, for instance after a Secret changed, or says why there is none.
    pub fn set_client(&self, client: Result<Arc<dyn Registry>, Note>) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
        self.poll_now();
    }

    /// Takes a connection as it was read just now. A client is made anew only when something about it differs.
    pub fn renew_client(&self, connection: Result<Box<Connection>, Note>) {
        let fingerprint = connection.as_ref().ok().map(|connection| connection.fingerprint());
        let unchanged = {
            let mut known = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let unchanged = fingerprint.is_some() && *known == fingerprint;
            *known = fingerprint;
            unchanged
        };
        match connection {
            Ok(_) if unchanged => {}
            Ok(connection) => self.set_client(client(*connection)),
            Err(note) if self.client().is_err_and(|known| known == note) => {}
            Err(note) => self.set_client(Err(note)),
        }
    }

    /// The client.
    ///
    /// # Errors
    /// Why there is none: a missing Secret, a certificate that is none.
    pub fn client(&self) -> Result<Arc<dyn Registry>, Note> {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the next poll happen now.
    pub fn poll_now(&self) {
        self.wake.notify_one();
    }

    /// Waits until the next poll is due.
    pub async fn next_poll(&self) {
        tokio::select! {
            () = tokio::time::sleep(self.settings.poll_interval) => {}
            () = self.wake.notified() => {}
        }
    }

    /// The registry's health and version; `None` before the first poll.
    #[must_use]
    pub fn health(&self) -> (Option<Result<(), Note>>, Option<String>) {
        let memory = self.memory();
        (memory.health.clone(), memory.server_version.clone())
    }

    fn trouble(memory: &Memory) -> Option<Note> {
        match &memory.health {
            Some(Ok(())) => None,
            Some(Err(note)) => Some(note.clone()),
            None => Some(Note::new(Reason::RegistryNotRead, "the registry has not been read yet")),
        }
    }

    /// What is known of a model. One that nobody has asked for before is read by the next poll, which happens now.
    #[must_use]
    pub fn model(&self, name: &ModelName) -> ModelView {
        let mut memory = self.memory();
        let trouble = Self::trouble(&memory);
        let known = memory.models.entry(name.clone()).or_insert_with(|| {
            self.poll_now();
            ModelMemory::default()
        });
        match (trouble, &known.facts) {
            (Some(trouble), _) => ModelView::Unknown(trouble),
            (None, Facts::Unread) => ModelView::Unknown(Note::new(
                Reason::RegistryNotRead,
                format!("the model {name:?} is being read"),
            )),
            (None, Facts::Absent) => ModelView::Absent,
            (None, Facts::Present(facts)) => ModelView::Present(facts.clone()),
        }
    }

    /// What is remembered of a version; `None` when it was not read yet.
    #[must_use]
    pub fn remembered_version(&self, name: &ModelName, version: Version) -> Option<Option<VersionFacts>> {
        self.memory().models.get(name)?.versions.get(&version).cloned()
    }

    /// Asks the registry for a version, and remembers what it says for good, unless it is still taking the version in.
    ///
    /// # Errors
    /// Why it cannot be known now.
    pub async fn read_version(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionFacts>, Note> {
        if let Some(trouble) = Self::trouble(&self.memory()) {
            return Err(trouble);
        }
        let client = self.client()?;
        let answer = tokio::time::timeout(PATIENCE, client.version(name, version)).await.map_err(|_| {
            let message = format!(
                "{} did not say within {}s what version {version} is",
                self.settings.url,
                PATIENCE.as_secs()
            );
            Note::new(Reason::RegistryUnreachable, message)
        })?;
        let facts = answer.map_err(|error| note(&error))?;
        if facts.as_ref().is_none_or(|facts| facts.state != VersionState::Pending) {
            self.memory().models.entry(name.clone()).or_default().versions.insert(version, facts.clone());
        }
        Ok(facts)
    }

    /// Notes a write of our own, so that it need not be read back.
    pub fn note_alias(&self, name: &ModelName, alias: &AliasName, version: Option<Version>) {
        if let Some(ModelMemory { facts: Facts::Present(facts), notes, news, .. }) =
            self.memory().models.get_mut(name)
        {
            *notes += 1;
            *news = true;
            match version {
                Some(version) => drop(facts.aliases.insert(alias.clone(), version)),
                None => drop(facts.aliases.remove(alias)),
            }
        }
        self.poll_now();
    }

    /// Puts a fresh read of a model in place of what was known.
    pub fn note_model(&self, name: &ModelName, facts: Option<RegisteredModelFacts>) {
        let mut memory = self.memory();
        if Self::remember(&mut memory, name, facts)
            && let Some(known) = memory.models.get_mut(name)
        {
            known.notes += 1;
            known.news = true;
            drop(memory);
            self.poll_now();
        }
    }

    fn remember(memory: &mut Memory, name: &ModelName, facts: Option<RegisteredModelFacts>) -> bool {
        let known = memory.models.entry(name.clone()).or_default();
        let facts = facts.map_or(Facts::Absent, Facts::Present);
        if known.facts == facts {
            return false;
        }
        if known.facts.times() == facts.times() {
            known.versions.retain(|_, version| version.is_some());
        } else {
            known.versions.clear();
        }
        known.facts = facts;
        true
    }

    /// Reads every watched model, and forgets those that nobody watches any more. `watched` is asked after it was noted which
    /// models are known, so that one that is asked for meanwhile is not forgotten.
    pub async fn poll(&self, watched: impl FnOnce() -> BTreeSet<ModelName>) -> PollOutcome {
        let notes_before: HashMap<ModelName, u64> =
            self.memory().models.iter().map(|(name, model)| (name.clone(), model.notes)).collect();
        let watched = watched();
        let result = self.read(&watched).await;
        let mut memory = self.memory();
        let mut outcome = PollOutcome::default();
        let health = match result {
            Ok((server_version, models)) => {
                memory.server_version = server_version.or_else(|| memory.server_version.take());
                for (name, facts) in models {
                    let notes = memory.models.get(&name).map_or(0, |model| model.notes);
                    if notes != notes_before.get(&name).copied().unwrap_or_default() {
                        self.poll_now();
                        continue;
                    }
                    let news =
                        memory.models.get_mut(&name).is_some_and(|model| std::mem::take(&mut model.news));
                    if Self::remember(&mut memory, &name, facts) || news {
                        outcome.changed.insert(name);
                    }
                }
                memory.models.retain(|name, _| watched.contains(name) || !notes_before.contains_key(name));
                Ok(())
            }
            Err(note) => Err(note),
        };
        outcome.health_changed = memory.health.as_ref() != Some(&health);
        memory.health = Some(health);
        outcome
    }

    async fn read(
        &self,
        watched: &BTreeSet<ModelName>,
    ) -> Result<(Option<String>, BTreeMap<ModelName, Option<RegisteredModelFacts>>), Note> {
        let client = self.client()?;
        let known_version = self.memory().server_version.is_some();
        let server_version = if known_version && !watched.is_empty() {
            None
        } else {
            client.probe().await.map_err(|error| note(&error))?
        };
        let found = client.models(watched).await.map_err(|error| note(&error))?;
        let mut models = BTreeMap::new();
        for name in watched {
            let facts = match found.get(name) {
                Some(facts) => Some(facts.clone()),
                // Missing from a listing is not absent: the listing is paged by offset, and a delete meanwhile hides others.
                None => client.model(name).await.map_err(|error| note(&error))?,
            };
            models.insert(name.clone(), facts);
        }
        Ok((server_version, models))
    }
}

/// The client for a connection, or why there can be none.
fn client(connection: Connection) -> Result<Arc<dyn Registry>, Note> {
    match MlflowRegistry::new(connection) {
        Ok(client) => Ok(Arc::new(client)),
        Err(error) => Err(Note::new(Reason::RegistryInvalid, format!("spec.mlflow and spec.auth: {error}"))),
    }
}

/// A registry's refusal as a reason and a sentence.
#[must_use]
pub fn note(error: &RegistryError) -> Note {
    let reason = match error {
        RegistryError::Unreachable { .. } | RegistryError::TimedOut { .. } => Reason::RegistryUnreachable,
        RegistryError::Unauthorized { .. } => Reason::RegistryUnauthorized,
        RegistryError::Forbidden { .. } => Reason::RegistryForbidden,
        RegistryError::HostRefused { .. } => Reason::RegistryHostRefused,
        RegistryError::WorkspaceRefused { .. } => Reason::RegistryWorkspaceRefused,
        RegistryError::Refused { .. } => Reason::RegistryRefused,
        RegistryError::RateLimited { .. }
        | RegistryError::ServerFailed { .. }
        | RegistryError::NotARegistry { .. } => Reason::RegistryFailing,
    };
    Note::new(reason, error.to_string())
}
