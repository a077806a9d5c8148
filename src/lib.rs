//! Laurel promotes and rolls back machine-learning models on Kubernetes, true to a model registry.
//!
//! ```text
//!  watch event ─┐
//!  registry poll┼─► controllers ── one pass for one object ──────────────────────────────────────────┐
//!  wake-up ─────┘                                                                                     │
//!    observe (IO)       decide (pure)          apply (IO)                 status (pure, one patch)    │
//!    watches, polls ──► Observed ─► Decision ─► ordered actions ─► Applied ─► next status ─► Events ◄─┘
//!                                               └ render (pure): the desired objects
//! ```
//!
//! [`record`] (pure) is what of it is kept in the registry's tags. [`api`] is the contract, [`decide`] the heart, [`registry`] the outside world behind one trait.

pub mod admission;
pub mod api;
pub mod apply;
pub mod check;
pub mod cli;
pub mod context;
pub mod controllers;
pub mod decide;
#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/targets/mod.rs"]
pub mod fuzzing;
pub mod observe;
pub mod push;
pub mod record;
pub mod registry;
pub mod render;
pub mod status;
pub mod telemetry;
pub mod versions;
