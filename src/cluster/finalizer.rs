//! The finalizers of our own kinds.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{error::error_message, server_side_apply::patch_parameters};
use crate::api::condition::ReasonMessage;

/// The finalizer of a ModelAlias whose alias in the registry is deleted with it.
pub const REGISTRY_ALIAS: &str = "laurel.dev/registry-alias";
/// The finalizer of a RegisteredModel whose model in the registry is deleted with it.
pub const REGISTERED_MODEL: &str = "laurel.dev/registered-model";

/// Whether an object has a finalizer.
#[must_use]
pub fn is_set(metadata: &ObjectMeta, finalizer: &str) -> bool {
    metadata.finalizers.iter().flatten().any(|known| known == finalizer)
}

/// How often a finalizer is removed from an object that others change at the same time.
const TRIES: usize = 5;

/// Removes a finalizer, whatever else is changed about the object in the meantime. `metadata` is the object
/// as last seen.
///
/// # Errors
/// Why the API server did not change it.
pub async fn remove<K>(client: &Client, metadata: &ObjectMeta, finalizer: &str) -> Result<(), ReasonMessage>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let name = metadata.name.as_deref().unwrap_or_default();
    let api = Api::<K>::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let mut seen = metadata.clone();
    let mut result = Ok(());
    for _ in 0..TRIES {
        // With the finalizers as they were seen, or not at all: those that somebody else has removed since
        // must not be set again.
        result = set::<K>(client, &seen, finalizer, false).await;
        if result.is_ok() {
            break;
        }
        // The role allows to list our own objects, not to get one.
        let named = ListParams::default().fields(&format!("metadata.name={name}"));
        let there = api
            .list_metadata(&named)
            .await
            .map_err(|error| error_message(&error, "read", &format!("the {} {name:?}", K::kind(&()))))?;
        match there.items.into_iter().next() {
            Some(there) if there.metadata.uid == metadata.uid && is_set(&there.metadata, finalizer) => {
                seen = there.metadata;
            }
            _ => return Ok(()),
        }
    }
    result
}

/// Adds or removes a finalizer. Fails if the object changed in the meantime, so that it is decided again;
/// without a `resourceVersion` in `metadata`, it does not matter.
///
/// # Errors
/// Why the API server did not change it.
pub async fn set<K>(
    client: &Client,
    metadata: &ObjectMeta,
    finalizer: &str,
    present: bool,
) -> Result<(), ReasonMessage>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|known| known != finalizer);
    if present {
        finalizers.push(finalizer.to_owned());
    }
    let mut patch = json!({ "metadata": { "finalizers": finalizers } });
    // As `null` it would be removed, which the API server rejects.
    if let Some(version) = &metadata.resource_version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    let name = metadata.name.as_deref().unwrap_or_default();
    let api = Api::<K>::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    match api.patch_metadata(name, &patch_parameters(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() && !present => Ok(()),
        Err(error) => {
            Err(error_message(&error, "set the finalizer of", &format!("the {} {name:?}", K::kind(&()))))
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::Config;
    use parking_lot::Mutex;
    use pretty_assertions::assert_eq;
    use serde_json::Value;
    use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::method};

    use super::*;
    use crate::api::ModelAlias;

    fn object(revision: u32, finalizers: &[&str]) -> Value {
        json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {
                "name": "champion", "namespace": "risk", "uid": "1", "resourceVersion": revision.to_string(),
                "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers,
            },
        })
    }

    fn status(code: u16, reason: &str) -> ResponseTemplate {
        let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": reason, "reason": reason, "code": code });
        ResponseTemplate::new(code).set_body_json(body)
    }

    /// An API server with an object in deletion, which accepts no new finalizer and no change of an older
    /// state.
    async fn server(there: Value) -> (MockServer, Client, Arc<Mutex<Value>>) {
        let server = MockServer::start().await;
        let stored = Arc::new(Mutex::new(there));
        let (read, written) = (stored.clone(), stored.clone());
        let list = move |_: &Request| {
            ResponseTemplate::new(200).set_body_json(json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
                "metadata": {}, "items": [read.lock().clone()],
            }))
        };
        Mock::given(method("GET")).respond_with(list).mount(&server).await;
        let patch = move |request: &Request| {
            let patch: Value = request.body_json().unwrap();
            let (metadata, mut stored) = (&patch["metadata"], written.lock());
            let before = stored["metadata"].clone();
            let is_stale =
                metadata["resourceVersion"].as_str().is_some_and(|seen| seen != before["resourceVersion"]);
            let has = |finalizer: &Value| before["finalizers"].as_array().unwrap().contains(finalizer);
            if is_stale {
                return status(409, "Conflict");
            }
            if !metadata["finalizers"].as_array().unwrap().iter().all(has) {
                return status(422, "Invalid");
            }
            stored["metadata"]["finalizers"] = metadata["finalizers"].clone();
            ResponseTemplate::new(200).set_body_json(&*stored)
        };
        Mock::given(method("PATCH")).respond_with(patch).mount(&server).await;
        // There may be one already; it is the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::try_from(Config::new(server.uri().parse().unwrap())).unwrap();
        (server, client, stored)
    }

    #[tokio::test]
    async fn a_finalizer_is_removed_although_somebody_else_removed_another_one_in_between() {
        let (_server, client, stored) = server(object(3, &[REGISTRY_ALIAS, "kept"])).await;
        let seen = object(2, &["removed", REGISTRY_ALIAS, "kept"]);
        let seen: ObjectMeta = serde_json::from_value(seen["metadata"].clone()).unwrap();
        remove::<ModelAlias>(&client, &seen, REGISTRY_ALIAS).await.unwrap();
        assert_eq!(stored.lock()["metadata"]["finalizers"], json!(["kept"]));
    }

    #[tokio::test]
    async fn an_object_that_was_created_again_keeps_its_finalizer() {
        let mut another = object(3, &[REGISTRY_ALIAS]);
        another["metadata"]["uid"] = "2".into();
        let (_server, client, stored) = server(another).await;
        let seen = object(2, &[REGISTRY_ALIAS]);
        let seen: ObjectMeta = serde_json::from_value(seen["metadata"].clone()).unwrap();
        remove::<ModelAlias>(&client, &seen, REGISTRY_ALIAS).await.unwrap();
        assert_eq!(stored.lock()["metadata"]["finalizers"], json!([REGISTRY_ALIAS]));
    }
}
