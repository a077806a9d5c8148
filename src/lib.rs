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
//! [`status`] (pure) is what of it is kept in the registry's tags. [`api`] is the contract, [`decide`] the
//! heart, [`registry`] the outside world behind one trait.

pub mod api;
pub mod apply;
pub mod audit;
pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod decide;
#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/targets/mod.rs"]
pub mod fuzzing;
pub mod observe;
pub mod offline;
pub mod options;
pub mod registry;
pub mod render;
pub mod resolve;
pub mod state;
pub mod status;
pub mod telemetry;
pub mod webhook;
