//! Objects that cannot be parsed: stored before the schema became strict, or written by a later release. They
//! are reported, stall no other object, and can be deleted.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, core::NamespaceResourceScope, runtime::controller::Action};
use serde::de::DeserializeOwned;

use super::Error;
use crate::{
    cluster::{Unreadable, finalizer},
    controllers::context::Context,
    status::NewEvent,
};

/// The reason of the Event about an object that cannot be parsed.
const REASON: &str = "Unreadable";

/// Publishes an Event about an object that cannot be parsed.
pub(super) fn report<K: Resource<DynamicType = ()>>(context: &Context, object: &Unreadable) {
    let metadata = &object.metadata;
    let is_ending = metadata.deletion_timestamp.is_some();
    let next = if is_ending {
        "its finalizer is removed, and its counterpart in the registry stays"
    } else {
        "it is not reconciled until it is corrected: compare it with `kubectl explain`, and with the \
         release of Laurel that wrote it"
    };
    let events = NewEvent {
        warning: true,
        reason: REASON.to_owned(),
        action: "Read".to_owned(),
        message: format!("Laurel cannot parse this {}: {}; {next}", K::kind(&()), object.error),
    };
    tracing::warn!(message = events.message, "unreadable");
    let reference = ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    };
    context.events.publish(reference, vec![events]);
}

/// Reports an object that cannot be parsed. One that is being deleted loses its finalizer, and its
/// counterpart in the registry stays.
///
/// # Errors
/// When the finalizer cannot be removed.
pub(super) async fn release<K>(context: &Context, object: &Unreadable) -> Result<Action, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    report::<K>(context, object);
    let metadata = &object.metadata;
    if metadata.deletion_timestamp.is_none() {
        return Ok(Action::await_change());
    }
    for name in [finalizer::REGISTRY_ALIAS, finalizer::REGISTERED_MODEL] {
        if finalizer::is_set(metadata, name) {
            finalizer::set::<K>(&context.client, metadata, name, false)
                .await
                .map_err(|cause| Error::Write(cause.message))?;
        }
    }
    Ok(Action::await_change())
}
