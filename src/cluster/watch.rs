//! Watches: our own kinds in full, rendered objects by label and as projections.

use std::{collections::HashSet, sync::Arc};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{backoff::WatchBackoff, client::WATCH_LASTS};
use crate::{
    api::{ModelAlias, model_alias::AliasKey},
    cluster::{
        Guarded, Readiness, Requeue,
        cache::{Cache, Projected, alias_of},
        error::cause,
    },
    render::labels,
};

/// The state that watches update. Cheap to clone.
#[derive(Clone)]
pub struct Watching {
    /// Which kinds have been read.
    pub readiness: Arc<Readiness>,
    /// The cache of rendered objects.
    pub cluster: Arc<Cache>,
    /// Requests a reconcile of changed objects.
    pub requeue: Requeue,
    /// All `ModelAliases`.
    pub aliases: Store<Guarded<ModelAlias>>,
}

/// The namespace to watch, or all of them.
#[derive(Clone, Debug)]
pub(crate) struct Scope(pub(crate) Option<String>);

impl Scope {
    pub(crate) fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.0 {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
}

/// Small pages limit the memory that the first listing needs.
const PAGE_SIZE: u32 = 100;

fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE).timeout(WATCH_LASTS)
}

/// Watches one of our own kinds into `writer`. Drops fields that are not needed, and errors: on an error, a
/// controller would pause all reconciles. `seen` gets each event after the store and before everything else.
pub(crate) fn own_kind<K>(
    api: Api<Guarded<K>>,
    writer: reflector::store::Writer<Guarded<K>>,
    watching: &Watching,
    what: &'static str,
    mut seen: impl FnMut(&Event<Guarded<K>>) + Send + 'static,
) -> impl Stream<Item = Result<Guarded<K>, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static,
    Guarded<K>: Resource<DynamicType = ()>,
{
    watching.readiness.expect(what);
    let watching = watching.clone();
    watcher(api, config())
        .modify(|object| {
            object.managed_fields_mut().clear();
            object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
        })
        .backoff(WatchBackoff::new())
        .reflect(writer)
        .inspect_ok(move |event| seen(event))
        .inspect(move |event| match event {
            Ok(Event::InitDone) => watching.readiness.read(what),
            // Nothing has been delivered yet: the list may still fail.
            Ok(Event::Init) => {}
            Ok(_) => watching.readiness.seen(what),
            Err(error) => failed(&watching, what, error),
        })
        .filter(|event| std::future::ready(event.is_ok()))
        .touched_objects()
}

/// Watches the labels of all namespaces into `writer`. `seen` gets each event after the store.
pub(crate) fn labelled_namespaces(
    client: Client,
    writer: reflector::store::Writer<PartialObjectMeta<Namespace>>,
    watching: Watching,
    mut seen: impl FnMut(&Event<PartialObjectMeta<Namespace>>) + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    const WHAT: &str = "Namespaces";
    watching.readiness.expect(WHAT);
    watcher(Api::<PartialObjectMeta<Namespace>>::all(client), config())
        .modify(|namespace| {
            namespace.managed_fields_mut().clear();
            namespace.annotations_mut().clear();
        })
        .backoff(WatchBackoff::new())
        .reflect(writer)
        .inspect_ok(move |event| seen(event))
        .for_each(move |event| {
            match event {
                Ok(Event::InitDone) => watching.readiness.read(WHAT),
                Ok(Event::Init) => {}
                Ok(_) => watching.readiness.seen(WHAT),
                Err(error) => failed(&watching, WHAT, &error),
            }
            std::future::ready(())
        })
}

/// Watches rendered objects into the cache, and requests a reconcile of the ModelAlias of each changed
/// object.
pub(crate) async fn projections<K>(watching: Watching, client: Client, scope: Scope, what: &'static str)
where
    K: Projected
        + Resource<Scope = NamespaceResourceScope>
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let config = config().labels(labels::MODEL_ALIAS);
    let mut events = watcher(scope.api::<K>(&client), config).backoff(WatchBackoff::new()).boxed();
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                if let Some(alias) = insert(&watching, &object) {
                    listed.insert((alias, object.name_any()));
                }
            }
            Ok(Event::InitDone) => {
                for (alias, name) in
                    K::names(&watching.cluster).into_iter().filter(|known| !listed.contains(known))
                {
                    K::remove(&watching.cluster, &alias, &name);
                    watching.requeue.alias(&alias);
                }
                listed = HashSet::new();
                watching.readiness.read(what);
            }
            Ok(Event::Apply(object)) => {
                watching.readiness.seen(what);
                insert(&watching, &object);
            }
            Ok(Event::Delete(object)) => {
                watching.readiness.seen(what);
                if let Some(alias) = alias_of(object.meta()) {
                    K::remove(&watching.cluster, &alias, &object.name_any());
                    watching.requeue.alias(&alias);
                }
            }
            Err(error) => failed(&watching, what, &error),
        }
    }
}

/// Remembers why a watch failed. Once one has been denied for a while, every ModelAlias is reconciled to
/// report it.
fn failed(watching: &Watching, what: &'static str, error: &watcher::Error) {
    let (message, status) = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => (cause(error), code(error)),
        watcher::Error::WatchError(status) => (status.message.clone(), status.code),
        watcher::Error::NoResourceVersion => (error.to_string(), 0),
    };
    tracing::warn!(what, message, "watch failed, restarting it");
    let is_denied = [401, 403, 404].contains(&status);
    if watching.readiness.failed(what, message, is_denied) {
        for alias in watching.aliases.state().iter().filter_map(|alias| alias.0.as_ref().ok()) {
            watching.requeue.alias(&alias.key());
        }
    }
}

/// Returns the HTTP status of an error, or 0.
fn code(error: &kube::Error) -> u16 {
    if let kube::Error::Api(status) = error { status.code } else { 0 }
}

/// Updates the cache with an object and requests a reconcile of its ModelAlias. Returns that ModelAlias.
fn insert<K: Projected>(watching: &Watching, object: &K) -> Option<AliasKey> {
    let alias = alias_of(object.meta())?;
    object.insert(&watching.cluster, &alias);
    watching.requeue.alias(&alias);
    Some(alias)
}
