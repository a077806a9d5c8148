//! The shells: watch, and for each object observe → decide → apply → status.
#![expect(clippy::disallowed_types, reason = "effects: holds the clients")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::channel::mpsc::{UnboundedSender, unbounded};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::{
        events::{Event, EventType, Recorder, Reporter},
        reflector::{ObjectRef, Store},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    api::{ModelAlias, ModelAliasStatus, ModelRegistry, RegisteredModel, condition::shortened},
    apply::{cluster_refusal, registry::AliasWrites, smoke::SmokeTests},
    observe::{
        cluster::{AliasKey, Cache},
        model_alias::Model,
        registries::{Handle, Hub},
    },
    status::Announcement,
    telemetry::metrics::Metrics,
};

pub mod model_alias;
pub mod model_registry;
pub mod registered_model;
mod run;
mod watch;

pub use run::run;

/// The one field manager of everything that Laurel writes.
pub const FIELD_MANAGER: &str = "laurel";

/// An object as it comes from a watch: one that cannot be read does not stall the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// How long to wait after a pass in which something failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What every shell needs.
pub struct Context {
    /// The client for the cluster.
    pub client: Client,
    /// What our own objects look like there.
    pub cluster: Arc<Cache>,
    /// The registries that are watched.
    pub registries: Hub,
    /// All `ModelAliases`.
    pub aliases: Store<Guarded<ModelAlias>>,
    /// All `RegisteredModels`.
    pub models: Store<Guarded<RegisteredModel>>,
    /// All `ModelRegistries`.
    pub model_registries: Store<Guarded<ModelRegistry>>,
    /// Asks for a pass over an object.
    pub wakeups: Wakeups,
    /// The smoke tests.
    pub smoke: SmokeTests,
    /// The aliases that are being set in registries.
    pub alias_writes: AliasWrites,
    /// The client for pods: no proxy, no redirects.
    pub pod_http: reqwest::Client,
    /// The metrics.
    pub metrics: Metrics,
    /// What has been read from the cluster.
    pub readiness: Readiness,
    recorder: Recorder,
    /// Where each ModelAlias with a finalizer led, by UID.
    models_by_alias: Mutex<HashMap<String, Model>>,
    /// The registry of each RegisteredModel with a finalizer, by UID.
    registries_by_model: Mutex<HashMap<String, Arc<Handle>>>,
    /// Each ModelAlias's status as it was last written, with the revision of that write, by UID; until the watch shows it.
    statuses: Mutex<HashMap<String, (u64, ModelAliasStatus)>>,
}

/// Asks for a pass over an object, from wherever something about it was learnt.
#[derive(Clone, Debug)]
pub struct Wakeups {
    aliases: UnboundedSender<ObjectRef<Guarded<ModelAlias>>>,
    models: UnboundedSender<ObjectRef<Guarded<RegisteredModel>>>,
    registries: UnboundedSender<ObjectRef<Guarded<ModelRegistry>>>,
}

/// The ends at which wake-ups arrive.
struct WakeupStreams {
    aliases: futures::channel::mpsc::UnboundedReceiver<ObjectRef<Guarded<ModelAlias>>>,
    models: futures::channel::mpsc::UnboundedReceiver<ObjectRef<Guarded<RegisteredModel>>>,
    registries: futures::channel::mpsc::UnboundedReceiver<ObjectRef<Guarded<ModelRegistry>>>,
}

impl Wakeups {
    fn new() -> (Self, WakeupStreams) {
        let (aliases, alias_stream) = unbounded();
        let (models, model_stream) = unbounded();
        let (registries, registry_stream) = unbounded();
        (
            Self { aliases, models, registries },
            WakeupStreams { aliases: alias_stream, models: model_stream, registries: registry_stream },
        )
    }

    /// Asks for a pass over a ModelAlias. While the operator ends, nobody listens; the next one looks at everything.
    pub fn alias(&self, (namespace, name): &AliasKey) {
        drop(self.aliases.unbounded_send(ObjectRef::new(name).within(namespace)));
    }

    /// Asks for a pass over a RegisteredModel.
    pub fn model(&self, namespace: &str, name: &str) {
        drop(self.models.unbounded_send(ObjectRef::new(name).within(namespace)));
    }

    /// Asks for a pass over a ModelRegistry.
    pub fn registry(&self, namespace: &str, name: &str) {
        drop(self.registries.unbounded_send(ObjectRef::new(name).within(namespace)));
    }
}

/// What has still to be read from the cluster before anything may be decided.
#[derive(Debug, Default)]
pub struct Readiness {
    waiting: Mutex<Vec<&'static str>>,
    all_read: tokio::sync::watch::Sender<bool>,
}

