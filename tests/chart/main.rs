//! The install: what the chart and the kustomize base give to a cluster, and what they refuse.
//!
//! It needs `helm` and `kubectl`, from the environment variables `HELM` and `KUBECTL` or on the PATH, but no cluster.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod changed_by;
mod chart;
mod crds;
mod kustomize;
mod permissions;
mod samples;
mod tools;
mod values;
