//! The pods that a ledger knows: what they counted, and what of it belongs to the open batch.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::sample::{Arm, Counters, PodUid, Scrape};

/// So many pods are remembered. An autoscaler that comes and goes for weeks does not fill the memory.
const MOST_PODS: usize = 2000;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pod {
    pub(super) arm: Arm,
    started_at: Timestamp,
    seen_at: Timestamp,
    latest: Counters,
    /// Counted since the open batch began.
    pub(super) open: Counters,
    /// It was not read when a batch was dropped, so its next difference reaches too far back.
    is_stale: bool,
}

/// Pods by UID.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pods {
    /// Of a pod that started later, everything counts from its first sample on; of an older one only what it
    /// counts afterwards.
    since: Timestamp,
    known: BTreeMap<PodUid, Pod>,
}

impl Pods {
    pub(super) fn new(since: Timestamp) -> Self {
        Self { since, known: BTreeMap::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pod> {
        self.known.values()
    }

    /// The arm that a pod was first seen with.
    pub(super) fn arm_of(&self, pod: &PodUid) -> Option<&Arm> {
        self.known.get(pod).map(|pod| &pod.arm)
    }

    /// Adds what a pod has counted since it was read last. Returns whether the open batch has to be dropped,
    /// because the pod's last reading is from before it.
    pub(super) fn read(&mut self, scrape: &Scrape, counters: &Counters) -> bool {
        let Some(pod) = self.known.get_mut(&scrape.pod) else {
            self.first(scrape, counters);
            return false;
        };
        let was_stale = std::mem::replace(&mut pod.is_stale, false);
        let has_restarted = scrape.started_at > pod.started_at;
        let difference = if has_restarted { None } else { counters.since(&pod.latest) };
        // After a restart the counters began at 0.
        pod.open.add(&difference.unwrap_or_else(|| counters.clone()));
        pod.started_at = pod.started_at.max(scrape.started_at);
        pod.seen_at = scrape.at;
        pod.latest = counters.clone();
        was_stale
    }

    fn first(&mut self, scrape: &Scrape, counters: &Counters) {
        let is_young = scrape.started_at > self.since;
        let pod = Pod {
            arm: scrape.arm.clone(),
            started_at: scrape.started_at,
            seen_at: scrape.at,
            latest: counters.clone(),
            open: if is_young { counters.clone() } else { Counters::default() },
            is_stale: false,
        };
        self.known.insert(scrape.pod.clone(), pod);
    }

    /// A batch was closed: nothing is open.
    pub(super) fn close(&mut self) {
        self.known.values_mut().for_each(|pod| pod.open = Counters::default());
        self.forget();
    }

    /// The open batch is dropped at a time when some pods were read. What the others have counted until they
    /// are read again belongs to no batch.
    pub(super) fn drop_open(&mut self, at: Timestamp, read: &BTreeSet<&PodUid>) {
        for (uid, pod) in &mut self.known {
            pod.is_stale |= !read.contains(uid);
        }
        self.since = self.since.max(at);
        self.close();
    }

    /// Forgets the pods that were not seen for longest. Should one return, only what it counts then counts.
    fn forget(&mut self) {
        while self.known.len() > MOST_PODS {
            let oldest = self.known.iter().min_by_key(|(_, pod)| pod.seen_at).map(|(uid, _)| uid.clone());
            let Some(gone) = oldest.and_then(|uid| self.known.remove(&uid)) else { return };
            self.since = self.since.max(gone.started_at);
        }
    }
}
