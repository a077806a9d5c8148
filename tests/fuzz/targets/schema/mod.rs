//! Objects made from a schema, and the API server's verdict on them.
//!
//! `generate` turns bytes into an object: a fuzzer's, so that what it finds out about them leads somewhere,
//! or random ones. What the API server would store of it, or why it refuses, says
//! [`crate::offline::admission`]. Both read the `OpenAPI` schema of a custom resource definition or of a
//! Kubernetes type, so a new field is covered without a line here.

mod generate;

pub use generate::Generator;

pub use crate::offline::admission::Admission;
