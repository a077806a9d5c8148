//! Alias writes. `MLflow` has no compare-and-set, so an alias is read again right before it is written.
//!
//! An alias is set and deleted beside the reconciles: a slow registry must not hold up the next change of
//! traffic. The end of a write wakes the ModelAlias, and its result is read from the registry like any other
//! fact.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Effect;
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        model_alias::AliasKey,
        names::{AliasName, Version},
    },
    cluster::Requeue,
    decide::AliasRole,
    registry::{Registry, RegistryError, limiter::Priority},
    resolve::{Model, Subject},
};
use parking_lot::{Mutex, MutexGuard};

/// The pause after a failed write; doubled by each further failure, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_mins(5);
/// A failure that nobody retried for this long, although it was due, was settled in another way: the write
/// was done and only its response was lost, or somebody else did it.
const SETTLED: Duration = Duration::from_mins(1);

type WriteKey = (String, AliasRole);

/// Alias writes: running, failed, and last written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AliasWrites {
    requeue: Requeue,
    states: Arc<Mutex<HashMap<WriteKey, AliasState>>>,
}

#[derive(Clone, Debug, Default)]
struct AliasState {
    running: bool,
    failure: Option<FailedWrite>,
    /// What was written last.
    written: Option<Version>,
}

/// Why the last attempt failed.
#[derive(Clone, Debug)]
struct FailedWrite {
    /// The intended write; `None` for a deletion.
    version: Option<Version>,
    cause: ReasonMessage,
    /// Number of failures in a row.
    tries: u32,
    /// When the next attempt is due.
    due: Instant,
}

impl AliasState {
    /// Returns why the last attempt to write a version failed, if that still counts.
    fn failure(&self, version: Option<Version>, now: Instant) -> Option<&FailedWrite> {
        let counts = |failure: &&FailedWrite| {
            failure.version == version && now.saturating_duration_since(failure.due) < SETTLED
        };
        self.failure.as_ref().filter(counts)
    }

    fn failed(&mut self, version: Option<Version>, cause: ReasonMessage, now: Instant) {
        let tries = self.failure(version, now).map_or(0, |failure| failure.tries);
        let pause = PAUSE.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX);
        self.failure = Some(FailedWrite { version, cause, tries: tries + 1, due: now + pause });
    }
}

/// One write.
struct AliasWrite {
    key: WriteKey,
    owner: AliasKey,
    model: Model,
    alias: AliasName,
    /// `None` removes the alias.
    version: Option<Version>,
    replaces: Option<Version>,
    writes: AliasWrites,
}

impl AliasWrites {
    /// Creates an empty set.
    #[must_use]
    pub fn new(requeue: Requeue) -> Self {
        Self { requeue, states: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WriteKey, AliasState>> {
        self.states.lock()
    }

    /// Begins a write, or without a version a deletion, unless one of the same alias is running: its end
    /// triggers a new decision. While attempts fail, returns the last error, so that the reported message is
    /// stable.
    pub(crate) fn start(
        &self,
        subject: &Subject<'_>,
        model: &Model,
        role: AliasRole,
        version: Option<Version>,
        replaces: Option<Version>,
    ) -> Result<Effect, ReasonMessage> {
        let name = name_of(subject, role)?.clone();
        let write_key = (subject.uid.clone(), role);
        let mut states = self.lock();
        let state = states.entry(write_key.clone()).or_default();
        let now = Instant::now();
        let failed = state.failure(version, now).cloned();
        if state.running || failed.as_ref().is_some_and(|failure| now < failure.due) {
            return failed.map_or(Ok(Effect::UnderWay), |failure| Err(failure.cause));
        }
        state.running = true;
        drop(states);
        let write = AliasWrite {
            key: write_key,
            owner: subject.key.clone(),
            model: model.clone(),
            alias: name,
            version,
            replaces,
            writes: self.clone(),
        };
        tokio::spawn(write.run());
        failed.map_or(Ok(Effect::Begun), |failure| Err(failure.cause))
    }

    /// Returns the version that this process last set one of the two aliases to.
    #[must_use]
    pub fn last_written(&self, uid: &str, role: AliasRole) -> Option<Version> {
        self.lock().get(&(uid.to_owned(), role))?.written
    }

    /// The aliases of this ModelAlias that are being written.
    #[must_use]
    pub fn running(&self, uid: &str) -> Vec<AliasRole> {
        let states = self.lock();
        let is_running =
            |role: &AliasRole| states.get(&(uid.to_owned(), *role)).is_some_and(|state| state.running);
        [AliasRole::Main, AliasRole::Previous, AliasRole::Former].into_iter().filter(is_running).collect()
    }

    /// Forgets the writes of a ModelAlias that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().retain(|(other, _), _| other != uid);
    }
}

impl AliasWrite {
    async fn run(self) {
        let (model, alias) = (&self.model, self.alias.as_str());
        let ended = self.once().await;
        // Nothing is kept of a ModelAlias that was forgotten in the meantime.
        if let Some(state) = self.writes.lock().get_mut(&self.key) {
            state.running = false;
            match ended {
                Ok(()) => {
                    *state = AliasState { written: self.version, ..AliasState::default() };
                    let version = self.version.map(|version| version.to_string());
                    tracing::info!(
                        model = model.name.as_str(),
                        alias,
                        version,
                        "alias written to the registry"
                    );
                }
                // Another writer was faster; the new state is decided upon again.
                Err(cause) if cause.reason == Reason::RegistryPending => {}
                Err(cause) => {
                    tracing::warn!(model = model.name.as_str(), alias, reason = %cause.reason, message = cause.message, "alias not written to the registry");
                    state.failed(self.version, cause, Instant::now());
                }
            }
        }
        self.writes.requeue.alias(&self.owner);
    }

    async fn once(&self) -> Result<(), ReasonMessage> {
        let client = self.model.registry.client(Priority::AliasWrite)?;
        unmoved(&self.model, client.as_ref(), &self.alias, self.replaces).await?;
        let (model, alias) = (&self.model.name, &self.alias);
        let written = match self.version {
            Some(version) => client.set_alias(model, alias, version).await,
            None => client.delete_alias(model, alias).await,
        };
        written.map_err(|error| explain(&self.model, &error))?;
        self.model.registry.remember_alias(model, alias, self.version);
        Ok(())
    }
}

fn explain(model: &Model, error: &RegistryError) -> ReasonMessage {
    model.registry.explain(Some(&model.name), error)
}

fn name_of<'a>(subject: &'a Subject<'_>, role: AliasRole) -> Result<&'a AliasName, ReasonMessage> {
    let changed = || ReasonMessage::new(Reason::AsDesired, "spec.previousAlias was changed in the meantime");
    subject.alias(role).ok_or_else(changed)
}

/// Checks that the alias still names what the decision was based on. Otherwise the new value is remembered
/// and decided upon again.
async fn unmoved(
    model: &Model,
    client: &dyn Registry,
    alias: &AliasName,
    known: Option<Version>,
) -> Result<(), ReasonMessage> {
    let begun = model.registry.begin();
    let facts = client.model(&model.name).await.map_err(|error| explain(model, &error))?;
    let named = facts.as_ref().and_then(|facts| facts.aliases.get(alias).copied());
    if named == known {
        return Ok(());
    }
    model.registry.remember_model(&model.name, begun, facts);
    Err(ReasonMessage::new(
        Reason::RegistryPending,
        format!("the alias {:?} was moved in the meantime; retrying", alias.as_str()),
    ))
}
