//! What the rules may know.

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

/// What the registry says of a version beside what serving it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// It could not be read, and why.
    Unread(ReasonMessage),
    /// This is what it says.
    Known(EvidenceFacts),
}

/// What a version is judged by, as far as a rule speaks of it.
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
    /// They could not be read, and why.
    Unread(ReasonMessage),
    /// The latest value of each.
    Known(BTreeMap<String, Metric>),
}

/// What a check is made from.
pub(super) struct Input<'a> {
    pub(super) candidate: Version,
    pub(super) registry: &'a RegistryView,
}

impl Input<'_> {
    /// What is known of a version, or why nothing is.
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

    /// A metric of a version's run; `None` when the run has no such metric.
    pub(super) fn metric(&self, version: Version, name: &str) -> Result<Option<Metric>, ReasonMessage> {
        match &self.evidence(version)?.metrics {
            Metrics::Unread(cause) => Err(cause.clone()),
            Metrics::Known(metrics) => Ok(metrics.get(name).copied()),
        }
    }

    /// The version that an alias names.
    pub(super) fn named(&self, alias: &str) -> Result<Option<Version>, ReasonMessage> {
        match &self.registry.error {
            Some(error) => Err(error.clone()),
            None => Ok(self.registry.aliases.get(alias).copied()),
        }
    }
}
