//! The operator's own logs, metrics and health endpoints.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "effects: answers scrapes")]

pub mod logs;
pub mod metrics;
pub mod progress;
pub mod server;
