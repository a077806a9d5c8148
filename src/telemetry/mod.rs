//! What the operator tells about itself: logs, metrics, and whether it is alive and ready.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "effects: answers scrapes")]

pub mod logs;
pub mod metrics;
pub mod server;
