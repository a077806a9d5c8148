//! Hostile input on a real API server and a real MLflow: objects made from the CRDs' own schemas, and names
//! that no Kubernetes object may have. Objects that cannot be read are in `kubernetes`.
//!
//! ```text
//! objects   hundreds of objects, right and wrong, beside a ModelAlias that is promoted as ever
//! names     models by any name, and names that differ only in what a DNS label cannot hold
//! ```
//!
//! The objects come from `simulated::hostile`; the fuzzer makes its own by the same generator.

mod names;
mod objects;
