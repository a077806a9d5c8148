//! Pure functions from observation, decision and applied actions to the next status and Events.
//!
//! Status is computed from the actions that were performed, never from those that were intended.

mod applied;
mod events;
mod experiment;
mod history;
mod hold;
mod kstatus;
mod live;
mod model_alias;
mod model_outcome;
mod model_registry;
mod registered_model;
mod settled;

pub use applied::Applied;
pub use events::{NewEvent, condition_events, events, readiness_events};
pub use experiment::{ExperimentApplied, experiment_events, next_experiment};
#[cfg(test)]
pub(crate) use hold::HOLD;
pub use hold::{Due, Held, due, hold_for};
pub use kstatus::kstatus;
pub use model_alias::{SubjectStatus, next};
pub use model_outcome::{ModelApplied, ModelListing, ModelOutcome, model_outcome};
pub use model_registry::{RegistryHealth, RegistryObserved, WebhookReport, registry_events, registry_status};
pub use registered_model::{display_metrics, version_statuses};
pub use settled::{is_alias_settled, is_model_settled};
