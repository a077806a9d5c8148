//! The tools beside the operator: they answer from manifests and the registry, without a cluster.
//!
//! ```text
//! admission  what the API server would say of a manifest
//! check      manifests together, and their promotion rules
//! versions   versions side by side
//! ```

pub mod admission;
pub mod check;
pub mod versions;
