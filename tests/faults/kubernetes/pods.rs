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

use super::{PATIENCE, calm, play_all, scene};
use crate::{
    scene::{Scene, play},
    simulated::look::{no_more_pods, selected, until_sizes},
    support::{
        alias::{condition, has, holds, is_ready, message, status, version},
        pods::is_ready as pod_is_ready,
    },
};

/// Gives so many pods of a version another fate, and waits until it has come.
pub(crate) async fn fate(scene: &Scene, version: &str, fate: Option<&str>, count: usize) -> Result<()> {
    let pods = scene.api::<Pod>();
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
fn one_pod_of_two_that_becomes_unready_is_told_and_nothing_is_given_up() {
    play("p-one", async |scene| {
        scene.registered(2).await?;
        scene.get("version: '1'").await?;
        let change = scene.get("version: '2'").await?;
        scene.until_named("champion", Some("2")).await?;
        for how in ["never-ready", "crash-loop"] {
            let began = Instant::now();
            fate(scene, "2", Some(how), 1).await?;
            let reported = |it: &ModelAlias| {
                status(it).ready_replicas == Some(1)
                    && holds(it, ConditionType::Reconciling)
                    && holds(it, ConditionType::Serving)
            };
            let seen =
                scene.champion.until_since(began, "one pod is ready", PATIENCE, reported).await?.object;
            let wanted = if how == "crash-loop" { Reason::ModelCrashed } else { Reason::WaitingForPods };
            ensure!(has(&seen, wanted), "{how} is told as {}", message(&seen));
            fate(scene, "2", None, 1).await?;
            let again =
                |it: &ModelAlias| is_ready(it, change.generation) && status(it).ready_replicas == Some(2);
            scene.champion.until_since(began, "Ready again", PATIENCE, again).await?;
        }
        let last = status(&scene.champion.last().context("the ModelAlias is gone")?);
        ensure!(last.rejected.is_empty() && selected(scene).await? == "2", "{last:?}");
        until_sizes(scene, [("1", 2), ("2", 2)]).await?;
        scene.until_quiet().await
    });
}

/// All pods of the version that serves become unready while the one before is warm: that one takes over.
async fn falls_back(scene: &Scene, how: &str) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.get("version: '1'").await?;
    scene.get("version: '2'").await?;
    scene.until_named("champion", Some("2")).await?;
    let began = Instant::now();
    fate(scene, "2", Some(how), 2).await?;
    let reported = |it: &ModelAlias| {
        version(it) == "1" && has(it, Reason::BecameUnready) && holds(it, ConditionType::Stalled)
    };
    let seen = scene.champion.until_since(began, "version 1 takes over", PATIENCE, reported).await?;
    println!("  {how}: told {:?} after the first pod failed", seen.at - began);
    ensure!(message(&seen.object).contains("laurel.dev/retry"), "{}", message(&seen.object));
    ensure!(selected(scene).await? == "1", "traffic did not go back");
    scene.until_named("champion", Some("1")).await?;
    until_sizes(scene, [("1", 2), ("2", 0)]).await?;
    let last = status(&scene.champion.last().context("the ModelAlias is gone")?);
    ensure!(
        last.history[0].outcome == Outcome::RolledBack && last.history[0].cause == Cause::Failure,
        "{last:?}"
    );
    scene.until_quiet().await?;
    // Somebody who knows that it was not the version's fault asks for it again.
    let asked = Instant::now();
    scene.retry("again").await?;
    let serves = |it: &ModelAlias| version(it) == "2" && holds(it, ConditionType::Ready);
    scene.champion.until_since(asked, "version 2 again", PATIENCE, serves).await?;
    scene.until_named("champion", Some("2")).await
}

