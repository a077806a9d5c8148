//! Failing serving pods: Laurel reports them, traffic goes to the others, and everything recovers.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use laurel::{
    api::{
        ModelAlias,
        condition::{ConditionType, Reason},
    },
    render::labels::VERSION,
};
use serde_json::{Value, json};
use tokio::time::{Instant, interval, timeout};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    support::alias,
};

/// Returns the pods of a version that are not terminating.
pub(crate) async fn pods_of(fixture: &Fixture, version: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(fixture.cluster.client.clone(), &fixture.namespace);
    let selected = ListParams::default().labels(&format!("{VERSION}={version}"));
    let pods = pods.list(&selected).await?.items;
    Ok(pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}

/// The identities of those pods.
pub(crate) async fn identities_of(fixture: &Fixture, version: &str) -> Result<BTreeSet<String>> {
    Ok(pods_of(fixture, version).await?.iter().filter_map(ResourceExt::uid).collect())
}

/// Returns how many times containers of a pod were restarted.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().map(|container| container.restart_count).sum()
}

/// Version 1 with two pods of this template.
fn two_pods(template: &Value) -> Value {
    json!({ "version": "1", "serving": { "replicas": 2, "template": template } })
}

fn ready_replicas(malias: &ModelAlias) -> Option<u32> {
    alias::status(malias).ready_replicas
}

#[test]
fn promises_1_and_2_an_unready_pod_gets_no_requests_is_reported_and_recovers() {
    run("unready", 2, async |fixture| {
        fixture.good_versions(1).await?;
        // After its start, a file decides whether it is ready; the server keeps running.
        let exec = json!({ "command": ["sh", "-c", "test ! -e /tmp/unready"] });
        let probe = json!({ "httpGet": null, "exec": exec, "periodSeconds": 1, "failureThreshold": 1 });
        let template = json!({ "spec": { "containers": [{ "name": "model", "readinessProbe": probe }] } });
        let change = fixture.get(two_pods(&template)).await?;
        let clients = fixture.clients().await?;
        let pod = pods_of(fixture, "1").await?.first().context("no pod")?.name_any();

        let began = Instant::now();
        fixture.kubectl(&["exec", &pod, "--", "touch", "/tmp/unready"], None).await?;
        let reported = |malias: &ModelAlias| {
            ready_replicas(malias) == Some(1)
                && alias::has(malias, Reason::WaitingForPods)
                && alias::holds(malias, ConditionType::Serving)
        };
        let reported =
            fixture.champion.until_since(began, "one of two pods is reported", PATIENCE, reported).await?;
        println!("  one pod unready: reported after {:?}", reported.at - began);
        let message = alias::message(&reported.object);
        ensure!(message.contains("1 of 2"), "{message:?} does not say how many pods are ready");
        gets_nothing(fixture, &pod).await?;

        let began = Instant::now();
        fixture.kubectl(&["exec", &pod, "--", "rm", "/tmp/unready"], None).await?;
        let well = |malias: &ModelAlias| {
            alias::is_ready(malias, change.generation) && ready_replicas(malias) == Some(2)
        };
        fixture.champion.until_since(began, "two pods are ready again", PATIENCE, well).await?;
        clients.stay_on(began, "1").await?;
        clients.leave().await.map(drop)
    });
}

/// Waits until a pod's log shows no more predictions, while the clients keep sending.
async fn gets_nothing(fixture: &Fixture, pod: &str) -> Result<()> {
    let mut looks = interval(Duration::from_secs(1));
    let nothing = async {
        loop {
            let since = Timestamp::now();
            // Long enough for forty requests, half of which would arrive here; time is the subject.
            looks.tick().await;
            looks.tick().await;
            let log = ["logs", pod, &format!("--since-time={since}")];
            if !fixture.kubectl(&log, None).await?.contains("/invocations") {
                return Ok(());
            }
        }
    };
    timeout(PATIENCE, nothing).await.with_context(|| format!("{pod} is unready and still gets requests"))?
}

/// Requests in a killed process are lost, and so are those sent there before its endpoint is gone; that is
/// unavoidable without retries. What must hold: nothing is lost once it is reported, the other pod answers
/// all the time, and the pod recovers by itself.
#[test]
fn a_serving_process_killed_under_load_is_reported_and_recovers_while_the_other_pod_answers() {
    run("process", 2, async |fixture| {
        fixture.good_versions(1).await?;
        // The first process of a container cannot be killed from inside; with a shared PID namespace it is
        // not the first.
        let change = fixture.get(two_pods(&json!({ "spec": { "shareProcessNamespace": true } }))).await?;
        let clients = fixture.clients().await?;
        let pod = pods_of(fixture, "1").await?.first().context("no pod")?.name_any();

        let killed = Instant::now();
        let kill = "for p in /proc/[0-9]*; do case \"$(cat $p/comm)\" in python*) kill -KILL ${p#/proc/};; \
             esac; done; true";
        fixture.kubectl(&["exec", &pod, "--", "sh", "-c", kill], None).await?;
        let one = |malias: &ModelAlias| ready_replicas(malias) == Some(1);
        let reported =
            fixture.champion.until_since(killed, "one of two pods is reported", PATIENCE, one).await?;
        let well = |malias: &ModelAlias| {
            alias::is_ready(malias, change.generation) && ready_replicas(malias) == Some(2)
        };
        let well =
            fixture.champion.until_since(reported.at, "two pods are ready again", PATIENCE, well).await?;
        clients.stay_on(well.at, "1").await?;

        let restarted = pods_of(fixture, "1").await?;
        let restarted =
            restarted.iter().find(|each| each.name_any() == pod).context("the pod was replaced")?;
        ensure!(restarts(restarted) == 1, "{} restarts", restarts(restarted));
        for seen in fixture.champion.seen().iter().filter(|seen| seen.at >= killed) {
            ensure!(alias::holds(&seen.object, ConditionType::Serving), "Serving was False");
        }

        let meanwhile = clients.since(killed).between(killed, well.at);
        println!(
            "  reported {:?} after the kill, recovered after {:?}",
            reported.at - killed,
            well.at - killed
        );
        println!("  {meanwhile}");
        ensure!(meanwhile.sent() > 2 * meanwhile.lost(), "the other pod does not answer: {meanwhile}");
        let report = clients.end().await;
        ensure!(
            report.lost() == meanwhile.lost(),
            "requests were lost before or after: {report}, in between {meanwhile}"
        );
        Ok(())
    });
}
