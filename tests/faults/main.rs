//! Faults: the operator is killed, the API server and MLflow answer late, wrongly or not at all, and it still
//! keeps its promises. A real API server whose pods are simulated, a real MLflow, and for each test an
//! operator of its own.
//!
//! ```sh
//! make cluster-api                # etcd, kube-apiserver, controller-manager, scheduler, KWOK
//! tests/rig/rig mlflow-venv       # MLflow for this machine
//! cargo test --test faults
//! ```
//!
//! ```text
//! world     what all tests of a run share: the cluster, MLflow, a folder
//! fixture     where a test plays: a place, an operator restricted to it, a proxy before each of its two servers
//! operator  that operator: start, kill, terminate
//! wire      the proxies: what passed them, and the faults that they make
//! invariants   what is never to happen, watched from outside in every test
//!
//! proxies   that the proxies do what they say
//! crash     killed at every single write of a story
//! registry  the registry answers wrongly, late or not at all, and others change what is in it
//! hostile   objects, names and bodies that nobody should send
//! ```
//!
//! Runs with different filters may go on side by side; a run of `control_plane`, whose operator takes all
//! namespaces in hand, waits for them, and they for it.

#![expect(clippy::disallowed_types, reason = "effects: the tests run against a real cluster")]
#![expect(clippy::disallowed_methods, reason = "waits for what cannot be watched")]
#![expect(clippy::print_stdout, reason = "tests print what they saw; cargo shows it when one fails")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod crash;
#[allow(dead_code, reason = "a kit, of which each test takes a part")]
mod fixture;
mod hostile;
#[allow(dead_code, reason = "a kit, of which each test takes a part")]
mod invariants;
mod kubernetes;
#[allow(dead_code, reason = "a kit, of which each test takes a part")]
mod operator;
mod proxies;
mod registry;
mod sequences;
#[path = "../support/simulated/mod.rs"]
#[allow(dead_code, reason = "the tests of the control plane use the rest")]
mod simulated;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the demo and the tests on a real cluster use the rest")]
mod support;
#[allow(dead_code, unused_imports, reason = "a kit, of which each test takes a part")]
mod wire;
mod world;
