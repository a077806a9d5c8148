//! Pods: which ones existed, and how long they took to start.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, runtime::watcher};
use laurel::render::labels::{MODEL_ALIAS, VERSION};
use tokio::time::Instant;

use super::{
    cluster::Cluster,
    watch::{Seen, Watch},
};

/// Watches the pods of one ModelAlias from now on.
pub(crate) struct Pods(Watch<Pod>);

/// Counts of pods at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// All pods that take room, including terminating ones.
    pub(crate) existing: usize,
    /// Those that are not terminating.
    pub(crate) wanted: usize,
    /// Those that are ready and not terminating.
    pub(crate) ready: usize,
}

impl Pods {
    pub(crate) fn watch(cluster: &Cluster, namespace: &str, model_alias: &str) -> Self {
        let selected = watcher::Config::default().labels(&format!("{MODEL_ALIAS}={model_alias}"));
        Self(Watch::start(Api::namespaced(cluster.client.clone(), namespace), selected))
    }

    /// Waits for a pod that did not exist before a given time; `what` describes it.
    pub(crate) async fn until_since(&self, moment: Instant, what: &str, deadline: Duration) -> Result<()> {
        self.0
            .until(what, deadline, |seen| seen.at >= moment && !self.known_before(moment, seen))
            .await
            .map(drop)
    }

    fn known_before(&self, moment: Instant, pod: &Seen<Pod>) -> bool {
        let before = |seen: &Seen<Pod>| seen.at < moment && seen.object.uid() == pod.object.uid();
        self.0.seen().iter().any(before)
    }

    /// Returns the names of the pods first seen since a given time.
    pub(crate) fn started_since(&self, moment: Instant) -> Vec<String> {
        let started = |(name, seen): (String, Vec<Seen<Pod>>)| (seen[0].at >= moment).then_some(name);
        self.by_name().into_iter().filter_map(started).collect()
    }

    /// Returns the time from first seen to first ready, for each pod of a version.
    pub(crate) fn start_times(&self, version: &str) -> Vec<Duration> {
        let histories =
            self.by_name().into_values().filter(|seen| version_of(&seen[0].object) == Some(version));
        let ready = |seen: Vec<Seen<Pod>>| {
            let ready = seen.iter().find(|seen| is_ready(&seen.object))?;
            Some(ready.at - seen[0].at)
        };
        histories.filter_map(ready).collect()
    }

    /// Returns the counts after each change since a given time.
    pub(crate) fn counts_since(&self, moment: Instant) -> Vec<Count> {
        let mut present = BTreeMap::new();
        let mut counts = Vec::new();
        for Seen { at, object, gone } in self.0.seen() {
            if gone {
                present.remove(&object.name_any());
            } else {
                present.insert(object.name_any(), object);
            }
            if at >= moment {
                counts.push(count(present.values()));
            }
        }
        counts
    }

    fn by_name(&self) -> BTreeMap<String, Vec<Seen<Pod>>> {
        let mut by_name: BTreeMap<String, Vec<Seen<Pod>>> = BTreeMap::new();
        for seen in self.0.seen() {
            by_name.entry(seen.object.name_any()).or_default().push(seen);
        }
        by_name
    }
}

/// Returns when the pods of a version logged requests for `target`: model servers log each one.
pub(crate) async fn logged(
    cluster: &Cluster,
    (namespace, model_alias, version): (&str, &str, &str),
    target: &str,
) -> Result<Vec<Timestamp>> {
    let selected = format!("{MODEL_ALIAS}={model_alias},{VERSION}={version}");
    let logs = ["logs", "-n", namespace, "-l", &selected, "--tail=-1", "--timestamps"];
    let log = cluster.run_kubectl(&logs, None).await?;
    let target = format!(" {target} ");
    let lines = log.lines().filter(|line| line.contains(&target));
    lines.filter_map(|line| line.split(' ').next()).map(|time| Ok(time.parse()?)).collect()
}

/// Pods whose containers have all exited take no room; their objects are deleted a moment later.
fn holds_room(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn count<'a>(pods: impl Iterator<Item = &'a Pod>) -> Count {
    pods.filter(|pod| holds_room(pod)).fold(Count::default(), |count, pod| {
        let wanted = pod.metadata.deletion_timestamp.is_none();
        Count {
            existing: count.existing + 1,
            wanted: count.wanted + usize::from(wanted),
            ready: count.ready + usize::from(wanted && is_ready(pod)),
        }
    })
}

/// The version that a pod serves.
pub(crate) fn version_of(pod: &Pod) -> Option<&str> {
    pod.labels().get(VERSION).map(String::as_str)
}

/// Whether a pod takes requests.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|each| each.type_ == "Ready" && each.status == "True"))
}
