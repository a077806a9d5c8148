//! The MLflow backend.
