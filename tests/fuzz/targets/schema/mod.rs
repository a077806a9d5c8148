//! Objects generated from a schema, and the API server's verdict on them.
//!
//! `generate` turns bytes into an object: a fuzzer's, so that coverage guides it, or random ones.
//! [`crate::offline::admission`] returns what the API server would store, or why it rejects it. Both read the
//! `OpenAPI` schema of a custom resource definition or of a Kubernetes type, so a new field is covered
//! without a line here.

mod generate;

pub use generate::Generator;

pub use crate::offline::admission::Admission;
