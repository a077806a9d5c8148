//! Control-plane tests: the operator as a process, against a real API server whose pods are simulated, and a
//! real MLflow.
//!
//! ```sh
//! make cluster-api                # etcd, kube-apiserver, controller-manager, scheduler, KWOK
//! tests/rig/rig mlflow-venv       # MLflow for this machine
//! cargo test --test control_plane
//! ```
//!
//! ```text
//! bench    how soon a moved alias is acted on: not run with the others
//! harness  what all tests share: the cluster, MLflow, the operator; they end with the run
//! fixture  what each test starts from: a place (tests/support/simulated)
//! ```
//!
//! Tests run side by side. One whose name begins with `promise_` proves that promise. Simulated pods do not
//! answer requests, so nothing here sends predictions, and smoke tests are off.

#![expect(clippy::disallowed_types, reason = "effects: the tests run against a real cluster")]
#![expect(clippy::disallowed_methods, reason = "waits for what cannot be watched")]
#![expect(clippy::print_stdout, reason = "tests print what they saw; cargo shows it when one fails")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod audit_log;
mod bench;
mod check;
mod ci;
mod cluster_errors;
mod command_line;
mod deletion;
mod drift;
mod fixture;
mod follow;
mod followers;
mod gate;
mod hand_edits;
mod harness;
mod install;
mod meter;
mod operator;
mod ownership;
mod pod_events;
mod promotion;
mod promotion_rules;
mod registered_model;
mod registries;
mod registry_errors;
mod rolling;
mod route_ref;
mod scale;
mod servers;
#[path = "../support/simulated/mod.rs"]
#[allow(dead_code, reason = "the tests of faults use the rest")]
mod simulated;
mod stages;
mod status;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the demo and the tests on a real cluster use the rest")]
mod support;
mod traffic;
mod validation;
mod webhook;
