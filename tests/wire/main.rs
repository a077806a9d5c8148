//! Tests on real sockets with their own servers and clients: no cluster, no MLflow.
//!
//! ```text
//! registry     the MLflow client's requests, and how it parses responses
//! webhook      the receiver of webhooks, and their registration in MLflow
//! load_client  the load client of the demo and the end-to-end tests
//! ```

#![expect(clippy::disallowed_types, reason = "effects: connects to sockets")]
#![expect(clippy::disallowed_methods, reason = "effects: its own servers, and clocks")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as its tests do")]

mod load_client;
mod registry;
mod webhook;
