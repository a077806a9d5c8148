//! What the operator tells about itself: logs, metrics, and whether it is alive and ready.

pub mod logs;
pub mod metrics;
pub mod server;
