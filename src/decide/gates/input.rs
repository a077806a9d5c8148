//! The input of the promotion rules.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        metric::Metric,
        names::Version,
    },
    decide::{RegistryView, VersionView},
};

/// What the registry holds of a version beyond what serving it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// It could not be read; the cause.
    Unread(ReasonMessage),
    /// The data.
    Known(EvidenceFacts),
}

/// The data that rules judge a version by; only what some rule uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceFacts {
    /// When the version was registered.
    pub registered_at: Timestamp,
    /// Whether it has a description.
    #[serde(default)]
    pub has_description: bool,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Its metrics.
    pub metrics: Metrics,
    /// What has its metrics.
    #[serde(default)]
    pub measured: Measured,
    /// The metrics that its logged model has and its run has not.
    #[serde(default)]
    pub of_logged_model: BTreeSet<String>,
    /// Why its logged model could not be read, so that a metric that its run has not is unknown.
    #[serde(default)]
    pub unread: Option<ReasonMessage>,
}

/// What has the metrics of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measured {
    /// Its run.
    #[default]
    Run,
    /// Its logged model: it was registered without a run.
    LoggedModel,
    /// Both: its run, and for what that lacks its logged model.
    Both,
    /// Nothing.
    Nothing,
}

/// The metrics of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Metrics {
    /// They could not be read; the cause.
    Unread(ReasonMessage),
    /// The latest value of each.
    Known(BTreeMap<String, Metric>),
}

/// The input of one check.
pub(super) struct Input<'a> {
    pub(super) candidate: Version,
    pub(super) registry: &'a RegistryView,
}

impl Input<'_> {
    /// Returns the evidence of a version, or why there is none.
    pub(super) fn evidence(&self, version: Version) -> Result<&EvidenceFacts, ReasonMessage> {
        if let Some(error) = &self.registry.error {
            return Err(error.clone());
        }
        match (self.registry.versions.get(&version), self.registry.evidence.get(&version)) {
            (Some(VersionView::Absent), _) => Err(ReasonMessage::new(
                Reason::VersionNotFound,
                format!("version {version} does not exist in the registry"),
            )),
            (_, Some(Evidence::Known(facts))) => Ok(facts),
            (_, Some(Evidence::Unread(cause))) | (Some(VersionView::Unread(cause)), None) => {
                Err(cause.clone())
            }
            (_, None) => Err(ReasonMessage::new(
                Reason::RegistryNotRead,
                format!("version {version} has not been read for its promotion rules yet"),
            )),
        }
    }

    /// Returns a metric of a version; `None` if it has no such metric.
    pub(super) fn metric(&self, version: Version, name: &str) -> Result<Option<Metric>, ReasonMessage> {
        let facts = self.evidence(version)?;
        match (&facts.metrics, &facts.unread) {
            (Metrics::Unread(cause), _) => Err(cause.clone()),
            (Metrics::Known(metrics), Some(cause)) if !metrics.contains_key(name) => Err(cause.clone()),
            (Metrics::Known(metrics), _) => Ok(metrics.get(name).copied()),
        }
    }

    /// Says that the candidate lacks a metric, and where it was looked for.
    pub(super) fn no_metric(&self) -> &'static str {
        match self.evidence(self.candidate).map(|facts| facts.measured) {
            Ok(Measured::LoggedModel) => "its logged model has no such metric",
            Ok(Measured::Both) => "neither its run nor its logged model has such a metric",
            Ok(Measured::Nothing) => {
                "it names no run and no logged model, so it has no metrics: register it from a run, or as \
                 models:/m-…"
            }
            Ok(Measured::Run) | Err(_) => "its run has no such metric",
        }
    }

    /// Says where the value of a version's metric comes from, if that is not its run.
    pub(super) fn origin(&self, version: Version, name: &str) -> &'static str {
        let is_of_logged_model =
            self.evidence(version).is_ok_and(|facts| facts.of_logged_model.contains(name));
        if is_of_logged_model { " (of its logged model)" } else { "" }
    }

    /// For an alias that names no version, says which one in the registry differs only in letter case.
    pub(super) fn similar(&self, alias: &str) -> String {
        let similar = self.registry.similar_aliases.get(alias);
        similar
            .map_or_else(String::new, |similar| format!("; the registry has {similar:?}: letter case counts"))
    }

    /// Returns the version that an alias names.
    pub(super) fn named(&self, alias: &str) -> Result<Option<Version>, ReasonMessage> {
        match &self.registry.error {
            Some(error) => Err(error.clone()),
            None => Ok(self.registry.aliases.get(alias).copied()),
        }
    }
}
