//! Desired objects.
pub mod labels;
