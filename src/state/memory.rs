//! Per-object memory between reconciles, of what the cluster does not show, or not yet.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    api::{
        ModelAlias, ModelAliasStatus, ModelExperiment, ModelExperimentStatus, RegisteredModel,
        RegisteredModelStatus, model_alias::AliasKey, names::ModelName,
    },
    registry::polled::{PolledRegistry, RegistryKey},
    resolve::{Model, Remembered, Subject},
    status::{Due, Held, due, hold_for},
};

/// The memory, by UID.
#[derive(Debug, Default)]
pub struct Memory {
    /// The model of each ModelAlias with a finalizer.
    models: Mutex<HashMap<String, (AliasKey, Model)>>,
    /// The registry of each RegisteredModel with a finalizer.
    registries: Mutex<HashMap<String, Arc<PolledRegistry>>>,
    /// Each ModelAlias's last written status, with the resource version of that write, until the watch shows
    /// it.
    statuses: Mutex<HashMap<String, Written<ModelAliasStatus>>>,
    /// The same of each RegisteredModel.
    model_statuses: Mutex<HashMap<String, Written<RegisteredModelStatus>>>,
    /// The same of each ModelExperiment.
    experiment_statuses: Mutex<HashMap<String, Written<ModelExperimentStatus>>>,
    /// When the first change of each status that has not been written was held back.
    held: Mutex<HashMap<String, Timestamp>>,
    /// When each object was first seen in deletion.
    deletions: Mutex<HashMap<String, Timestamp>>,
}

/// A status as written, and the resource version of that write.
type Written<S> = (u64, S);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

