//! The spec in the terms of the tests.

use jiff::Timestamp;

use super::ExperimentObserved;
use crate::{
    analysis::{
        experiment::{ExperimentRules, Goal, Kind, Metric},
        live::Assignment,
    },
    api::{
        ModelExperimentStatus,
        model_experiment::{ExperimentMetric, MetricGoal, MetricRole},
        signed_duration,
    },
};

impl ExperimentObserved {
    /// The rules for a challenger that is compared since a time.
    pub(super) fn rules(&self, status: &ModelExperimentStatus, since: Timestamp) -> ExperimentRules {
        let spec = &self.spec;
        let begun = status.started_at.unwrap_or(since);
        ExperimentRules {
            false_alarm: spec.false_alarm,
            challengers: spec.challengers.len(),
            min_samples: u64::from(spec.min_samples),
            at_least: signed_duration(spec.duration.at_least),
            // The end is that of the experiment, also for a challenger that began anew.
            at_most: signed_duration(spec.duration.at_most) - since.duration_since(begun),
            primary: primary(&spec.metrics),
            guardrails: guardrails(&spec.metrics),
            min_failures: u64::from(spec.min_failures),
            assignment: Assignment::default(),
        }
    }
}

pub(super) fn primary(metrics: &[ExperimentMetric]) -> Metric {
    let metric = metrics.iter().find(|metric| metric.role == MetricRole::Primary);
    let is_mean = metric.is_some_and(|it| it.predictions.as_ref().is_some_and(|it| it.mean.is_some()));
    Metric {
        name: metric.map(|metric| metric.name.clone()).unwrap_or_default(),
        kind: if is_mean { Kind::Mean } else { Kind::Share },
        goal: match metric.and_then(|metric| metric.goal) {
            Some(MetricGoal::Maximize) => Goal::Maximize,
            Some(MetricGoal::Minimize) | None => Goal::Minimize,
        },
        margin: metric.and_then(|metric| metric.margin).unwrap_or_default(),
    }
}

fn guardrails(metrics: &[ExperimentMetric]) -> Vec<(String, f64)> {
    let guardrails = metrics.iter().filter(|metric| metric.role == MetricRole::Guardrail);
    guardrails.map(|metric| (metric.name.clone(), metric.tolerate.unwrap_or(1.0))).collect()
}
