//! Watches: our own kinds in full, rendered objects by label and as projections.

use std::{collections::HashSet, sync::Arc};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry};
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
    api::{APPROVE_ANNOTATION, ModelAlias, model_alias::AliasKey},
    cluster::{
        Guarded, Readiness, Requeue,
        cache::{Cache, Projected, alias_of},
        error::watch_error,
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
    /// Returns the `ModelAliases` that name one as a challenger.
    pub champions: Referrers,
    /// Returns the `ModelAliases` that refer to the HTTPRoute with a namespace and a name.
    pub route_referrers: Referrers,
}

/// Returns the `ModelAliases` that refer to something with a namespace and a name.
pub type Referrers = Arc<dyn Fn(&AliasKey) -> Vec<AliasKey> + Send + Sync>;

impl Watching {
    /// Changes what is known of the objects of a ModelAlias, and requests a reconcile of it and, if its
    /// Service is reached in another way now, of its champions.
    fn change<K: Projected>(&self, alias: &AliasKey, change: impl FnOnce(&Cache)) {
        let reachable = || K::IS_SERVICE.then(|| self.cluster.reachable(alias)).flatten();
        let before = reachable();
        change(&self.cluster);
        self.requeue.alias(alias);
        if reachable() != before {
            for champion in (self.champions)(alias) {
                self.requeue.alias(&champion);
            }
        }
    }

    /// Requests a reconcile of the `ModelAliases` that refer to an HTTPRoute.
    fn route_changed(&self, route: &AliasKey) {
        for alias in (self.route_referrers)(route) {
            self.requeue.alias(&alias);
        }
    }

    /// Requests a reconcile of those that refer to HTTPRoutes which are not in a new list.
    fn routes_listed(&self, listed: &HashSet<AliasKey>) {
        for route in self.cluster.keep_only_routes(|route| listed.contains(route)) {
            self.route_changed(&route);
        }
    }
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

/// The name of the watch of what Laurel renders against disruption: useful, but nothing depends on it.
pub(crate) const BUDGETS: &str = "PodDisruptionBudgets";

/// The name of the watch of `HTTPRoutes`, which only `ModelAliases` with `spec.traffic` depend on.
pub(crate) const ROUTES: &str = "HTTPRoutes";

/// Small pages limit the memory that the first listing needs.
const PAGE_SIZE: u32 = 100;

fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE).timeout(WATCH_LASTS)
}

/// Holds back the objects of a list until it is complete. The store has them from then on only: whoever was
/// woken for the first page while the last one was still being read would look at the objects of before, and
/// nobody would wake it again.
fn listed_at_once<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send
where
    K: Send,
{
    let mut listed = Vec::new();
    events.flat_map(move |event| {
        let events = match event {
            Ok(Event::Init) => {
                listed.clear();
                vec![Ok(Event::Init)]
            }
            Ok(Event::InitApply(object)) => {
                listed.push(object);
                Vec::new()
            }
            Ok(Event::InitDone) => {
                let objects = std::mem::take(&mut listed).into_iter();
                objects.map(|object| Ok(Event::InitApply(object))).chain([Ok(Event::InitDone)]).collect()
            }
            event => vec![event],
        };
        stream::iter(events)
    })
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
    let objects = watcher(api, config())
        .modify(|object| {
            keep_approvers(object.managed_fields_mut());
            object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
        })
        .backoff(WatchBackoff::new())
        .reflect(writer);
    listed_at_once(objects)
        .inspect_ok(move |event| seen(event))
        .inspect(move |event| match event {
            Ok(Event::InitDone) => {
                watching.readiness.read(what);
            }
            // Nothing has been delivered yet: the list may still fail.
            Ok(Event::Init) => {}
            Ok(_) => watching.readiness.seen(what),
            Err(error) => failed(&watching, what, error),
        })
        .filter(|event| std::future::ready(event.is_ok()))
        .touched_objects()
}

/// Keeps who set the annotation that approves a version, and when, and nothing else.
fn keep_approvers(managers: &mut Vec<ManagedFieldsEntry>) {
    managers.retain_mut(|entry| {
        let fields = entry.fields_v1.take();
        let annotations = fields.as_ref().and_then(|fields| fields.0.pointer("/f:metadata/f:annotations"));
        annotations.and_then(|annotations| annotations.get(format!("f:{APPROVE_ANNOTATION}"))).is_some()
    });
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
    let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(client), config())
        .modify(|namespace| {
            namespace.managed_fields_mut().clear();
            namespace.annotations_mut().clear();
        })
        .backoff(WatchBackoff::new())
        .reflect(writer);
    listed_at_once(namespaces).inspect_ok(move |event| seen(event)).for_each(move |event| {
        match event {
            Ok(Event::InitDone) => {
                watching.readiness.read(WHAT);
            }
            Ok(Event::Init) => {}
            Ok(_) => watching.readiness.seen(WHAT),
            Err(error) => failed(&watching, WHAT, &error),
        }
        std::future::ready(())
    })
}

