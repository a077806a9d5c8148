//! Reads the pods of all versions that are compared, at one time.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{
    Request,
    exposition::{self, Sample},
};
use crate::{
    analysis::ledger::{Arm, Gap, PodUid, Round, Scrape},
    cluster::cache::MeteredPod,
    state::PodAccess,
};

/// Pods that answer later than others are not read at the same time.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What a pod may answer with. A hundred series are 10 kB.
const ANSWER_MAX: usize = 1 << 20;
/// How many pods are read at a time: of one ModelAlias, and of all.
const AT_ONCE: usize = 64;
static ALL: Semaphore = Semaphore::const_new(4 * AT_ONCE);

/// Reads all pods that answer requests.
pub(super) async fn round(access: &Arc<PodAccess>, request: &Request) -> Round {
    let versions = request.watch.against.into_iter().chain([request.watch.version]);
    let pods = versions.flat_map(|version| {
        let arm = Arm(version.to_string());
        access.cluster.metered_pods(&request.alias, version).into_iter().map(move |pod| (arm.clone(), pod))
    });
    let scrapes = stream::iter(pods.collect::<Vec<_>>()).map(|(arm, pod)| scrape(access, request, arm, pod));
    let scrapes = scrapes.buffer_unordered(AT_ONCE).collect().await;
    Round { at: Timestamp::now(), weights: request.watch.weights.clone(), scrapes }
}

async fn scrape(access: &PodAccess, request: &Request, arm: Arm, pod: MeteredPod) -> Scrape {
    let sample = match answer(access, request, &pod.ip).await {
        Ok(text) => exposition::read(&text, &request.source.names, &request.watch.rule.checks),
        Err(gap) => Err(gap),
    };
    if let Err(gap) = &sample {
        let (namespace, alias) = &request.alias;
        tracing::debug!(namespace, alias, version = arm.0, pod = pod.ip, %gap, "what a pod counted is not known");
    }
    let started_at = sample.as_ref().ok().and_then(|sample| sample.started_at).or(pod.created);
    Scrape {
        arm,
        pod: PodUid(pod.uid),
        started_at: started_at.unwrap_or(Timestamp::UNIX_EPOCH),
        at: Timestamp::now(),
        counters: sample.map(|Sample { counters, .. }| counters),
    }
}

async fn answer(access: &PodAccess, request: &Request, ip: &str) -> Result<String, Gap> {
    let super::Source { port, path, .. } = &request.source;
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
