//! Least privilege (promise 12): the operator with the rights that the chart gives it and no other, against a
//! real API server that writes down every request, and a real MLflow behind TLS and a login.
//!
//! ```sh
//! make cluster-api                # the control plane; it audits service accounts
//! tests/rig/rig mlflow-venv       # MLflow for this machine
//! cargo test --test least_privilege
//! ```
//!
//! ```text
//! promises  the tests: each looks at a part of the evidence
//! evidence  plays everything once for each scope of the chart, and keeps what is to be looked at
//! story     what is played: all that the operator can do, and what goes wrong
//! login     its registries: the Secrets that they name, and what is refused
//! install   the chart's account and role, and the operator that runs with them
//! rights    what a role grants, and what a request needs
//! audit     the requests that the API server wrote down
//! planted   secrets that can be recognised in any text, also when they are encoded
//! front     TLS and a login in front of MLflow
//! ```

#![expect(clippy::disallowed_types, reason = "effects: the tests run against a real cluster")]
#![expect(clippy::disallowed_methods, reason = "waits for what cannot be watched")]
#![expect(clippy::print_stdout, reason = "tests print what they saw; cargo shows it when one fails")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod audit;
mod evidence;
mod front;
mod install;
mod login;
mod planted;
mod promises;
mod rights;
#[path = "../support/simulated/mod.rs"]
#[allow(dead_code, reason = "the other tests on the control plane use the rest")]
mod simulated;
mod story;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the demo and the tests on a real cluster use the rest")]
mod support;
