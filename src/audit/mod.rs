//! The audit log: what was live when, who requested it and why, in the tags of the versions in the registry.
//! It outlives every object in the cluster.
//!
//! ```text
//! tags     one entry of the history as tags: a log entry that never changes, and the latest facts for people
//! log      the log, read back: what was live at a time
//! ```
//!
//! The key of a log entry is derived from its content, so writing it twice has no further effect.

mod log;
mod tags;
#[cfg(test)]
mod tests;

pub use self::{
    log::{Line, Log, Span},
    tags::{Change, LogEntry, is_audit_tag, is_log_tag, is_logged, of_version, of_version_before, was_live},
};
