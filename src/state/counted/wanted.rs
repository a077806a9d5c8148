//! What is looked for in the counts of a pod.

use crate::api::{
    live::LiveCheck,
    model_experiment::{ExperimentMetric, PredictionMetric},
};

/// Something that pods count, under the name that a rule gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name.
    pub name: String,
    /// What it is.
    pub counted: Counted,
}

/// What pods count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Requests that were not answered with 2xx.
    Failures,
    /// Requests that took longer than this, in milliseconds.
    Slow(u32),
    /// Answers in which a predicted value is missing.
    Missing,
    /// Predicted values of this class.
    Class(String),
    /// Predicted numbers.
    Mean,
}

impl From<&LiveCheck> for Wanted {
    fn from(check: &LiveCheck) -> Self {
        let counted = match (check.slow, check.missing) {
            (Some(slow), _) => Counted::Slow(slow.over.milliseconds()),
            (None, Some(_)) => Counted::Missing,
            (None, None) => Counted::Failures,
        };
        Self { name: check.name.clone(), counted }
    }
}

impl From<&ExperimentMetric> for Wanted {
    fn from(metric: &ExperimentMetric) -> Self {
        let counted = match (&metric.predictions, metric.slow, metric.missing) {
            (Some(PredictionMetric { class: Some(class), .. }), ..) => Counted::Class(class.clone()),
            (Some(PredictionMetric { class: None, .. }), ..) => Counted::Mean,
            (None, Some(slow), _) => Counted::Slow(slow.over.milliseconds()),
            (None, None, Some(_)) => Counted::Missing,
            (None, None, None) => Counted::Failures,
        };
        Self { name: metric.name.clone(), counted }
    }
}
