//! The end of the namespace that Laurel runs in and watches.
//!
//! Kubernetes deletes the pods of a namespace first, and everything else once they are gone. An operator in
//! it gets SIGTERM while its rights and its objects are still there, and nobody would remove their
//! finalizers later. So it deletes them itself and waits for what has to be done before they go.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Namespace};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
    core::NamespaceResourceScope,
    runtime::reflector::Store,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use super::leadership::OwnLease;
use crate::{
    cluster::{Guarded, error::cause, finalizer, lease},
    controllers::context::Context,
    decide::REGISTRY_DEADLINE,
};

/// How often it is checked whether all of them are gone.
const CHECK: Duration = Duration::from_millis(200);
/// How often a process that does not act looks for who does.
const LOOK: Duration = Duration::from_secs(1);
/// How many requests are sent at a time: the kubelet does not wait for long, but the Lease has to be renewed
/// too.
const AT_ONCE: usize = 8;

/// How long a Lease that nobody renews may still belong to somebody, with some reserve.
const LEASE_LASTS: Duration = Duration::from_secs(15);

/// If `namespace` is being deleted, deletes everything of ours in it, waits until nothing has a finalizer,
/// and after the deadline for a registry removes those that are left.
///
/// The process that acts does this, and the others stay until it is done: they take over if it is lost. When
/// the Lease goes with the namespace, no other can be created there, and so nobody may act any more; then the
/// finalizers are removed without one.
pub(super) async fn leave(context: &Context, namespace: &str) {
    if !is_ending(context, namespace).await {
        return;
    }
    let deadline = Instant::now() + Duration::try_from(REGISTRY_DEADLINE).unwrap_or_default();
    let last = deadline + LEASE_LASTS;
    loop {
        if context.leadership.since().is_some() {
            tokio::select! {
                () = end_everything(context, namespace, deadline) => return,
                cause = context.leadership.lost() => {
                    tracing::warn!(namespace, cause, "the Lease was lost while the namespace is being deleted");
                }
            }
        }
        if held(&context.aliases).is_empty() && held(&context.models).is_empty() {
            return;
        }
        let is_late = Instant::now() >= last;
        if let Some(lease) = context.leadership.lease()
            && nobody_acts(lease, is_late).await
        {
            tracing::warn!(namespace, "nobody can act under the Lease any more: the finalizers are removed");
            release_all(&lease.client, &context.aliases, finalizer::REGISTRY_ALIAS).await;
            release_all(&lease.client, &context.models, finalizer::REGISTERED_MODEL).await;
            return;
        }
        if is_late {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Whether no process can act, and none will: the Lease is gone from a namespace that is being deleted, or it
/// had time to expire and nobody took it.
async fn nobody_acts(lease: &OwnLease, has_expired: bool) -> bool {
    let leases: Api<Lease> = Api::namespaced(lease.client.clone(), &lease.namespace);
    // Its role allows to list it, not to get it.
    let named = ListParams::default().fields(&format!("metadata.name={}", lease::NAME));
    match leases.list(&named).await {
        Ok(found) => found.items.into_iter().next().is_none_or(|found| {
            let holder = found.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            has_expired && (holder.is_empty() || holder == lease.candidate)
        }),
        Err(error) => {
            tracing::warn!(namespace = lease.namespace, error = cause(&error), "cannot read the Lease");
            false
        }
    }
}

async fn end_everything(context: &Context, namespace: &str, deadline: Instant) {
    tracing::info!(
        namespace,
        "the namespace is being deleted: deleting all ModelAliases and RegisteredModels in it"
    );
    let deleted = async {
        delete_all(context, &context.aliases).await;
        released(&context.aliases).await;
        // A ModelAlias finds its alias in the registry by its RegisteredModel, so that is deleted later.
        delete_all(context, &context.models).await;
        released(&context.models).await;
    };
    if timeout_at(deadline, deleted).await.is_err() {
        let (aliases, models) = (held(&context.aliases).len(), held(&context.models).len());
        tracing::warn!(
            namespace,
            aliases,
            models,
            "the deletion takes too long: the finalizers are removed, and what is in the registry stays there"
        );
        release_all(&context.client, &context.aliases, finalizer::REGISTRY_ALIAS).await;
        delete_all(context, &context.models).await;
        release_all(&context.client, &context.models, finalizer::REGISTERED_MODEL).await;
    }
}

async fn is_ending(context: &Context, namespace: &str) -> bool {
    let namespaces: Api<Namespace> = Api::all(context.client.clone());
    match namespaces.get_metadata(namespace).await {
        Ok(found) => found.metadata.deletion_timestamp.is_some(),
        Err(error) => {
            tracing::warn!(namespace, error = cause(&error), "cannot read the namespace");
            false
        }
    }
}

fn is_held<K>(object: &Guarded<K>) -> bool
where
    Guarded<K>: Resource,
{
    let names = [finalizer::REGISTRY_ALIAS, finalizer::REGISTERED_MODEL];
    names.into_iter().any(|name| finalizer::is_set(object.meta(), name))
}

fn held<K>(objects: &Store<Guarded<K>>) -> Vec<Arc<Guarded<K>>>
where
    Guarded<K>: Resource<DynamicType = ()> + Clone + 'static,
{
    objects.state().into_iter().filter(|object| is_held(object)).collect()
}

/// Resolves when none of them has a finalizer.
async fn released<K>(objects: &Store<Guarded<K>>)
where
    Guarded<K>: Resource<DynamicType = ()> + Clone + 'static,
{
    while !held(objects).is_empty() {
        sleep(CHECK).await;
    }
}

async fn delete_all<K>(context: &Context, objects: &Store<Guarded<K>>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    Guarded<K>: Resource<DynamicType = ()> + Clone + 'static,
{
    let deletions = stream::iter(objects.state()).map(async |object| {
        let api: Api<K> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
        let same = Preconditions { uid: object.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        if let Err(error) = api.delete(&object.name_any(), &parameters).await {
            tracing::warn!(name = object.name_any(), error = cause(&error), "cannot delete it");
        }
    });
    deletions.buffer_unordered(AT_ONCE).collect::<()>().await;
}

async fn release_all<K>(client: &Client, objects: &Store<Guarded<K>>, finalizer: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    Guarded<K>: Resource<DynamicType = ()> + Clone + 'static,
{
    let releases = stream::iter(held(objects)).map(async |object| {
        if let Err(error) = finalizer::remove::<K>(client, object.meta(), finalizer).await {
            tracing::warn!(name = object.name_any(), error = error.message, "remove its finalizer by hand");
        }
    });
    releases.buffer_unordered(AT_ONCE).collect::<()>().await;
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use kube::{Config, runtime::watcher::Event};
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};
    use wiremock::{
        Mock, MockServer, ResponseTemplate,
        matchers::{method, path},
    };

    use super::*;
    use crate::{api::ModelAlias, controllers::leadership::Leadership, fence::Fence, options::RunOptions};

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        run: RunOptions,
    }

    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/risk/leases";

    /// An API server with a namespace that ends, and this Lease.
    async fn server(lease: Option<Value>) -> MockServer {
        let server = MockServer::start().await;
        let leases = json!({ "metadata": {}, "items": Vec::from_iter(lease) });
        Mock::given(path(LEASES))
            .respond_with(ResponseTemplate::new(200).set_body_json(leases))
            .mount(&server)
            .await;
        let namespace = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": { "name": "risk", "deletionTimestamp": "2026-01-01T00:00:00Z" },
        });
        Mock::given(path("/api/v1/namespaces/risk"))
            .respond_with(ResponseTemplate::new(200).set_body_json(namespace))
            .mount(&server)
            .await;
        let written = json!({ "metadata": { "name": "champion", "namespace": "risk" } });
        Mock::given(method("PATCH"))
            .respond_with(ResponseTemplate::new(200).set_body_json(written))
            .mount(&server)
            .await;
        server
    }

    /// An operator that lost the Lease leaves a namespace with a ModelAlias. Returns the finalizers that it
    /// sets.
    async fn finalizers_after(server: &MockServer, within: Duration) -> Option<Value> {
        // There may be one already; it is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = || Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
        let lease = OwnLease { client: client(), namespace: "risk".into(), candidate: "laurel-1".into() };
        let options = Options::try_parse_from(["laurel"]).unwrap().run;
        let leadership = Leadership::lost_by(lease);
        // Its own client may not write any more.
        let fence = Fence::closed();
        let (context, mut writers, _requeue) = Context::new(client(), &options, leadership, fence).unwrap();
        let alias: Guarded<ModelAlias> = serde_json::from_value(json!({
            "apiVersion": "laurel.dev/v1alpha1", "kind": "ModelAlias",
            "metadata": {
                "name": "champion", "namespace": "risk", "uid": "1", "resourceVersion": "5",
                "finalizers": [finalizer::REGISTRY_ALIAS],
            },
            "spec": { "modelRef": { "name": "fraud" }, "alias": "champion", "version": "1" },
        }))
        .unwrap();
        writers.aliases.apply_watcher_event(&Event::Apply(alias));
        drop(tokio::time::timeout(within, leave(&context, "risk")).await);
        let requests = server.received_requests().await.unwrap();
        let patch = requests.iter().find(|request| request.method.as_str() == "PATCH")?;
        Some(patch.body_json::<Value>().unwrap()["metadata"]["finalizers"].clone())
    }

    #[tokio::test]
    async fn promise_9_a_namespace_ends_although_its_lease_went_first() {
        let finalizers = finalizers_after(&server(None).await, Duration::from_mins(1)).await;
        assert_eq!(finalizers, Some(json!([])), "nobody else could remove it");
    }

    #[tokio::test]
    async fn promise_14_whoever_holds_the_lease_removes_the_finalizers() {
        for holder in ["laurel-2", "laurel-1"] {
            let lease = json!({ "metadata": { "name": "laurel" }, "spec": { "holderIdentity": holder } });
            let finalizers = finalizers_after(&server(Some(lease)).await, Duration::from_secs(1)).await;
            assert_eq!(finalizers, None, "{holder} may still act");
        }
    }
}
