//! Objects made from a schema, and the API server's verdict on them.
//!
//! `generate` turns bytes into an object: a fuzzer's, so that what it finds out about them leads somewhere, or random ones.
//! `admit` says what the API server would store, or why it refuses. Both read the `OpenAPI` schema of a custom resource
//! definition or of a Kubernetes type, so a new field is covered without a line here.

mod admit;
mod generate;

pub use admit::Admission;
pub use generate::Generator;
