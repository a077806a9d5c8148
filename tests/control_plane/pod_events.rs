//! What only Events report about pods that are not ready.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    ResourceExt,
    api::{ListParams, PostParams},
};
use laurel::api::condition::{ConditionType, Reason};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    support::alias::{holds, message},
};

/// The serving version gets a volume from a Secret that does not exist. KWOK knows no such fate, so the new
/// pod stays on its node without a container, as it does while the kubelet cannot mount a volume.
const BROKEN: &str = "
version: '1'
rollout: {progressDeadline: 5m}
serving:
  template:
    metadata: {annotations: {kwok.laurel.test/fate: waits-for-volume}}
    spec: {volumes: [{name: creds, secret: {secretName: s3}}]}
";

#[test]
fn promise_10_a_secret_that_a_volume_lacks_is_named_within_seconds() {
    run("missing-secret", async |fixture| {
        fixture.registered(1).await?;
        fixture.get("version: '1'").await?;
        let change = fixture.desired(BROKEN).await?;
        let pod = waiting_pod(fixture).await?;
        let new = "version 1 gets new settings: 0 of 2 new pods are ready";
        let waits = fixture.champion.reason(change, Reason::WaitingForPods, PATIENCE).await?;
        ensure!(message(&waits.object).contains(new), "{}", message(&waits.object));

        let began = Instant::now();
        fixture.api::<Event>().create(&PostParams::default(), &failed_mount(&pod)?).await?;
        let seen = fixture.champion.reason(change, Reason::VolumeMountFailed, PATIENCE).await?;
        println!("named after {:.1} s", began.elapsed().as_secs_f64());
        ensure!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
        let reported = message(&seen.object);
        let create = format!("create the Secret \"s3\" in the namespace {:?}", fixture.namespace);
        ensure!(reported.contains("secret \"s3\" not found") && reported.contains(&create), "{reported}");
        ensure!(holds(&seen.object, ConditionType::Serving), "the old pods serve");
        ensure!(holds(&seen.object, ConditionType::Reconciling), "nothing is given up before its time");
        fixture.get("version: '1'").await.map(drop)
    });
}

/// A pod that is on a node and has no container.
async fn waiting_pod(fixture: &Fixture) -> Result<Pod> {
    let began = Instant::now();
    loop {
        let pods = fixture.api::<Pod>().list(&ListParams::default()).await?;
        let is_waiting = |pod: &Pod| {
            pod.annotations().get("kwok.laurel.test/fate").is_some_and(|fate| fate == "waits-for-volume")
                && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
        };
        if let Some(pod) = pods.items.into_iter().find(is_waiting) {
            return Ok(pod);
        }
        ensure!(began.elapsed() < PATIENCE, "no pod with the new settings is on a node");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The Event as the kubelet writes it.
fn failed_mount(pod: &Pod) -> Result<Event> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (namespace, name) = (pod.namespace().context("a pod without namespace")?, pod.name_any());
    Ok(serde_json::from_value(json!({
        "metadata": { "name": format!("{name}.1"), "namespace": namespace },
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": pod.uid(),
        },
        "type": "Warning", "reason": "FailedMount",
        "message": "MountVolume.SetUp failed for volume \"creds\" : secret \"s3\" not found",
        "source": { "component": "kubelet", "host": "fake-0" },
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    }))?)
}
