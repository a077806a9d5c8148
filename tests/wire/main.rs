//! Tests on real sockets with servers and clients of their own: no cluster, no MLflow.
//!
//! ```text
//! registry     what the MLflow client sends, and how it understands what comes back
//! webhook      the receiver of webhooks, and their registration in MLflow
//! load_client  the client that the demo and the end-to-end tests measure with
//! ```

#![expect(clippy::disallowed_types, reason = "effects: connects to sockets")]
#![expect(clippy::disallowed_methods, reason = "effects: servers of its own, and clocks")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as its tests do")]

mod load_client;
mod registry;
mod webhook;