/// Watches rendered objects into the cache, and requests a reconcile of the ModelAlias of each changed
/// object. HTTPRoutes are watched whether they have our label or not.
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
    let config = if K::IS_ROUTE { config() } else { config().labels(labels::MODEL_ALIAS) };
    let mut events = watcher(scope.api::<K>(&client), config).backoff(WatchBackoff::new()).boxed();
    let (mut listed, mut listed_routes) = (HashSet::new(), HashSet::new());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                listed.clear();
                listed_routes.clear();
            }
            Ok(Event::InitApply(object)) => {
                listed_routes.extend(keep_route(&watching, &object));
                if let Some(alias) = insert(&watching, &object) {
                    listed.insert((alias, object.name_any()));
                }
            }
            Ok(Event::InitDone) => {
                for (alias, name) in
                    K::names(&watching.cluster).into_iter().filter(|known| !listed.contains(known))
                {
                    watching.change::<K>(&alias, |cluster| K::remove(cluster, &alias, &name));
                }
                listed = HashSet::new();
                if K::IS_ROUTE {
                    watching.routes_listed(&std::mem::take(&mut listed_routes));
                }
                if watching.readiness.read(what) {
                    tracing::info!(what, "watched from now on");
                    wake_all(&watching);
                }
            }
            Ok(Event::Apply(object)) => {
                watching.readiness.seen(what);
                keep_route(&watching, &object);
                insert(&watching, &object);
            }
            Ok(Event::Delete(object)) => {
                watching.readiness.seen(what);
                if let Some(route) = object.as_route() {
                    watching.route_changed(&watching.cluster.forget_route(route));
                }
                if let Some(alias) = alias_of(object.meta()) {
                    watching.change::<K>(&alias, |cluster| K::remove(cluster, &alias, &object.name_any()));
                }
            }
            Err(error) => failed(&watching, what, &error),
        }
    }
}

/// Remembers why a watch failed. Once one has been denied for a while, every ModelAlias is reconciled to
/// report it.
fn failed(watching: &Watching, what: &'static str, error: &watcher::Error) {
    let (message, status) = watch_error(error);
    tracing::warn!(what, message, "watch failed, restarting it");
    let is_denied = [401, 403, 404].contains(&status);
    let before = watching.readiness.missing();
    if watching.readiness.failed(what, message, is_denied) {
        wake_all(watching);
    }
    for message in watching.readiness.missing() {
        if !before.contains(&message) {
            tracing::warn!(message, "permission missing");
        }
    }
}

/// Requests a reconcile of every ModelAlias.
fn wake_all(watching: &Watching) {
    for alias in watching.aliases.state().iter().filter_map(|alias| alias.0.as_ref().ok()) {
        watching.requeue.alias(&alias.key());
    }
}

/// Updates the cache with an HTTPRoute, and requests a reconcile of those that refer to it. Returns its key.
fn keep_route<K: Projected>(watching: &Watching, object: &K) -> Option<AliasKey> {
    let route = watching.cluster.keep_route(object.as_route()?);
    watching.route_changed(&route);
    Some(route)
}

/// Updates the cache with an object and requests a reconcile of its ModelAlias. Returns that ModelAlias.
fn insert<K: Projected>(watching: &Watching, object: &K) -> Option<AliasKey> {
    let alias = alias_of(object.meta());
    // Without our label, or with that of another one, it is not the one that was known.
    let named = (object.namespace().unwrap_or_default(), object.name_any());
    if K::IS_ROUTE && alias.as_ref() != Some(&named) && watching.cluster.route(&named).is_some() {
        watching.change::<K>(&named, |cluster| K::remove(cluster, &named, &named.1));
    }
    let alias = alias?;
    watching.change::<K>(&alias, |cluster| object.insert(cluster, &alias));
    Some(alias)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector::{ObjectRef, store};
    use serde_json::json;

    use super::*;

    fn object(name: &str, revision: &str) -> ConfigMap {
        let metadata = serde_json::json!({ "name": name, "namespace": "n", "resourceVersion": revision });
        serde_json::from_value(serde_json::json!({ "metadata": metadata })).unwrap()
    }

    #[tokio::test]
    async fn whoever_is_woken_by_a_list_of_several_pages_finds_what_it_says() {
        let (known, writer) = store();
        let list = [
            Event::Init,
            Event::InitApply(object("changed", "2")),
            Event::InitApply(object("new", "2")),
            Event::InitDone,
            Event::Apply(object("new", "3")),
        ];
        let before = [Event::Init, Event::InitApply(object("changed", "1")), Event::InitDone];
        let events = stream::iter(before.into_iter().chain(list).map(Ok)).reflect(writer);
        let seen: Vec<bool> = listed_at_once(events)
            .try_filter_map(|event| {
                let (Event::Apply(object) | Event::InitApply(object)) = event else {
                    return std::future::ready(Ok(None));
                };
                let there = known.get(&ObjectRef::from_obj(&object));
                let is_there =
                    there.is_some_and(|there| there.resource_version() == object.resource_version());
                std::future::ready(Ok(Some(is_there)))
            })
            .try_collect()
            .await
            .unwrap();
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn only_those_who_set_the_approval_are_kept() {
        let entry = |manager: &str, fields: serde_json::Value| -> ManagedFieldsEntry {
            let time = "2026-11-29T12:00:00Z";
            serde_json::from_value(json!({ "manager": manager, "operation": "Update", "time": time,
                "fieldsType": "FieldsV1", "fieldsV1": fields }))
            .unwrap()
        };
        let annotation =
            |name: &str| json!({ "f:metadata": { "f:annotations": { ".": {}, (format!("f:{name}")): {} } } });
        let mut managers = vec![
            entry("kubectl-client-side-apply", json!({ "f:spec": { "f:version": {} } })),
            entry("kubectl-annotate", annotation(APPROVE_ANNOTATION)),
            entry("argocd", annotation("laurel.dev/commit")),
        ];
        keep_approvers(&mut managers);
        let kept: Vec<_> =
            managers.iter().map(|entry| (entry.manager.as_deref(), &entry.fields_v1)).collect();
        assert_eq!(kept, [(Some("kubectl-annotate"), &None)]);
        assert!(managers[0].time.is_some());
    }
}
