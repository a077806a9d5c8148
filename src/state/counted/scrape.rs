//! Reads the pods of all versions that are compared, at one time.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{
    ArmPods, Wanted,
    exposition::{self, Sample},
};
use crate::{
    analysis::ledger::{Gap, PodUid, Round, Scrape},
    cluster::cache::MeteredPod,
    state::PodAccess,
};

/// Pods that answer later than others are not read at the same time.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What a pod may answer with. A hundred series are 10 kB.
const ANSWER_MAX: usize = 1 << 20;
/// How many pods are read at a time: for one comparison, and for all.
const AT_ONCE: usize = 64;
static ALL: Semaphore = Semaphore::const_new(4 * AT_ONCE);

/// Reads all pods that answer requests. `weights` are the planned shares of the arms.
pub(in crate::state) async fn round(
    access: &Arc<PodAccess>,
    arms: &[ArmPods],
    wanted: &[Wanted],
    weights: Vec<f64>,
) -> Round {
    let scrapes = arms.iter().flat_map(|arm| {
        let pods = access.cluster.metered_pods(&arm.alias, arm.version).into_iter();
        pods.map(move |pod| scrape(access, arm, wanted, pod))
    });
    let scrapes: Vec<_> = scrapes.collect();
    let scrapes = stream::iter(scrapes).buffer_unordered(AT_ONCE).collect().await;
    Round { at: Timestamp::now(), weights, scrapes }
}

async fn scrape(access: &PodAccess, arm: &ArmPods, wanted: &[Wanted], pod: MeteredPod) -> Scrape {
    let sample = match answer(access, arm, &pod.ip).await {
        Ok(text) => exposition::read(&text, &arm.source.names, wanted),
        Err(gap) => Err(gap),
    };
    if let Err(gap) = &sample {
        let (namespace, alias) = &arm.alias;
        tracing::debug!(namespace, alias, version = %arm.version, pod = pod.ip, %gap, "what a pod counted is not known");
    }
    let started_at = sample.as_ref().ok().and_then(|sample| sample.started_at).or(pod.created);
    Scrape {
        arm: arm.arm.clone(),
        pod: PodUid(pod.uid),
        started_at: started_at.unwrap_or(Timestamp::UNIX_EPOCH),
        at: Timestamp::now(),
        counters: sample.map(|Sample { counters, .. }| counters),
    }
}

async fn answer(access: &PodAccess, arm: &ArmPods, ip: &str) -> Result<String, Gap> {
    let super::Source { port, path, .. } = &arm.source;
    let _permit = ALL.acquire().await;
    let sent = access.http.get(PodAccess::url(ip, *port, path)).timeout(TIMEOUT).send().await;
    let mut response = sent.map_err(|_| Gap::Unreachable)?;
    if !response.status().is_success() {
        return Err(Gap::Unreachable);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| Gap::Unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_MAX {
            return Err(Gap::Partial);
        }
    }
    String::from_utf8(body).map_err(|_| Gap::NotACount)
}
