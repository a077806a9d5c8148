//! Writes to the registry. `MLflow` has no compare-and-set, so an alias is read once more right before it is written.
//!
//! An alias is set beside the passes: a registry that is slow to answer must not hold up the next change of traffic. The
//! end of a write wakes the ModelAlias, and what the registry names then is read like any other fact.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::ResourceExt;

use super::Effect;
use crate::{
    api::{
        ModelAlias,
        condition::{Note, Reason},
        names::{AliasName, Version},
    },
    context::{Context, Wakeups},
    decide::AliasRole,
    observe::{
        cluster::AliasKey,
        model_alias::{Model, key},
        registries::note,
    },
    registry::Registry,
};

/// How long a write that failed is not tried again; twice as long after each further failure, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_mins(5);

type WriteKey = (String, AliasRole);

/// The writes of aliases: those that run, those that failed, and what was written last. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AliasWrites {
    states: Arc<Mutex<HashMap<WriteKey, State>>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    running: bool,
    /// Why the last try failed, and when the next one is due.
    failure: Option<(Note, Instant)>,
    /// How many tries failed in a row.
    failures: u32,
    /// The version that was written last.
    written: Option<Version>,
}

impl State {
    fn failed(&mut self, note: Note) {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures += 1;
        self.failure = Some((note, Instant::now() + pause));
    }
}

/// One write.
struct Write {
    key: WriteKey,
    owner: AliasKey,
    model: Model,
    alias: AliasName,
    version: Version,
    replaces: Option<Version>,
    wakeups: Wakeups,
    writes: AliasWrites,
}

impl AliasWrites {
    fn lock(&self) -> MutexGuard<'_, HashMap<WriteKey, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a write, unless one of the same alias runs: its end lets everything be decided anew. While tries fail, the
    /// answer is why the last one did, so that what is told stands still.
    pub(super) fn start(
        &self,
        context: &Context,
        alias: &ModelAlias,
        model: &Model,
        role: AliasRole,
        version: Version,
        replaces: Option<Version>,
    ) -> Result<Effect, Note> {
        let name = name_of(alias, role)?.clone();
        let write_key = (alias.uid().unwrap_or_default(), role);
        let mut states = self.lock();
        let state = states.entry(write_key.clone()).or_default();
        let failed = state.failure.clone();
        if state.running || failed.as_ref().is_some_and(|(_, due)| Instant::now() < *due) {
            return failed.map_or(Ok(Effect::UnderWay), |(note, _)| Err(note));
        }
        state.running = true;
        drop(states);
        let write = Write {
            key: write_key,
            owner: key(alias),
            model: model.clone(),
            alias: name,
            version,
            replaces,
            wakeups: context.wakeups.clone(),
            writes: self.clone(),
        };
        tokio::spawn(write.run());
        failed.map_or(Ok(Effect::Done), |(note, _)| Err(note))
    }

    /// The version that we let one of the two aliases name last, since this operator began.
    #[must_use]
    pub fn last_written(&self, alias: &ModelAlias, role: AliasRole) -> Option<Version> {
        self.lock().get(&(alias.uid().unwrap_or_default(), role))?.written
    }

    /// Whether a write for this ModelAlias runs.
    fn is_running(&self, alias: &ModelAlias) -> bool {
        let uid = alias.uid().unwrap_or_default();
        let states = self.lock();
        [AliasRole::Main, AliasRole::Previous]
            .into_iter()
            .any(|role| states.get(&(uid.clone(), role)).is_some_and(|state| state.running))
    }

    /// Forgets the writes of a ModelAlias that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().retain(|(other, _), _| other != uid);
    }
}

impl Write {
    async fn run(self) {
        let (model, alias) = (&self.model, self.alias.as_str());
        let ended = self.once().await;
        {
            let mut states = self.writes.lock();
            let state = states.entry(self.key).or_default();
            state.running = false;
            match ended {
                Ok(()) => {
                    *state = State { written: Some(self.version), ..State::default() };
                    tracing::info!(model = model.name.as_str(), alias, version = %self.version, "the alias was set in the registry");
                }
                // Somebody else was faster; what is there now is decided upon anew.
                Err(note) if note.reason == Reason::RegistryPending => {}
                Err(note) => {
                    tracing::warn!(model = model.name.as_str(), alias, reason = %note.reason, message = note.message, "the alias was not set in the registry");
                    state.failed(note);
                }
            }
        }
        self.wakeups.alias(&self.owner);
    }

    async fn once(&self) -> Result<(), Note> {
        let client = self.model.registry.client()?;
        unmoved(&self.model, client.as_ref(), &self.alias, self.replaces).await?;
        client.set_alias(&self.model.name, &self.alias, self.version).await.map_err(|error| note(&error))?;
        self.model.registry.note_alias(&self.model.name, &self.alias, Some(self.version));
        Ok(())
    }
}

fn name_of(alias: &ModelAlias, role: AliasRole) -> Result<&AliasName, Note> {
    match role {
        AliasRole::Main => Some(&alias.spec.alias),
        AliasRole::Previous => alias.spec.previous_alias.as_ref(),
    }
    .ok_or_else(|| Note::new(Reason::AsWished, "spec.previousAlias was removed meanwhile"))
}

/// That the alias still names what the decision was made from. Otherwise what is there now is remembered, and decided
/// upon anew.
async fn unmoved(
    model: &Model,
    client: &dyn Registry,
    alias: &AliasName,
    known: Option<Version>,
) -> Result<(), Note> {
    let facts = client.model(&model.name).await.map_err(|error| note(&error))?;
    let named = facts.as_ref().and_then(|facts| facts.aliases.get(alias).copied());
    if named == known {
        return Ok(());
    }
    model.registry.note_model(&model.name, facts);
    Err(Note::new(
        Reason::RegistryPending,
        format!("the alias {:?} was moved meanwhile; looking again", alias.as_str()),
    ))
}

/// Removes an alias. The deletion of the ModelAlias waits for it, so this one is not done beside the pass.
pub(super) async fn delete_alias(
    context: &Context,
    model: &Model,
    alias: &ModelAlias,
    role: AliasRole,
    replaces: Version,
) -> Result<(), Note> {
    if context.alias_writes.is_running(alias) {
        return Err(Note::new(
            Reason::RegistryPending,
            "an alias is being set at this moment; looking again when it is",
        ));
    }
    let name = name_of(alias, role)?;
    let client = model.registry.client()?;
    unmoved(model, client.as_ref(), name, Some(replaces)).await?;
    client.delete_alias(&model.name, name).await.map_err(|error| note(&error))?;
    model.registry.note_alias(&model.name, name, None);
    Ok(())
}
