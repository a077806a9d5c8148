//! Tests of what a release contains besides the program: they start nothing and need no cluster.
//!
//! ```text
//! chart  the Helm chart, the kustomize base, the CRDs and the samples
//! docs   the pages
//! ```

#![expect(clippy::disallowed_methods, reason = "effects: reads the files of a release")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod chart;
mod docs;
