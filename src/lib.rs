//! Laurel promotes and rolls back machine-learning models on Kubernetes, in step with a model registry.
//!
//! ```text
//!  watch event ─┐
//!  registry poll┼─► controllers ── one reconcile of one object ───────────────────────────────────────┐
//!  wake-up ─────┘                                                                                     │
//!    observe (IO)       decide (pure)          apply (IO)                 status (pure, one patch)    │
//!    watches, polls ──► Observed ─► Decision ─► ordered actions ─► Applied ─► next status ─► Events ◄─┘
//!                                               └ render (pure): the desired objects
//! ```
//!
//! [`analysis`] (pure) judges a version by its live traffic; nothing uses it yet. [`audit`] (pure) turns the
//! history into registry tags. [`api`] has the custom resources, [`decide`] the
//! decision, and [`registry`] access to registries behind one trait.

pub mod analysis;
pub mod api;
pub mod apply;
pub mod audit;
pub mod cli;
pub mod cluster;
pub mod controllers;
pub mod decide;
pub mod fence;
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