/// The same without a version that is warm: it stays, says so, and recovers by itself.
async fn stays(scene: &Scene) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(1).await?;
    scene.get("version: '1'").await?;
    let change = scene.get("{version: '1', rollout: {progressDeadline: 3s}}").await?;
    scene.until_named("champion", Some("1")).await?;
    let began = Instant::now();
    fate(scene, "1", Some("crash-loop"), 2).await?;
    let reported = |it: &ModelAlias| {
        condition(it, ConditionType::Serving)
            .is_some_and(|serving| serving.status == "False" && serving.reason == "BecameUnready")
    };
    scene.champion.until_since(began, "it serves no more", PATIENCE, reported).await?;
    sleep(Duration::from_secs(6)).await; // Time itself is the subject: past the deadline.
    let late = scene.champion.last().context("the ModelAlias is gone")?;
    ensure!(message(&late).contains("exit code 1"), "{}", message(&late));
    ensure!(status(&late).rejected.is_empty(), "the only version there is was given up");
    ensure!(selected(scene).await? == "1", "traffic moved");
    until_sizes(scene, [("1", 2)]).await?;
    calm(scene, began, |_| true)?;
    let healed = Instant::now();
    fate(scene, "1", None, 2).await?;
    let again = |it: &ModelAlias| is_ready(it, change.generation);
    scene.champion.until_since(healed, "Ready again", PATIENCE, again).await?;
    scene.until_quiet().await
}

/// A pod of the version that serves is deleted, and a quota refuses the one in its place.
async fn refused(scene: &Scene) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(1).await?;
    let change = scene.get("version: '1'").await?;
    let quota = no_more_pods(scene).await?;
    scene.edit::<ResourceQuota>("full", json!({ "spec": { "hard": { "pods": "1" } } })).await?;
    let pods = scene.api::<Pod>();
    let pod = pods.list_metadata(&ListParams::default()).await?.items.pop().context("no pod")?;
    let began = Instant::now();
    pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    let reported = |it: &ModelAlias| has(it, Reason::PodsRefused) && holds(it, ConditionType::Serving);
    let seen = scene.champion.until_since(began, "the quota is told", PATIENCE, reported).await?.object;
    ensure!(message(&seen).contains("exceeded quota: full"), "{}", message(&seen));
    ensure!(status(&seen).rejected.is_empty() && selected(scene).await? == "1", "it was given up");
    quota.delete("full", &DeleteParams::default()).await?;
    // The ReplicaSet controller waits longer after each refusal.
    let again = |it: &ModelAlias| is_ready(it, change.generation) && status(it).ready_replicas == Some(2);
    scene.champion.until_since(began, "Ready again", PATIENCE * 2, again).await?;
    scene.until_quiet().await
}

/// New settings of the version that serves do not come up: the pods with the old ones go on.
async fn bad_settings(scene: &Scene, how: &str, reason: Reason) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(1).await?;
    scene.get("version: '1'").await?;
    let began = Instant::now();
    let annotation = |more: &str| {
        format!(
            "{{version: '1', rollout: {{progressDeadline: 4s}}, \
             serving: {{template: {{metadata: {{annotations: {{{more}}}}}}}}}}}"
        )
    };
    let change = scene.desired(&annotation(&format!("kwok.laurel.test/fate: {how}"))).await?;
    let early = scene.champion.reason(change, reason, PATIENCE).await?.object;
    ensure!(holds(&early, ConditionType::Serving), "what serves goes on");
    let late = scene.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?.object;
    ensure!(holds(&late, ConditionType::Stalled) && holds(&late, ConditionType::Serving), "{late:?}");
    let ready = scene.pods.counts_since(began).iter().map(|count| count.ready).min();
    ensure!(ready >= Some(2), "only {ready:?} pods were ready");
    ensure!(status(&late).rejected.is_empty(), "the version that serves was given up");
    scene.get(&annotation("example.org/settings: other")).await?;
    until_sizes(scene, [("1", 2)]).await?;
    let ready = scene.pods.counts_since(began).iter().map(|count| count.ready).min();
    ensure!(ready >= Some(2), "only {ready:?} pods were ready");
    scene.until_quiet().await
}

#[test]
fn promise_1_pods_of_what_serves_that_fail_later_are_told_and_what_can_answer_answers() {
    let scenes = [
        scene("p-unready", async |scene| falls_back(scene, "never-ready").await),
        scene("p-crash", async |scene| falls_back(scene, "crash-loop").await),
        scene("p-alone", async |scene| stays(scene).await),
        scene("p-refused", async |scene| refused(scene).await),
        scene("p-image", async |scene| {
            bad_settings(scene, "image-pull-error", Reason::ImagePullFailed).await
        }),
        scene("p-settings", async |scene| bad_settings(scene, "crash-loop", Reason::ModelCrashed).await),
    ];
    play_all(scenes);
}