fn revision(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Returns the status that was written, unless the object is from after that.
fn latest<S: Clone>(
    statuses: &Mutex<HashMap<String, Written<S>>>,
    object: &impl ResourceExt,
    shown: Option<&S>,
) -> Option<S> {
    let uid = object.uid().unwrap_or_default();
    let mut statuses = locked(statuses);
    match statuses.get(&uid) {
        Some((written, status)) if revision(object) < *written => Some(status.clone()),
        _ => {
            statuses.remove(&uid);
            shown.cloned()
        }
    }
}

impl Memory {
    /// Remembers the model of a ModelAlias, as long as its deletion needs it.
    pub fn remember_model(&self, subject: &Subject<'_>) {
        let has_finalizer = subject.metadata().finalizers.as_ref().is_some_and(|all| !all.is_empty());
        if !has_finalizer {
            locked(&self.models).remove(&subject.uid);
        } else if let Ok(model) = &subject.model {
            locked(&self.models).insert(subject.uid.clone(), (subject.key.clone(), model.clone()));
        }
    }

    /// Returns the last known model of an alias.
    fn model(&self, alias: &ModelAlias) -> Option<Model> {
        locked(&self.models).get(&alias.uid()?).map(|(_, model)| model.clone())
    }

    /// Returns the `ModelAliases` in deletion whose models are in this registry, with these models: they are
    /// read although the `RegisteredModels` may be gone.
    #[must_use]
    pub fn ending(&self, registry: &RegistryKey) -> Vec<(AliasKey, ModelName)> {
        let (deletions, models) = (locked(&self.deletions), locked(&self.models));
        let ending = deletions.keys().filter_map(|uid| models.get(uid));
        let ending = ending.filter(|(_, model)| model.registry.key == *registry);
        ending.map(|(alias, model)| (alias.clone(), model.name.clone())).collect()
    }

    /// Remembers the registry of a model, as long as its deletion needs it.
    pub fn remember_registry(&self, model: &RegisteredModel, registry: &Arc<PolledRegistry>) {
        if let Some(uid) = model.uid().filter(|_| !model.finalizers().is_empty()) {
            locked(&self.registries).insert(uid, registry.clone());
        }
    }

    /// Returns the last known registry of a model.
    #[must_use]
    pub fn registry(&self, model: &RegisteredModel) -> Option<Arc<PolledRegistry>> {
        locked(&self.registries).get(&model.uid()?).cloned()
    }

    /// Forgets a RegisteredModel that is gone.
    pub fn forget_model(&self, model: &RegisteredModel) {
        if let Some(uid) = model.uid() {
            locked(&self.registries).remove(&uid);
            locked(&self.model_statuses).remove(&uid);
            locked(&self.held).remove(&uid);
            locked(&self.deletions).remove(&uid);
        }
    }

    /// Returns when this process first saw an object in deletion. `deletionTimestamp` comes from another
    /// clock, and an operator that was not running since then still has to do its part.
    pub fn deleting_since(&self, object: &impl ResourceExt, now: Timestamp) -> Timestamp {
        *locked(&self.deletions).entry(object.uid().unwrap_or_default()).or_insert(now)
    }

    /// Remembers the status that was just written, until the watch shows it.
    pub fn remember_status(&self, written: &ModelAlias, status: &ModelAliasStatus) {
        if let Some(uid) = written.uid() {
            locked(&self.statuses).insert(uid, (revision(written), status.clone()));
        }
    }

    /// Returns what is known of a ModelAlias beyond the object itself.
    #[must_use]
    pub fn recall(&self, alias: &ModelAlias, now: Timestamp) -> Remembered {
        let is_ending = alias.metadata.deletion_timestamp.is_some();
        Remembered {
            status: self.latest_status(alias),
            model: if is_ending { self.model(alias) } else { None },
            deleting_since: is_ending.then(|| self.deleting_since(alias, now)),
        }
    }

    /// Returns the newest known status. The watch may lag behind our own writes, and a decision based on an
    /// older status would undo newer changes.
    #[must_use]
    pub fn latest_status(&self, alias: &ModelAlias) -> ModelAliasStatus {
        latest(&self.statuses, alias, alias.status.as_ref()).unwrap_or_default()
    }

    /// Remembers the status of a RegisteredModel that was just written, until the watch shows it.
    pub fn remember_model_status(&self, written: &RegisteredModel, status: &RegisteredModelStatus) {
        if let Some(uid) = written.uid() {
            locked(&self.model_statuses).insert(uid, (revision(written), status.clone()));
        }
    }

    /// Returns the newest known status of a RegisteredModel.
    #[must_use]
    pub fn latest_model_status(&self, model: &RegisteredModel) -> Option<RegisteredModelStatus> {
        latest(&self.model_statuses, model, model.status.as_ref())
    }

    /// Remembers the status of a ModelExperiment that was just written, until the watch shows it.
    pub fn remember_experiment_status(&self, written: &ModelExperiment, status: &ModelExperimentStatus) {
        if let Some(uid) = written.uid() {
            locked(&self.experiment_statuses).insert(uid, (revision(written), status.clone()));
        }
    }

    /// Returns the newest known status of a ModelExperiment.
    #[must_use]
    pub fn latest_experiment_status(&self, experiment: &ModelExperiment) -> ModelExperimentStatus {
        latest(&self.experiment_statuses, experiment, experiment.status.as_ref()).unwrap_or_default()
    }

    /// Forgets a ModelExperiment that is gone.
    pub fn forget_experiment(&self, uid: &str) {
        locked(&self.experiment_statuses).remove(uid);
    }

    /// Returns when to write the status `next` of an object, of which `written` is the newest: see [`due`].
    pub fn due<S: Held>(&self, uid: &str, written: &S, next: &S, must: bool, now: Timestamp) -> Due {
        let mut held = locked(&self.held);
        let since = held.remove(uid);
        let due = due(written, next, must, since, hold_for(held.len()), now);
        if let Due::At(_) = due {
            held.insert(uid.to_owned(), since.unwrap_or(now));
        }
        due
    }

    /// Forgets a ModelAlias that is gone.
    pub fn forget_alias(&self, uid: &str) {
        locked(&self.statuses).remove(uid);
        locked(&self.held).remove(uid);
        locked(&self.models).remove(uid);
        locked(&self.deletions).remove(uid);
    }
}
