//! Simulated traffic of versions whose true rates are known, seeded: the same seed gives the same figures
//! everywhere.
//!
//! Used by `make bench-analysis`, by the tests in `src/analysis/tests`, and for the picture in
//! `docs/experiments.md`.

pub mod classical;
pub mod experiment;
pub mod promotion;
pub mod random;
pub mod traffic;
