//! The offline tools: they use manifests and the registry, without a cluster.
//!
//! ```text
//! admission  the API server's validation of a manifest
//! check      checks of all manifests together, and of their promotion rules
//! versions   comparison of versions
//! ```

pub mod admission;
pub mod check;
pub mod versions;
