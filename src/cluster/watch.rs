//! Watches: our own kinds in full, what we make by label and as projections.
#![expect(clippy::disallowed_types, reason = "effects: watches the cluster")]

use std::{collections::HashSet, sync::Arc};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::{
        WatchStreamExt, reflector,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{backoff::Pauses, client::WATCH_LASTS};
use crate::{
    cluster::{
        Guarded,
        cache::{AliasKey, Projected, alias_of},
        error::cause,
    },
    controllers::context::Context,
    observe::model_alias::key,
    render::labels,
};

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

/// Small pages keep the memory small that a first listing takes.
const PAGE_SIZE: u32 = 100;

fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE).timeout(WATCH_LASTS)
}

/// Watches one of our own kinds into `writer`; what is not needed is dropped on the way, and so are failures: a controller
/// that hears of one pauses for all that may begin a pass.
pub(crate) fn own_kind<K>(
    api: Api<Guarded<K>>,
    writer: reflector::store::Writer<Guarded<K>>,
    context: &Arc<Context>,
    what: &'static str,
) -> impl Stream<Item = Result<Guarded<K>, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static,
    Guarded<K>: Resource<DynamicType = ()>,
{
    context.readiness.expect(what);
    let context = context.clone();
    watcher(api, config())
        .modify(|object| {
            object.managed_fields_mut().clear();
            object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
        })
        .backoff(Pauses::new())
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(Event::InitDone) => context.readiness.read(what),
            // Nothing has been seen yet: the list may fail.
            Ok(Event::Init) => {}
            Ok(_) => context.readiness.seen(what),
            Err(error) => failed(&context, what, error),
        })
        .filter(|event| std::future::ready(event.is_ok()))
        .touched_objects()
}

/// Watches the labels of all namespaces into `writer`.
pub(crate) fn labelled_namespaces(
    client: &Client,
    writer: reflector::store::Writer<PartialObjectMeta<Namespace>>,
    context: &Arc<Context>,
) -> impl Stream<Item = PartialObjectMeta<Namespace>> + Send + 'static {
    const WHAT: &str = "Namespaces";
    context.readiness.expect(WHAT);
    let context = context.clone();
    watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), config())
        .modify(|namespace| {
            namespace.managed_fields_mut().clear();
            namespace.annotations_mut().clear();
        })
        .backoff(Pauses::new())
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(Event::InitDone) => context.readiness.read(WHAT),
            Ok(Event::Init) => {}
            Ok(_) => context.readiness.seen(WHAT),
            Err(error) => failed(&context, WHAT, error),
        })
        .touched_objects()
        .filter_map(|namespace| std::future::ready(namespace.ok()))
}

/// Watches what we make into the cache, and wakes the ModelAlias of whatever changed.
pub(crate) async fn projections<K>(context: Arc<Context>, scope: Scope, what: &'static str)
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
    let mut events = watcher(scope.api::<K>(&context.client), config).backoff(Pauses::new()).boxed();
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                if let Some(alias) = see(&context, &object) {
                    listed.insert((alias, object.name_any()));
                }
            }
            Ok(Event::InitDone) => {
                for (alias, name) in
                    K::names(&context.cluster).into_iter().filter(|known| !listed.contains(known))
                {
                    K::remove(&context.cluster, &alias, &name);
                    context.wakeups.alias(&alias);
                }
                listed = HashSet::new();
                context.readiness.read(what);
            }
            Ok(Event::Apply(object)) => {
                context.readiness.seen(what);
                see(&context, &object);
            }
            Ok(Event::Delete(object)) => {
                context.readiness.seen(what);
                if let Some(alias) = alias_of(object.meta()) {
                    K::remove(&context.cluster, &alias, &object.name_any());
                    context.wakeups.alias(&alias);
                }
            }
            Err(error) => failed(&context, what, &error),
        }
    }
}

/// Notes why a watch failed. When one has been refused for a while, every ModelAlias is to say so, also one at rest.
fn failed(context: &Context, what: &'static str, error: &watcher::Error) {
    let (cause, refused) = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => (cause(error), code(error)),
        watcher::Error::WatchError(status) => (status.message.clone(), status.code),
        watcher::Error::NoResourceVersion => (error.to_string(), 0),
    };
    tracing::warn!(what, cause, "the watch failed and is begun again");
    let is_refused = [401, 403, 404].contains(&refused);
    if context.readiness.failed(what, cause, is_refused) {
        for alias in context.aliases.state().iter().filter_map(|alias| alias.0.as_ref().ok()) {
            context.wakeups.alias(&key(alias));
        }
    }
}

/// The HTTP status of an answer.
fn code(error: &kube::Error) -> u16 {
    if let kube::Error::Api(status) = error { status.code } else { 0 }
}

fn see<K: Projected>(context: &Context, object: &K) -> Option<AliasKey> {
    let alias = alias_of(object.meta())?;
    object.insert(&context.cluster, &alias);
    context.wakeups.alias(&alias);
    Some(alias)
}
