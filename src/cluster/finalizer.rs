//! The finalizers of our own kinds.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource, api::Patch, core::NamespaceResourceScope};
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
