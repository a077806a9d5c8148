//! The end of the namespace that Laurel runs in and watches.
//!
//! Kubernetes deletes the pods of a namespace first, and everything else once they are gone. An operator in
//! it gets SIGTERM while its rights and its objects are still there, and nobody would remove their
//! finalizers later. So it deletes them itself and waits for what has to be done before they go.

use std::{fmt::Debug, time::Duration};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
    core::NamespaceResourceScope,
    runtime::reflector::Store,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Guarded, error::cause, finalizer},
    controllers::context::Context,
    decide::REGISTRY_DEADLINE,
};

/// What the deletion of objects takes beside the longest wait for a registry.
const MARGIN: SignedDuration = SignedDuration::from_secs(10);
/// How often it is checked whether all of them are gone.
const CHECK: Duration = Duration::from_millis(200);

/// If `namespace` is being deleted, deletes everything of ours in it, and waits until nothing has a
/// finalizer.
pub(super) async fn leave(context: &Context, namespace: &str) {
    if context.leadership.since().is_none() || !is_ending(context, namespace).await {
        return;
    }
    tracing::info!(
        namespace,
        "the namespace is being deleted: deleting all ModelAliases and RegisteredModels in it"
    );
    let longest = Duration::try_from(REGISTRY_DEADLINE + MARGIN).unwrap_or_default();
    delete_all(context, &context.aliases).await;
    delete_all(context, &context.models).await;
    let began = Instant::now();
    while held(&context.aliases) + held(&context.models) > 0 {
        if began.elapsed() > longest {
            let (aliases, models) = (held(&context.aliases), held(&context.models));
            tracing::warn!(
                namespace,
                aliases,
                models,
                "objects are left with a finalizer: remove it by hand"
            );
            return;
        }
        sleep(CHECK).await;
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

fn held<K>(objects: &Store<Guarded<K>>) -> usize
where
    Guarded<K>: Resource<DynamicType = ()> + Clone + 'static,
{
    objects.state().iter().filter(|object| is_held(object)).count()
}

async fn delete_all<K>(context: &Context, objects: &Store<Guarded<K>>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
    Guarded<K>: Resource<DynamicType = ()> + Clone + 'static,
{
    for object in objects.state() {
        let api: Api<K> = Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
        let same = Preconditions { uid: object.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        if let Err(error) = api.delete(&object.name_any(), &parameters).await {
            tracing::warn!(name = object.name_any(), error = cause(&error), "cannot delete it");
        }
    }
}
