//! The end of the namespace that Laurel runs in and watches.
//!
//! Kubernetes deletes the pods of a namespace first, and everything else once they are gone. An operator in
//! it gets SIGTERM while its rights and its objects are still there, and nobody would remove their
//! finalizers later. So it deletes them itself and waits for what has to be done before they go.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
    core::NamespaceResourceScope,
    runtime::reflector::Store,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    cluster::{Guarded, error::cause, finalizer},
    controllers::context::Context,
    decide::REGISTRY_DEADLINE,
};

/// How often it is checked whether all of them are gone.
const CHECK: Duration = Duration::from_millis(200);
/// How many requests are sent at a time: the kubelet does not wait for long, but the Lease has to be renewed too.
const AT_ONCE: usize = 8;

/// If `namespace` is being deleted, deletes everything of ours in it, waits until nothing has a finalizer,
/// and after the deadline for a registry removes those that are left.
pub(super) async fn leave(context: &Context, namespace: &str) {
    if context.leadership.since().is_none() || !is_ending(context, namespace).await {
        return;
    }
    tracing::info!(
        namespace,
        "the namespace is being deleted: deleting all ModelAliases and RegisteredModels in it"
    );
    let deadline = Instant::now() + Duration::try_from(REGISTRY_DEADLINE).unwrap_or_default();
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
        release_all(context, &context.aliases, finalizer::REGISTRY_ALIAS).await;
        delete_all(context, &context.models).await;
        release_all(context, &context.models, finalizer::REGISTERED_MODEL).await;
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

async fn release_all<K>(context: &Context, objects: &Store<Guarded<K>>, finalizer: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    Guarded<K>: Resource<DynamicType = ()> + Clone + 'static,
{
    let releases = stream::iter(held(objects)).map(async |object| {
        // As it is now, whatever was changed since.
        let metadata = ObjectMeta { resource_version: None, ..object.meta().clone() };
        if let Err(error) = finalizer::set::<K>(&context.client, &metadata, finalizer, false).await {
            tracing::warn!(name = object.name_any(), error = error.message, "remove its finalizer by hand");
        }
    });
    releases.buffer_unordered(AT_ONCE).collect::<()>().await;
}
