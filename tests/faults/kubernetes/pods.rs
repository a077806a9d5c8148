//! Pods of the version that serves become unready, crash, or are refused, at moments other than its start.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use laurel::{
    api::{
        ModelAlias,
        condition::{ConditionType, Reason},
        model_alias::{Cause, Outcome},
    },
    render::labels,
};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use super::{PATIENCE, calm, case, run_all};
use crate::{
    fixture::{Fixture, run},
    simulated::look::{no_more_pods, selected, until_sizes},
    support::{
        alias::{condition, has, holds, is_ready, message, status, version},
        pods::is_ready as pod_is_ready,
    },
};

/// Gives so many pods of a version another fate, and waits until it has come.
pub(crate) async fn fate(fixture: &Fixture, version: &str, fate: Option<&str>, count: usize) -> Result<()> {
    let pods = fixture.api::<Pod>();
    let of_it = ListParams::default().labels(&format!("{}={version}", labels::VERSION));
    let chosen = pods.list(&of_it).await?.items;
    ensure!(chosen.len() >= count, "version {version} has {} pods", chosen.len());
    for pod in &chosen[..count] {
        let reported = json!({ "metadata": { "annotations": { "kwok.laurel.test/fate": fate } } });
        pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(reported)).await?;
    }
    let began = Instant::now();
    loop {
        let now = pods.list(&of_it).await?.items;
        let come = |pod: &&Pod| pod_is_ready(pod) == fate.is_none();
        if now.iter().filter(come).count() >= count {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the pods of version {version} do not become {fate:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn one_unready_pod_of_two_is_reported_and_rejects_nothing() {
    run("p-one", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        let change = fixture.get("version: '2'").await?;
        fixture.until_named("champion", Some("2")).await?;
        for how in ["never-ready", "crash-loop"] {
            let began = Instant::now();
            fate(fixture, "2", Some(how), 1).await?;
            let reported = |it: &ModelAlias| {
                status(it).ready_replicas == Some(1)
                    && holds(it, ConditionType::Reconciling)
                    && holds(it, ConditionType::Serving)
            };
            let seen =
                fixture.champion.until_since(began, "one pod is ready", PATIENCE, reported).await?.object;
            let wanted = if how == "crash-loop" { Reason::ModelCrashed } else { Reason::WaitingForPods };
            ensure!(has(&seen, wanted), "{how} is told as {}", message(&seen));
            fate(fixture, "2", None, 1).await?;
            let again =
                |it: &ModelAlias| is_ready(it, change.generation) && status(it).ready_replicas == Some(2);
            fixture.champion.until_since(began, "Ready again", PATIENCE, again).await?;
        }
        let last = status(&fixture.champion.last().context("the ModelAlias is gone")?);
        ensure!(last.rejected.is_empty() && selected(fixture).await? == "2", "{last:?}");
        until_sizes(fixture, [("1", 2), ("2", 2)]).await?;
        fixture.until_quiet().await
    });
}

/// All pods of the version that serves become unready while the one before is warm: that one takes over.
async fn falls_back(fixture: &Fixture, how: &str) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.get("version: '2'").await?;
    fixture.until_named("champion", Some("2")).await?;
    let began = Instant::now();
    fate(fixture, "2", Some(how), 2).await?;
    let reported = |it: &ModelAlias| {
        version(it) == "1" && has(it, Reason::BecameUnready) && holds(it, ConditionType::Stalled)
    };
    let seen = fixture.champion.until_since(began, "version 1 takes over", PATIENCE, reported).await?;
    println!("  {how}: told {:?} after the first pod failed", seen.at - began);
    ensure!(message(&seen.object).contains("laurel.dev/retry"), "{}", message(&seen.object));
    ensure!(selected(fixture).await? == "1", "traffic did not go back");
    fixture.until_named("champion", Some("1")).await?;
    until_sizes(fixture, [("1", 2), ("2", 0)]).await?;
    let last = status(&fixture.champion.last().context("the ModelAlias is gone")?);
    ensure!(
        last.history[0].outcome == Outcome::RolledBack && last.history[0].cause == Cause::Failure,
        "{last:?}"
    );
    fixture.until_quiet().await?;
    // Somebody who knows that it was not the version's fault asks for it again.
    let asked = Instant::now();
    fixture.retry("again").await?;
    let serves = |it: &ModelAlias| version(it) == "2" && holds(it, ConditionType::Ready);
    fixture.champion.until_since(asked, "version 2 again", PATIENCE, serves).await?;
    fixture.until_named("champion", Some("2")).await
}

/// The same without a version that is warm: it stays, says so, and recovers by itself.
async fn stays(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(1).await?;
    fixture.get("version: '1'").await?;
    let change = fixture.get("{version: '1', rollout: {progressDeadline: 3s}}").await?;
    fixture.until_named("champion", Some("1")).await?;
    let began = Instant::now();
    fate(fixture, "1", Some("crash-loop"), 2).await?;
    let reported = |it: &ModelAlias| {
        condition(it, ConditionType::Serving)
            .is_some_and(|serving| serving.status == "False" && serving.reason == "BecameUnready")
    };
    fixture.champion.until_since(began, "it serves no more", PATIENCE, reported).await?;
    sleep(Duration::from_secs(6)).await; // Time itself is the subject: past the deadline.
    let late = fixture.champion.last().context("the ModelAlias is gone")?;
    ensure!(message(&late).contains("exit code 1"), "{}", message(&late));
    ensure!(status(&late).rejected.is_empty(), "the only version there is was given up");
    ensure!(selected(fixture).await? == "1", "traffic moved");
    until_sizes(fixture, [("1", 2)]).await?;
    calm(fixture, began, |_| true)?;
    let healed = Instant::now();
    fate(fixture, "1", None, 2).await?;
    let again = |it: &ModelAlias| is_ready(it, change.generation);
    fixture.champion.until_since(healed, "Ready again", PATIENCE, again).await?;
    fixture.until_quiet().await
}

/// A pod of the version that serves is deleted, and a quota refuses the one in its place.
async fn refused(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(1).await?;
    let change = fixture.get("version: '1'").await?;
    let quota = no_more_pods(fixture).await?;
    fixture.edit::<ResourceQuota>("full", json!({ "spec": { "hard": { "pods": "1" } } })).await?;
    let pods = fixture.api::<Pod>();
    let pod = pods.list_metadata(&ListParams::default()).await?.items.pop().context("no pod")?;
    let began = Instant::now();
    pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    let reported = |it: &ModelAlias| has(it, Reason::PodsRefused) && holds(it, ConditionType::Serving);
    let seen = fixture.champion.until_since(began, "the quota is told", PATIENCE, reported).await?.object;
    ensure!(message(&seen).contains("exceeded quota: full"), "{}", message(&seen));
    ensure!(status(&seen).rejected.is_empty() && selected(fixture).await? == "1", "it was given up");
    quota.delete("full", &DeleteParams::default()).await?;
    // The ReplicaSet controller waits longer after each refusal.
    let again = |it: &ModelAlias| is_ready(it, change.generation) && status(it).ready_replicas == Some(2);
    fixture.champion.until_since(began, "Ready again", PATIENCE * 2, again).await?;
    fixture.until_quiet().await
}

/// New settings of the version that serves do not come up: the pods with the old ones go on.
async fn bad_settings(fixture: &Fixture, how: &str, reason: Reason) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(1).await?;
    fixture.get("version: '1'").await?;
    let began = Instant::now();
    let annotation = |more: &str| {
        format!(
            "{{version: '1', rollout: {{progressDeadline: 4s}}, \
             serving: {{template: {{metadata: {{annotations: {{{more}}}}}}}}}}}"
        )
    };
    let change = fixture.desired(&annotation(&format!("kwok.laurel.test/fate: {how}"))).await?;
    let early = fixture.champion.reason(change, reason, PATIENCE).await?.object;
    ensure!(holds(&early, ConditionType::Serving), "what serves goes on");
    let late = fixture.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?.object;
    ensure!(holds(&late, ConditionType::Stalled) && holds(&late, ConditionType::Serving), "{late:?}");
    let ready = fixture.pods.counts_since(began).iter().map(|count| count.ready).min();
    ensure!(ready >= Some(2), "only {ready:?} pods were ready");
    ensure!(status(&late).rejected.is_empty(), "the version that serves was given up");
    fixture.get(&annotation("example.org/settings: other")).await?;
    until_sizes(fixture, [("1", 2)]).await?;
    let ready = fixture.pods.counts_since(began).iter().map(|count| count.ready).min();
    ensure!(ready >= Some(2), "only {ready:?} pods were ready");
    fixture.until_quiet().await
}

#[test]
fn promise_1_failing_pods_of_the_serving_version_are_reported_and_ready_ones_answer() {
    let cases = [
        case("p-unready", async |fixture| falls_back(fixture, "never-ready").await),
        case("p-crash", async |fixture| falls_back(fixture, "crash-loop").await),
        case("p-alone", async |fixture| stays(fixture).await),
        case("p-refused", async |fixture| refused(fixture).await),
        case("p-image", async |fixture| {
            bad_settings(fixture, "image-pull-error", Reason::ImagePullFailed).await
        }),
        case("p-settings", async |fixture| bad_settings(fixture, "crash-loop", Reason::ModelCrashed).await),
    ];
    run_all(cases);
}
