//! What the promotion rules judge versions by: the version itself, as it is now, and the metrics of its run.
//!
//! Setting a tag or a description, or logging a metric, moves none of the model's timestamps. So what is judged is read again
//! by every poll, for as long as somebody waits for it, and by nobody else.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};

use super::{PolledRegistry, polled_registry::PATIENCE};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        metric::Metric,
        names::{ModelName, Version},
    },
    registry::{Registry, VersionFacts},
};

/// How many reads for the rules run at the same time.
const AT_ONCE: usize = 8;

/// What a version is judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionEvidence {
    /// The version, as it was read last.
    pub facts: VersionFacts,
    /// The latest values of its run's metrics, or why they could not be read.
    pub metrics: Result<BTreeMap<String, Metric>, ReasonMessage>,
}

impl PolledRegistry {
    /// What a version is judged by, from memory where it was read since the last poll but one; `None` when it does not exist.
    ///
    /// # Errors
    /// Why it cannot be known now.
    pub async fn evidence(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionEvidence>, ReasonMessage> {
        let key = (name.clone(), version);
        if let Some(known) = self.memory().evidence.get(&key) {
            return Ok(known.clone());
        }
        let read = self.read_evidence(name, version).await?;
        self.memory().evidence.insert(key, read.clone());
        Ok(read)
    }

    /// Reads what these versions are judged by. One that could not be read is left out: nothing is known of it then.
    pub(super) async fn read_all_evidence(
        &self,
        judged: impl IntoIterator<Item = (ModelName, Version)>,
    ) -> BTreeMap<(ModelName, Version), Option<VersionEvidence>> {
        let read = stream::iter(judged).map(async |(name, version)| {
            let read = self.read_evidence(&name, version).await;
            read.ok().map(|evidence| ((name, version), evidence))
        });
        read.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
    }

    async fn read_evidence(
        &self,
        name: &ModelName,
        version: Version,
    ) -> Result<Option<VersionEvidence>, ReasonMessage> {
        let client = self.client()?;
        let asked = async {
            let facts =
                client.version(name, version).await.map_err(|error| self.explain(Some(name), &error))?;
            let Some(facts) = facts else { return Ok(None) };
            let metrics = self.read_metrics(client.as_ref(), name, &facts).await;
            Ok(Some(VersionEvidence { facts, metrics }))
        };
        self.in_time(asked, &format!("what version {version} is judged by")).await
    }

    /// The metrics of a version's run. A version without a run, or whose run was purged, has none.
    pub(super) async fn read_metrics(
        &self,
        client: &dyn Registry,
        name: &ModelName,
        facts: &VersionFacts,
    ) -> Result<BTreeMap<String, Metric>, ReasonMessage> {
        if !client.capabilities().metrics {
            let message =
                "this registry has no metrics that could be read, which a rule in spec.promotion needs";
            return Err(ReasonMessage::new(Reason::RegistryUnsupported, message));
        }
        let Some(run_id) = &facts.run_id else { return Ok(BTreeMap::new()) };
        let metrics = client.metrics(run_id).await.map_err(|error| {
            let ReasonMessage { reason, message } = self.explain(Some(name), &error);
            ReasonMessage::new(reason, format!("the run {run_id} of version {}: {message}", facts.version))
        })?;
        Ok(metrics.unwrap_or_default())
    }

    /// The answer, if it comes while a decision can wait for it.
    pub(super) async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, ReasonMessage>>,
        what: &str,
    ) -> Result<T, ReasonMessage> {
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        answer.unwrap_or_else(|_| {
            let message = format!("{} did not say within {}s {what}", self.settings.url, PATIENCE.as_secs());
            Err(ReasonMessage::new(Reason::RegistryUnreachable, message))
        })
    }
}
