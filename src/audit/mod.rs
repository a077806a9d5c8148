//! The record: what was live, when, who asked for it and why, in the tags of the versions in the registry. It outlives every
//! object in the cluster.
//!
//! ```text
//! tags     one entry of the history as tags: one line of the log that never changes, and the latest facts for a person
//! log      the log as it is read back: what was live at a time
//! ```
//!
//! The key of a line of the log is made from its facts, so writing it twice is writing it once.

mod log;
mod tags;
#[cfg(test)]
mod tests;

pub use self::{
    log::{Line, Log, Span},
    tags::{Change, LogEntry, is_logged, of_version, of_version_before, was_live},
};
