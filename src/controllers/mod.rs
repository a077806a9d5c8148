//! The controllers: watches, and for each object observe → decide → apply → status.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: wires the clients and reads the clock, once for each reconcile"
)]

use std::time::Duration;

use kube::{Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::cluster::{error::error_message, server_side_apply::apply_status};

pub mod context;
mod farewell;
mod leadership;
pub mod model_alias;
pub mod model_experiment;
pub mod model_registry;
mod poll;
pub mod registered_model;
mod registry_object;
mod run;
mod task;
mod unreadable;
pub mod wake;
mod webhook;
mod webhook_registration;

pub use context::Context;
pub use leadership::Leadership;
pub use run::run;

/// How long to wait after a reconcile in which something failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Why a reconcile could not be finished. It is retried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reconcile panicked, which is a bug.
    #[error("bug in Laurel, please report it: {0}")]
    Defect(String),
    /// The status or the finalizer could not be written.
    #[error("{0}")]
    Write(String),
}

/// Writes a status in one patch; does nothing if the object is gone. Returns the object as written.
async fn write_status<K, S>(context: &Context, object: &K, status: &S) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    S: Serialize,
{
    let (name, kind) = (object.name_any(), K::kind(&()));
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": kind,
        "metadata": { "name": name, "uid": object.uid() },
        "status": status,
    });
    match apply_status(&context.client, object.namespace().as_deref(), &name, &patch).await {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        // A conflict may also mean that another object has the name by now. That one is reconciled next.
        Err(error) => {
            let cause = error_message(&error, "write the status of", &format!("the {kind} {name:?}"));
            Err(Error::Write(cause.message))
        }
    }
}
