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

use crate::{
    api::{
        ModelAlias,
        condition::{Note, Reason},
        names::{AliasName, Version},
    },
    controllers::{Context, Wakeups},
    decide::AliasRole,
    observe::{
        cluster::AliasKey,
        model_alias::{Model, key},
        registries::note,
    },
    registry::Registry,
};

/// How long a write that failed is not tried again.
const PAUSE: Duration = Duration::from_secs(5);

type WriteKey = (String, AliasRole);

/// The writes of aliases that run, and those that failed a moment ago. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AliasWrites {
    states: Arc<Mutex<HashMap<WriteKey, State>>>,
}

#[derive(Clone, Debug)]
enum State {
    Running,
    Failed { note: Note, at: Instant },
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

    /// Begins a write, unless one of the same alias runs: its end lets everything be decided anew.
    pub(super) fn start(
        &self,
        context: &Context,
        alias: &ModelAlias,
        model: &Model,
        role: AliasRole,
        version: Version,
        replaces: Option<Version>,
    ) -> Result<(), Note> {
        let name = name_of(alias, role)?.clone();
        let write_key = (alias.uid().unwrap_or_default(), role);
        {
            let mut states = self.lock();
            match states.get(&write_key) {
                Some(State::Running) => return Ok(()),
                Some(State::Failed { note, at }) if at.elapsed() < PAUSE => return Err(note.clone()),
                Some(State::Failed { .. }) | None => {}
            }
            states.insert(write_key.clone(), State::Running);
        }
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
        Ok(())
    }
}

impl Write {
    async fn run(self) {
        let (model, alias) = (&self.model, self.alias.as_str());
        match self.once().await {
            Ok(()) => {
                tracing::info!(model = model.name.as_str(), alias, version = %self.version, "the alias was set in the registry");
                self.writes.lock().remove(&self.key);
            }
            Err(note) => {
                tracing::warn!(model = model.name.as_str(), alias, reason = %note.reason, message = note.message, "the alias was not set in the registry");
                self.writes.lock().insert(self.key, State::Failed { note, at: Instant::now() });
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
    model: &Model,
    alias: &ModelAlias,
    role: AliasRole,
    replaces: Version,
) -> Result<(), Note> {
    let name = name_of(alias, role)?;
    let client = model.registry.client()?;
    unmoved(model, client.as_ref(), name, Some(replaces)).await?;
    client.delete_alias(&model.name, name).await.map_err(|error| note(&error))?;
    model.registry.note_alias(&model.name, name, None);
    Ok(())
}
