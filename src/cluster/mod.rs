//! The Kubernetes side: all communication with the API server.
//!
//! ```text
//! client             connects, with limits on the duration of every call, and writes only while it may
//! lease              which of several operators acts
//! watch, backoff     watches our own kinds, and rendered objects by label
//! guarded            an object of ours, or what is left of one that cannot be parsed
//! cache              small projections of the rendered objects, as watched
//! pods, secrets      the state of pods; the Secrets that objects refer to
//! field_owners       who else set fields of a Deployment that are ours
//! pod_causes         why pods are not ready (pure); pod_events reads the Events about one
//! server_side_apply  writes, under one field manager; finalizer: our finalizers
//! error              a failed call as a reason and a message
//! readiness          what must be read before anything is decided
//! requeue            requests a reconcile of an object
//! ```
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "effects: calls the API server")]

pub(crate) mod backoff;
pub mod cache;
pub(crate) mod client;
pub(crate) mod error;
mod events;
pub(crate) mod field_owners;
pub mod finalizer;
mod guarded;
pub mod lease;
pub mod pod_causes;
pub(crate) mod pod_events;
pub mod pods;
mod readiness;
mod requeue;
pub mod secrets;
pub(crate) mod server_side_apply;
pub(crate) mod watch;

pub use events::Events;
pub use guarded::{Guarded, Unreadable};
pub use readiness::Readiness;
pub use requeue::{Requeue, RequeueStreams};
