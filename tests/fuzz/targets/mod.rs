//! Fuzz targets: properties that must hold for any hostile input.
//!
//! Each target is a plain function of bytes that panics if a property does not hold. libFuzzer chooses the
//! bytes (`make fuzz`), and every run of the unit tests replays the kept ones (`replay`).
//!
//! ```text
//! names             texts as models, aliases, versions, objects → labels, object names, MLflow's search filter
//! mlflow_bodies     a conversation with a server → every call of the MLflow client
//! template_merge    a pod template by Kubernetes' own schema → merging and rendering
//! spec_to_decision  an object by the CRD's schema and a cluster state → admission, intent, decision, status
//! schema            objects from a schema, and the API server's verdict on them
//! ```
//!
//! The library compiles these into itself for tests and the fuzzer only, so that they can reach private
//! items.
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a target panics if a property does not hold"
)]

mod mlflow_bodies;
mod names;
#[cfg(test)]
mod replay;
mod schema;
mod spec_to_decision;
mod template_merge;

pub use mlflow_bodies::mlflow_bodies;
pub use names::names;
pub use spec_to_decision::spec_to_decision;
pub use template_merge::template_merge;

/// A target: a property of any bytes.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 4] = [
    ("mlflow_bodies", mlflow_bodies),
    ("names", names),
    ("spec_to_decision", spec_to_decision),
    ("template_merge", template_merge),
];
