//! Laurel promotes and rolls back machine-learning models on Kubernetes, true to a model registry.

pub mod api;
pub mod cli;
pub mod decide;
pub mod registry;
pub mod render;
pub mod status;
