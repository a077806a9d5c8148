//! An independent invariants of promise 1: whenever a Service was written, a pod that it selects was ready.
//!
//! Compares revisions, not arrival times: every write to the cluster has a unique revision, and two watches
//! together show which pods were ready when the Service got its selector.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, Resource, ResourceExt, runtime::watcher};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::support::{
    cluster::Cluster,
    pods::is_ready,
    watch::{Seen, Watch},
};

/// Watches the Services and the pods of a namespace from its beginning.
pub(crate) struct Audit {
    pub(crate) services: Watch<Service>,
    pods: Watch<Pod>,
    by_hand: Mutex<BTreeSet<u64>>,
}

impl Audit {
    pub(crate) fn begin(cluster: &Cluster, namespace: &str) -> Self {
        Self {
            services: Watch::start(
                Api::namespaced(cluster.client.clone(), namespace),
                watcher::Config::default(),
            ),
            pods: Watch::start(
                Api::namespaced(cluster.client.clone(), namespace),
                watcher::Config::default(),
            ),
            by_hand: Mutex::default(),
        }
    }

    /// Leaves out a write that the test itself made.
    pub(crate) fn excuse(&self, written: &Service) {
        self.by_hand.lock().insert(revision(written));
    }

    /// Waits until a Service matches `wanted`, written after a given time.
    pub(crate) async fn service_since(
        &self,
        moment: Instant,
        what: &str,
        wanted: impl Fn(&Service) -> bool,
    ) -> Result<Seen<Service>> {
        let wanted = |seen: &Seen<Service>| seen.at >= moment && !seen.gone && wanted(&seen.object);
        self.services.until(what, Duration::from_secs(20), wanted).await
    }

    /// Returns how many times a Service was written; fails if one was pointed to where no pod was ready.
    pub(crate) async fn verdict(&self) -> Result<usize> {
        // One watch may lag behind the other.
        const LAG: Duration = Duration::from_secs(10);
        let began = Instant::now();
        loop {
            match self.look() {
                Err(_) if began.elapsed() < LAG => sleep(Duration::from_millis(100)).await,
                verdict => return verdict,
            }
        }
    }

    fn look(&self) -> Result<usize> {
        let by_hand = self.by_hand.lock().clone();
        let written: Vec<Service> =
            self.services.seen().into_iter().filter(|seen| !seen.gone).map(|seen| seen.object).collect();
        // The Service of a single version gets requests only once a route names it.
        let is_of_alias = |service: &Service| !service.labels().contains_key("laurel.dev/version");
        let written: Vec<Service> = written.into_iter().filter(is_of_alias).collect();
        let mut pods = self.pods.seen();
        pods.sort_by_key(|seen| revision(&seen.object));
        for service in &written {
            let (at, name) = (revision(service), service.name_any());
            if by_hand.contains(&at) {
                continue;
            }
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
            ensure!(!selector.is_empty(), "the Service {name} was written with an empty selector");
            let ready = ready_at(&pods, at);
            let selects =
                |pod: &Pod| selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
            ensure!(
                ready.iter().any(selects),
                "the Service {name} was written to {selector:?} at revision {at}, where no pod was ready; \
                 ready were {:?}",
                ready.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
            );
        }
        Ok(written.len())
    }
}

/// Returns the pods that were ready at a revision.
fn ready_at(pods: &[Seen<Pod>], at: u64) -> Vec<Pod> {
    let mut present: BTreeMap<String, Pod> = BTreeMap::new();
    for seen in pods.iter().take_while(|seen| revision(&seen.object) < at) {
        if seen.gone {
            present.remove(&seen.object.name_any());
        } else {
            present.insert(seen.object.name_any(), seen.object.clone());
        }
    }
    present.retain(|_, pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod));
    present.into_values().collect()
}

/// Returns the revision of a state.
pub(crate) fn revision<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}
