//! Figures beside the story: how long a pod takes by itself, and how fast traffic moves by Laurel and by
//! hand.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use laurel::{
    api::{ModelAlias, condition::ConditionType},
    render::labels,
};
use serde_json::{Value, json};

use crate::{
    harness::{Harness, NAME, NAMESPACE, PATIENCE, milliseconds, seconds},
    support::{
        alias::{Change, holds},
        cluster::{OPERATOR_NAMESPACE, OPERATOR_PODS},
        load::{Load, Plan, Report, Request, quantile},
        service::Way,
        watch::Watch,
    },
};

/// How often traffic is moved each way.
const MOVES: usize = 6;

/// Pings per second over each kind of connection: an answer every 5 ms tells when the last old one came.
const PER_SECOND: u32 = 100;

/// Says how long a version's pod takes from its creation until it is ready.
pub(crate) fn pod_starts(harness: &Harness) {
    let times = ["1", "2", "3"].iter().flat_map(|version| harness.pods.start_times(version));
    let times: Vec<String> = times.map(seconds).collect();
    println!("  A pod's own start, from its creation until it is ready: {}", times.join(", "));
}

/// Moves traffic between two warm versions, by Laurel and then by hand; how many requests were lost
/// meanwhile.
pub(crate) async fn moves(harness: &Harness, way: &Way, one: &str, other: &str) -> Result<usize> {
    let plan = Plan::both(PER_SECOND, Duration::from_mins(5));
    let load = Load::start(&way.target, &Request::get("/ping"), plan);
    let by_laurel = back_and_forth(one, other, async |from, to| {
        let change = harness.champion.patch_spec(json!({ "version": to })).await?;
        harness.champion.ready(change, PATIENCE).await?;
        harness.traffic_moved(&load, change, from, to).await
    });
    println!("  Accepted until the last old answer, by Laurel: {}", spread(&by_laurel.await?));

    suspend(harness, true).await?;
    let by_hand = back_and_forth(one, other, async |from, to| {
        let change = select_by_hand(harness, to).await?;
        harness.traffic_moved(&load, change, from, to).await
    });
    println!(
        "  Accepted until the last old answer, the Service patched by hand: {}",
        spread(&by_hand.await?)
    );
    suspend(harness, false).await?;

    let report: Report = load.stop().await;
    println!("  Meanwhile: {report}");
    Ok(report.lost())
}

/// Moves from `other` to `one` and back, [`MOVES`] times in all.
async fn back_and_forth(
    one: &str,
    other: &str,
    mut move_traffic: impl AsyncFnMut(&str, &str) -> Result<Duration>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for turn in 0..MOVES {
        let (from, to) = if turn % 2 == 0 { (other, one) } else { (one, other) };
        times.push(move_traffic(from, to).await?);
    }
    Ok(times)
}

async fn suspend(harness: &Harness, suspend: bool) -> Result<()> {
    let change = harness.champion.patch_spec(json!({ "suspend": suspend })).await?;
    if suspend {
        let is_suspended = |it: &ModelAlias| holds(it, ConditionType::Suspended);
        harness.champion.until_since(change.accepted, "Suspended", PATIENCE, is_suspended).await?;
    } else {
        harness.champion.ready(change, PATIENCE).await?;
    }
    Ok(())
}

/// What a person would do without Laurel: point the Service at the pods of the other version.
async fn select_by_hand(harness: &Harness, version: &str) -> Result<Change> {
    let services: Api<Service> = Api::namespaced(harness.cluster.client.clone(), NAMESPACE);
    let watch = Watch::of(services.clone(), NAME);
    watch.until("the Service", Duration::from_secs(10), |_| true).await?;
    let patch = Patch::Merge(json!({ "spec": { "selector": { labels::VERSION: version } } }));
    let patched = services.patch(NAME, &PatchParams::default(), &patch).await?;
    let resource_version = patched.metadata.resource_version;
    let accepted = watch
        .until("the patched Service", Duration::from_secs(10), |seen| {
            seen.object.metadata.resource_version == resource_version
        })
        .await?;
    Ok(Change { generation: 0, accepted: accepted.at })
}

fn spread(times: &[Duration]) -> String {
    let at = |share| quantile(times.to_vec(), share).map(milliseconds).unwrap_or_default();
    format!("median {}, from {} to {} ({} moves)", at(0.5), at(0.0), at(1.0), times.len())
}

/// Says how much memory the operator uses, as the node's kubelet sees it; nothing where that cannot be read.
pub(crate) async fn operator_memory(harness: &Harness) {
    if let Ok((used, aliases)) = memory(harness).await {
        println!(
            "  The operator's memory: {:.1} MiB, with {aliases} ModelAliases in the cluster",
            used / 1024.0 / 1024.0
        );
    }
}

async fn memory(harness: &Harness) -> Result<(f64, usize)> {
    let client = &harness.cluster.client;
    let selected = ListParams::default().labels(OPERATOR_PODS);
    let pods = Api::<Pod>::namespaced(client.clone(), OPERATOR_NAMESPACE).list(&selected).await?;
    let pod = pods.items.into_iter().next().context("no operator pod")?;
    let node = pod.spec.and_then(|spec| spec.node_name).context("not on a node")?;
    let summary = hyper::Request::get(format!("/api/v1/nodes/{node}/proxy/stats/summary")).body(Vec::new())?;
    let summary: Value = client.request(summary).await?;
    let used = summary["pods"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|each| each["podRef"]["name"].as_str() == pod.metadata.name.as_deref())
        .and_then(|each| each["memory"]["workingSetBytes"].as_f64())
        .context("the kubelet does not know")?;
    let aliases = Api::<ModelAlias>::all(client.clone()).list_metadata(&ListParams::default()).await?;
    ensure!(used > 0.0, "the kubelet has not measured yet");
    Ok((used, aliases.items.len()))
}
