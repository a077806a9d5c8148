//! Observation: assembles the state of the cluster and the registry into one plain
//! [`Observed`](crate::decide::Observed).
//!
//! ```text
//! watches ─► cluster::Cache ──────┐
//!            (projections only)   ├─► model_alias::observe ─► Observed
//! polls ───► polled::Registries ──┘
//! ```
//!
//! Nothing here writes or decides. What could not be read is unknown, never absent.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: begins reads of the registry"
)]

mod awaited;
mod blockers;
mod candidates;
mod challengers;
mod evidence;
pub mod experiment;
mod model_alias;
mod poll_plan;
pub mod registered_model;
mod sources;

pub use candidates::candidate;
pub use evidence::measured;
pub use model_alias::observe;
pub use poll_plan::{Watched, plan_of_models, poll_plan};
pub use sources::{
    EvidenceReads, ListingReads, Sources, VersionReads, evidence_reads, listing_reads, version_reads,
};
