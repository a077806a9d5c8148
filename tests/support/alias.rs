//! A ModelAlias: change it, wait for states, and look up when something happened.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use laurel::api::{
    ModelAlias, ModelAliasStatus,
    condition::{ConditionType, Reason},
};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    cluster::Cluster,
    watch::{Seen, Watch},
};

/// A ModelAlias under observation.
pub(crate) struct Alias {
    pub(crate) namespace: String,
    pub(crate) name: String,
    cluster: Cluster,
    api: Api<ModelAlias>,
    watch: Watch<ModelAlias>,
    observed_from: Instant,
}

/// A change of a ModelAlias's spec that the API server has accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// The generation of the change.
    pub(crate) generation: i64,
    /// When this process first saw it, on a watch like the operator's.
    pub(crate) accepted: Instant,
}

impl Alias {
    pub(crate) fn observe(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        let api: Api<ModelAlias> = Api::namespaced(cluster.client.clone(), namespace);
        let watch = Watch::of(api.clone(), name);
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            cluster: cluster.clone(),
            api,
            watch,
            observed_from: Instant::now(),
        }
    }

    /// `kubectl apply` of a manifest.
    pub(crate) async fn apply(&self, manifest: &str) -> Result<Change> {
        self.cluster.run_kubectl(&["apply", "-n", &self.namespace, "-f", "-"], Some(manifest)).await?;
        self.accepted().await
    }

    /// A merge patch of the spec.
    pub(crate) async fn patch_spec(&self, spec: Value) -> Result<Change> {
        let patch = Patch::Merge(serde_json::json!({ "spec": spec }));
        self.api.patch(&self.name, &PatchParams::default(), &patch).await?;
        self.accepted().await
    }

    /// Returns the current spec as a change, with the time it was first seen.
    pub(crate) async fn accepted(&self) -> Result<Change> {
        let generation = self.api.get(&self.name).await?.metadata.generation.unwrap_or_default();
        let what = format!("generation {generation} of {} on the watch", self.name);
        let is_it = |seen: &Seen<ModelAlias>| seen.object.metadata.generation >= Some(generation);
        let seen = self.watch.until(&what, Duration::from_mins(1), is_it).await?;
        Ok(Change { generation, accepted: seen.at })
    }

    /// Waits until the condition `Ready` is True for a change.
    pub(crate) async fn ready(&self, change: Change, deadline: Duration) -> Result<Seen<ModelAlias>> {
        self.until("Ready", deadline, |malias| is_ready(malias, change.generation)).await
    }

    /// Waits until the condition `Ready` has a reason for a change.
    pub(crate) async fn reason(
        &self,
        change: Change,
        reason: Reason,
        deadline: Duration,
    ) -> Result<Seen<ModelAlias>> {
        self.until(reason.into(), deadline, |malias| {
            speaks_of(malias, change.generation) && has(malias, reason)
        })
        .await
    }

    /// Waits until a state matches `wanted`, even if it has passed since.
    pub(crate) async fn until(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&ModelAlias) -> bool,
    ) -> Result<Seen<ModelAlias>> {
        self.until_since(self.observed_from, what, deadline, wanted).await
    }

    /// The same, for states seen since a given time.
    pub(crate) async fn until_since(
        &self,
        moment: Instant,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&ModelAlias) -> bool,
    ) -> Result<Seen<ModelAlias>> {
        let wanted = |seen: &Seen<ModelAlias>| seen.at >= moment && !seen.gone && wanted(&seen.object);
        let found = self.watch.until(what, deadline, wanted).await;
        found.with_context(|| format!("{}/{}: {}", self.namespace, self.name, self.summary()))
    }

    /// Returns the last state seen.
    pub(crate) fn last(&self) -> Option<ModelAlias> {
        self.watch.last().filter(|seen| !seen.gone).map(|seen| seen.object)
    }

    /// Returns every state seen so far, oldest first.
    pub(crate) fn seen(&self) -> Vec<Seen<ModelAlias>> {
        self.watch.seen()
    }

    fn summary(&self) -> String {
        let Some(malias) = self.last() else { return "not there".to_owned() };
        let line =
            |each: &Condition| format!("{}={} {}: {}", each.type_, each.status, each.reason, each.message);
        let conditions: Vec<String> = status(&malias).conditions.iter().map(line).collect();
        format!("last seen with {}", conditions.join("; "))
    }
}

/// Returns the status; empty if there is none yet.
pub(crate) fn status(malias: &ModelAlias) -> ModelAliasStatus {
    malias.status.clone().unwrap_or_default()
}

/// Returns a condition, if present.
pub(crate) fn condition(malias: &ModelAlias, type_: ConditionType) -> Option<Condition> {
    let name: &str = type_.into();
    status(malias).conditions.into_iter().find(|condition| condition.type_ == name)
}

/// Returns the version that answers requests, according to the status.
pub(crate) fn version(malias: &ModelAlias) -> String {
    status(malias).version.map(|version| version.to_string()).unwrap_or_default()
}

/// Returns the share of a version of its own that the status names, in per cent.
pub(crate) fn share(malias: &ModelAlias, version: &str) -> Option<u32> {
    let shares = status(malias).traffic.into_iter().filter(|share| share.alias_ref.is_none());
    shares.filter(|share| share.version.to_string() == version).map(|share| share.weight).next()
}

/// Returns the share of a challenger that the status names, in per cent.
pub(crate) fn challenger_share(malias: &ModelAlias, name: &str) -> Option<u32> {
    let shares = status(malias).traffic.into_iter();
    shares.filter(|share| share.alias_ref.as_deref() == Some(name)).map(|share| share.weight).next()
}

/// Whether the status says that a version gets copies of all requests.
pub(crate) fn gets_copies(malias: &ModelAlias, version: &str) -> bool {
    let shares = status(malias).traffic;
    shares.iter().any(|share| share.version.to_string() == version && share.mirror == Some(100))
}

/// Whether the desired state of a generation is reached.
pub(crate) fn is_ready(malias: &ModelAlias, generation: i64) -> bool {
    speaks_of(malias, generation) && holds(malias, ConditionType::Ready)
}

/// Whether a condition is True.
pub(crate) fn holds(malias: &ModelAlias, type_: ConditionType) -> bool {
    condition(malias, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether the condition `Ready` has a reason.
pub(crate) fn has(malias: &ModelAlias, reason: Reason) -> bool {
    let reason: &str = reason.into();
    condition(malias, ConditionType::Ready).is_some_and(|ready| ready.reason == reason)
}

/// Returns the message of the condition `Ready`.
pub(crate) fn message(malias: &ModelAlias) -> String {
    condition(malias, ConditionType::Ready).map(|ready| ready.message).unwrap_or_default()
}

fn speaks_of(malias: &ModelAlias, generation: i64) -> bool {
    status(malias).observed_generation >= Some(generation)
}
