//! Observation, the first half of the effects: what the cluster shows and what the registry says, brought together into
//! one plain [`Observed`](crate::decide::Observed).
//!
//! ```text
//! watches ─► cluster::Cache ──────┐
//!            (projections only)   ├─► model_alias::observe ─► Observed
//! polls ───► registries::Hub ─────┘
//! ```
//!
//! Nothing here writes, and nothing here decides. What could not be learnt is unknown, never absent.

pub mod cluster;
mod evidence;
mod followed;
pub mod model_alias;
pub mod pods;
pub mod registries;
pub mod secrets;
mod wanted;

pub use followed::{candidate, follower};
pub use wanted::{wanted, watched};