impl Readiness {
    fn expect(&self, what: &'static str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn read(&self, what: &'static str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|other| *other != what);
        if waiting.is_empty() {
            self.all_read.send_replace(true);
        }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves once everything has been read.
    pub async fn reached(&self) {
        let mut all_read = self.all_read.subscribe();
        // The sender lives as long as this object does.
        let _ = all_read.wait_for(|read| *read).await;
    }
}

/// Writes a status in one patch. For an object that is gone, or whose name another one bears by now, there is nothing to
/// write. Answers the object as it was written.
async fn write_status<K, S>(
    context: &Context,
    object: &K,
    status: &S,
) -> Result<Option<K>, model_alias::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
    S: Serialize,
{
    let (name, kind) = (object.name_any(), K::kind(&()));
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": kind,
        "metadata": { "name": name, "uid": object.uid() },
        "status": status,
    });
    let api = Api::<K>::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    match api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch)).await {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
        Err(error) => {
            let note = cluster_refusal(&error, "write the status of", &format!("the {kind} {name:?}"));
            Err(model_alias::Error::WriteStatus(note.message))
        }
    }
}

fn revision(alias: &ModelAlias) -> u64 {
    alias.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Context {
    /// Remembers where an alias leads, for as long as its deletion needs it.
    pub fn remember_model(&self, alias: &ModelAlias, model: Option<&Model>) {
        let Some(uid) = alias.uid() else { return };
        let mut models = self.models_by_alias.lock().unwrap_or_else(PoisonError::into_inner);
        if alias.finalizers().is_empty() {
            models.remove(&uid);
        } else if let Some(model) = model {
            models.insert(uid, model.clone());
        }
    }

    /// Remembers the registry of a model, for as long as its deletion needs it.
    pub fn remember_registry(&self, model: &RegisteredModel, registry: &Arc<Handle>) {
        if let Some(uid) = model.uid().filter(|_| !model.finalizers().is_empty()) {
            let mut registries = self.registries_by_model.lock().unwrap_or_else(PoisonError::into_inner);
            registries.insert(uid, registry.clone());
        }
    }

    /// The registry of a model when it was last known.
    #[must_use]
    pub fn remembered_registry(&self, model: &RegisteredModel) -> Option<Arc<Handle>> {
        self.registries_by_model.lock().unwrap_or_else(PoisonError::into_inner).get(&model.uid()?).cloned()
    }

    /// Forgets the registry of a model that is gone.
    pub fn forget_registry(&self, model: &RegisteredModel) {
        if let Some(uid) = model.uid() {
            self.registries_by_model.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        }
    }

    /// Where an alias led when it was last known.
    #[must_use]
    pub fn remembered_model(&self, alias: &ModelAlias) -> Option<Model> {
        self.models_by_alias.lock().unwrap_or_else(PoisonError::into_inner).get(&alias.uid()?).cloned()
    }

    /// Remembers the status that was just written, until the watch shows it.
    fn remember_status(&self, written: &ModelAlias, status: &ModelAliasStatus) {
        let Some(uid) = written.uid() else { return };
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.insert(uid, (revision(written), status.clone()));
    }

    /// The newest status that is known. The watch may lag behind our own writes, and a decision made from an older status
    /// would undo what the newer one remembers.
    #[must_use]
    pub fn latest_status(&self, alias: &ModelAlias) -> ModelAliasStatus {
        let uid = alias.uid().unwrap_or_default();
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        match statuses.get(&uid) {
            Some((written, status)) if revision(alias) < *written => status.clone(),
            _ => {
                statuses.remove(&uid);
                alias.status.clone().unwrap_or_default()
            }
        }
    }

    /// Forgets what is kept in memory about an alias that is gone.
    pub fn forget(&self, uid: &str) {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.models_by_alias.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.smoke.forget_all(uid);
        self.alias_writes.forget(uid);
    }

    fn recorder(client: &Client) -> Recorder {
        let instance = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).ok();
        Recorder::new(client.clone(), Reporter { controller: "laurel.dev/laurel".to_owned(), instance })
    }

    /// Publishes Events about an object, beside the pass. That one fails is logged and nothing more: an Event is a
    /// courtesy.
    pub fn announce<K: Resource<DynamicType = ()>>(&self, object: &K, news: Vec<Announcement>) {
        // The API server takes at most 1 kB.
        const NOTE_MAX: usize = 1000;
        let (recorder, regarding) = (self.recorder.clone(), object.object_ref(&()));
        let publish = async move {
            for news in news {
                let event = Event {
                    type_: if news.warning { EventType::Warning } else { EventType::Normal },
                    reason: news.reason,
                    note: Some(shortened(&news.message, NOTE_MAX)),
                    action: news.action,
                    secondary: None,
                };
                if let Err(error) = recorder.publish(&event, &regarding).await {
                    tracing::debug!(%error, reason = event.reason, "an Event could not be published");
                }
            }
        };
        tokio::spawn(publish);
    }
}
