//! State of this process that is not in the cluster. Losing it is safe: the next process finds out again.
//!
//! ```text
//! smoke_tests   smoke tests that run, and their results
//! alias_writes  aliases that are being set in registries
//! counted       what pods counted
//! audit_writes  history entries that are being written into the tags of versions
//! pod_access    how pods are reached
//! pod_events    Events about pods that are waited for
//! experiments   experiments that are under way
//! live          versions that are judged by their live traffic
//! memory        the newest status we wrote, and what a deletion still needs
//! meters        namespaces in which the ConfigMap with the meter was written lately
//! object_writes  what is being written in registries for RegisteredModels and ModelExperiments
//! reads         reads from registries, and their last answers
//! throttle      limits on failed reconciles and on writes that another client reverts
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: what runs beside the reconciles, by the clock"
)]

pub mod alias_writes;
pub mod audit_writes;
pub mod counted;
pub mod experiments;
pub mod live;
mod memory;
mod meters;
pub mod object_writes;
mod pod_access;
pub mod pod_events;
mod reads;
pub mod smoke_tests;
mod throttle;

pub use memory::Memory;
pub use meters::Meters;
pub use pod_access::PodAccess;
pub use reads::{FRESH, ReadKey, Reads, Waiter};
pub use throttle::{Revision, Throttle, retry_after};

/// The result of an action that did not fail.
pub enum Effect {
    /// It is done.
    Done,
    /// It has just begun, and runs beside the reconcile.
    Begun,
    /// It was begun before and has not ended.
    UnderWay,
}
