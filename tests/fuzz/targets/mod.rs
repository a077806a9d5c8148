//! What hostile input is thrown at, and what has to hold whatever it says.
//!
//! Each target is a plain function of bytes that panics when something does not hold. libFuzzer chooses the
//! bytes (`make fuzz`), and every run of the unit tests replays those that were kept (`replay`).
//!
//! ```text
//! names             texts as models, aliases, versions, objects → labels, object names, MLflow's search filter
//! mlflow_bodies     a conversation with a server → every call of the MLflow client
//! template_merge    a pod template by Kubernetes' own schema → merging and rendering
//! spec_to_decision  an object by the CRD's own schema and what the cluster shows → admission, intent, decision, status
//! schema            objects from a schema, and the API server's verdict on them
//! ```
//!
//! The library compiles these into itself for tests and for the fuzzer alone, so that they reach what nobody
//! else should.
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a target says by a panic that something does not hold"
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

/// A target: what holds for any bytes.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 4] = [
    ("mlflow_bodies", mlflow_bodies),
    ("names", names),
    ("spec_to_decision", spec_to_decision),
    ("template_merge", template_merge),
];
