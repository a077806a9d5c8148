//! Least privilege (promise 12): the operator with exactly the chart's permissions, against a real API server
//! with an audit log, and a real MLflow behind TLS and authentication.
//!
//! ```sh
//! make cluster-api                # the control plane; it audits service accounts
//! tests/rig/rig mlflow-venv       # MLflow for this machine
//! cargo test --test least_privilege
//! ```
//!
//! ```text
//! promises  the tests: each checks a part of the evidence
//! evidence  runs everything once for each scope of the chart, and keeps the evidence
//! story     the story: everything that the operator can do, and errors
//! login     its registries: their Secrets, and rejected references
//! install   the chart's account and role, and the operator that runs with them
//! older     another installation that acts on the same objects
//! namespace_end  the end of the namespace that the operator runs in
//! many      the same with many ModelAliases in it
//! rights    permissions of roles and requests
//! audit     the requests in the API server's audit log
//! planted   secrets that can be recognised in any text, even if encoded
//! front     TLS and authentication in front of MLflow
//! ```

#![expect(clippy::disallowed_types, reason = "effects: the tests run against a real cluster")]
#![expect(clippy::disallowed_methods, reason = "waits for what cannot be watched")]
#![expect(clippy::print_stdout, reason = "tests print what they saw; cargo shows it when one fails")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot continue panics")]

mod audit;
mod evidence;
mod front;
mod install;
mod login;
mod many;
mod namespace_end;
mod older;
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
