//! End-to-end tests: the operator as it is installed, real model servers in real pods, a real MLflow, and
//! clients at a constant rate over both kinds of connection.
//!
//! ```sh
//! make demo                 # leaves a cluster with MLflow, its models, and Laurel
//! cargo test --test full
//! ```
//!
//! With `CLUSTER=existing` they use kubectl's current cluster, with MLflow as `mlflow` in the namespace
//! `mlops`; the variable `LAUREL_SERVING_IMAGE` then names a serving image that this cluster can pull. Tests
//! run side by side, each in a namespace and with a registered model of its own (`laurel-test-…`), as far as
//! the machine has room for pods; see `fixture`. A test whose name begins with `promise_` proves that
//! promise.

#![expect(clippy::disallowed_types, reason = "effects: the tests run against a real cluster")]
#![expect(clippy::disallowed_methods, reason = "some waits are for a moment, not for a state")]
#![expect(clippy::print_stdout, reason = "tests print what they measured; cargo shows it when one fails")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod audit_log;
mod challengers;
mod errors;
mod experiment;
mod faults;
mod fixture;
mod gateway;
mod live;
mod operator;
mod outside;
mod promotion;
mod registry;
mod rolling;
mod rules;
mod soak;
#[path = "../soak/mod.rs"]
#[allow(dead_code, reason = "`make soak` uses the rest")]
mod soaking;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the demo and the tests of the load client use the rest")]
mod support;
mod webhook;
