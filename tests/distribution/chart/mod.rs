//! The install: what the chart and the kustomize base give to a cluster, and what they refuse.
//!
//! It needs `helm` and `kubectl`, from the environment variables `HELM` and `KUBECTL` or on the PATH, but no
//! cluster.

mod changed_by;
mod crds;
mod kustomize;
mod permissions;
mod samples;
mod templates;
mod tools;
mod values;
