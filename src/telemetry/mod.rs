//! The operator's own logs, metrics and health endpoints.

pub mod logs;
pub mod metrics;
pub mod server;
