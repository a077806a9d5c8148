//! The evidence for the promotion rules: the version itself, as it is now, and the metrics of its run.
//!
//! Setting a tag or a description, or logging a metric, changes none of the model's timestamps. So evidence
//! is read again by every poll, for as long as a rule needs it.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};

use super::{
    PolledRegistry,
    memory::{Sequence, Sequenced},
    poll::Extent,
};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{ModelName, Version},
    },
    registry::{
        Registry, RegistryError, VersionFacts,
        limiter::Priority,
        metrics::{VersionMetrics, version_metrics},
    },
};

/// How many reads run concurrently.
const AT_ONCE: usize = 8;

/// The evidence about a version.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionEvidence {
    /// The version, as last read.
    pub facts: VersionFacts,
    /// Its metrics, or why they could not be read.
    pub metrics: Result<VersionMetrics, ReasonMessage>,
}

impl PolledRegistry {
    /// Returns the evidence about a version as remembered: `None` if it was not read yet, and `Some(None)` if
    /// the version does not exist.
    #[must_use]
    pub fn remembered_evidence(&self, name: &ModelName, version: Version) -> Option<Option<VersionEvidence>> {
        self.memory().evidence.get(&(name.clone(), version)).map(|(_, evidence)| evidence.clone())
    }

    /// Reads the evidence about a version, and remembers it while polls find that a rule needs it; `None` if
    /// the version does not exist.
    ///
    /// # Errors
    /// Why it cannot be known now.
    pub async fn evidence(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionEvidence>, ReasonMessage> {
        let read = self.read_evidence(name, version, Priority::Decision).await?;
        Ok(self.memory().remember_version_evidence((name.clone(), version), read).1)
    }

    /// Reads the evidence about these versions for a poll that began with this request, and reports the
    /// models whose evidence changed. What could not be read is left out, and so unknown.
    pub(super) async fn read_all_evidence(
        &self,
        judged: BTreeSet<(ModelName, Version)>,
        began: Sequence,
        extent: Extent,
        report: &mut impl FnMut(BTreeSet<ModelName>),
    ) {
        let reads = stream::iter(judged).map(async |(name, version)| {
            let read = self.read_evidence(&name, version, Priority::Poll).await;
            read.ok().map(|evidence| ((name, version), evidence))
        });
        let mut reads = reads.buffer_unordered(AT_ONCE).filter_map(std::future::ready).boxed();
        let mut read = BTreeSet::new();
        while let Some((key, evidence)) = reads.next().await {
            read.insert(key.clone());
            let name = key.0.clone();
            if self.memory().remember_polled_evidence(key, evidence) {
                report(BTreeSet::from([name]));
            }
        }
        if extent == Extent::Everything {
            self.memory().retain_evidence(began, &read);
        }
    }

    async fn read_evidence(
        &self,
        name: &ModelName,
        version: Version,
        priority: Priority,
    ) -> Result<Sequenced<Option<VersionEvidence>>, ReasonMessage> {
        let client = self.client(priority)?;
        let sequence = self.memory().begin();
        let facts = client.version(name, version).await.map_err(|error| self.explain(Some(name), &error))?;
        let Some(facts) = facts else { return Ok((sequence, None)) };
        let metrics = self.read_metrics(client.as_ref(), name, &facts).await;
        Ok((sequence, Some(VersionEvidence { facts, metrics })))
    }

    /// Reads the metrics of a version.
    pub(super) async fn read_metrics(
        &self,
        client: &dyn Registry,
        name: &ModelName,
        facts: &VersionFacts,
    ) -> Result<VersionMetrics, ReasonMessage> {
        if !client.capabilities().metrics {
            let message = "a rule in spec.promotion needs metrics, but this registry has none";
            return Err(ReasonMessage::new(Reason::RegistryUnsupported, message));
        }
        let explain = |what: &str, error: &RegistryError| {
            let ReasonMessage { reason, message } = match error {
                RegistryError::Forbidden { detail } => self.forbidden_metrics(detail),
                error => self.explain(Some(name), error),
            };
            ReasonMessage::new(reason, format!("{what} of version {}: {message}", facts.version))
        };
        version_metrics(client, facts, explain).await
    }

    /// MLflow grants the permission for runs and logged models by experiment, not by model.
    fn forbidden_metrics(&self, detail: &str) -> ReasonMessage {
        let message = format!(
            "{}: permission denied for these credentials (HTTP 403): {detail}; they may read the model but not its \
             metrics: grant this login permission to read the experiment",
            self.settings.url
        );
        ReasonMessage::new(Reason::RegistryForbidden, message)
    }
}
