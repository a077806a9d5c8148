//! Watches: our own kinds in full, what we make by label and as projections.
#![expect(clippy::disallowed_types, reason = "effects: watches the cluster")]

use std::{collections::HashSet, sync::Arc, time::Duration};

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt, reflector,
        utils::Backoff,
        watcher::{self, Event, ExponentialBackoff, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::{
    context::{Context, Guarded},
    observe::cluster::{AliasKey, Projected, alias_of},
    render::labels,
};

/// The namespace to watch, or all of them.
#[derive(Clone, Debug)]
pub(super) struct Scope(pub(super) Option<String>);

impl Scope {
    pub(super) fn api<K>(&self, client: &Client) -> Api<K>
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

/// Watches one of our own kinds into `writer`; what is not needed is dropped on the way.
pub(super) fn own_kind<K>(
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
    watcher(api, watcher::Config::default().page_size(PAGE_SIZE))
        .modify(|object| {
            object.managed_fields_mut().clear();
            object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
        })
        .backoff(backoff())
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(Event::InitDone) => context.readiness.read(what),
            Ok(_) => context.readiness.seen(what),
            Err(error) => failed(&context, what, error),
        })
        .touched_objects()
}

/// Watches what we make into the cache, and wakes the ModelAlias of whatever changed.
pub(super) async fn projections<K>(context: Arc<Context>, scope: Scope, what: &'static str)
where
    K: Projected
        + Resource<Scope = NamespaceResourceScope>
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let config = watcher::Config::default().labels(labels::MODEL_ALIAS).page_size(PAGE_SIZE);
    let mut events = watcher(scope.api::<K>(&context.client), config).backoff(backoff()).boxed();
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

/// How soon a watch that failed is begun again: there is only one of us, and a change must not wait.
fn backoff() -> impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(5);
    let builder = ExponentialBuilder::default().with_min_delay(FIRST).with_max_delay(LONGEST).with_jitter();
    ExponentialBackoff::from(builder.without_max_times())
}

fn failed(context: &Context, what: &'static str, error: &watcher::Error) {
    tracing::warn!(%error, what, "the watch failed and is begun again");
    if let watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status) = error
        && [401, 403, 404].contains(&status.code)
    {
        context.readiness.refused(what, status.message.clone());
    }
}

fn see<K: Projected>(context: &Context, object: &K) -> Option<AliasKey> {
    let alias = alias_of(object.meta())?;
    object.insert(&context.cluster, &alias);
    context.wakeups.alias(&alias);
    Some(alias)
}
