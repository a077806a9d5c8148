//! The Kubernetes side: everything said to and seen of the API server.
//!
//! ```text
//! client             connects, with bounds on how long an answer may take
//! watch, backoff     our own kinds, and what we render, by label
//! cache              what we render as the watches show it, as small projections
//! pods, secrets      what pods say of themselves; the Secrets that objects name
//! server_side_apply  writes, under one field manager; finalizer: the one we set
//! error              a failed call as a reason and a message
//! readiness          what must be read before anything is decided
//! requeue            asks for a reconcile of an object
//! ```
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "effects: speaks to the API server")]

pub(crate) mod backoff;
pub mod cache;
pub(crate) mod client;
pub(crate) mod error;
mod events;
pub mod finalizer;
pub mod pods;
mod readiness;
mod requeue;
pub mod secrets;
pub(crate) mod server_side_apply;
pub(crate) mod watch;

pub use events::Events;
pub use readiness::Readiness;
pub use requeue::{Requeue, RequeueStreams};

/// An object as a watch delivers it: one that cannot be parsed does not stall the others.
pub type Guarded<K> = kube::core::DeserializeGuard<K>;
