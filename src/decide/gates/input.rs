//! The input of the promotion rules.

use std::collections::BTreeMap;

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
    /// The metrics of its run.
    pub metrics: Metrics,
}

/// The metrics of a version's run.
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

    /// Returns a metric of a version's run; `None` if the run has no such metric.
    pub(super) fn metric(&self, version: Version, name: &str) -> Result<Option<Metric>, ReasonMessage> {
        match &self.evidence(version)?.metrics {
            Metrics::Unread(cause) => Err(cause.clone()),
            Metrics::Known(metrics) => Ok(metrics.get(name).copied()),
        }
    }

    /// Returns the version that an alias names.
    pub(super) fn named(&self, alias: &str) -> Result<Option<Version>, ReasonMessage> {
        match &self.registry.error {
            Some(error) => Err(error.clone()),
            None => Ok(self.registry.aliases.get(alias).copied()),
        }
    }
}
