//! An autoscaler scales the ModelAlias while a promotion is under way.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use laurel::api::{ModelAlias, condition::Reason};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{bounded, reached, rest};
use crate::{
    kubernetes::{PATIENCE, play_all, scene},
    scene::Scene,
    simulated::look::{selected, sizes, until_sizes},
    support::alias::{Change, status},
};

/// What an autoscaler does: by the scale subresource, as a field manager of its own.
async fn scale(scene: &Scene, replicas: u32) -> Result<Change> {
    let aliases: Api<ModelAlias> = scene.api();
    let size = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    aliases.patch_scale("champion", &PatchParams::default(), &size).await?;
    scene.champion.accepted().await
}

/// Only the version: the size is the autoscaler's.
async fn desired(scene: &Scene, version: &str, more: &str) -> Result<Change> {
    scene.desired(&format!("version: '{version}'\nserving: {{replicas: null{more}}}")).await
}

const SLOW: &str = ", template: {metadata: {annotations: {kwok.laurel.test/ready-after: 6s}}}";

/// With `BlueGreen` pods that are ending hold nobody up: what was taken away may still be there when more are
/// asked for.
fn wanted_at_most(scene: &Scene, since: Instant, most: usize) -> Result<()> {
    let counts = scene.pods.counts_since(since);
    ensure!(!counts.iter().any(|count| count.ready < 2), "fewer than 2 ready pods: {counts:?}");
    ensure!(!counts.iter().any(|count| count.wanted > most), "more than {most} pods: {counts:?}");
    Ok(())
}

/// Load rises while the next version starts slowly: the one that serves grows now, and the next one comes up
/// at the new size. Load falls again: what serves shrinks.
async fn grows(scene: &Scene) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    desired(scene, "1", "").await?;
    let change = scale(scene, 2).await?;
    reached(scene, change, "1").await?;
    let change = desired(scene, "2", SLOW).await?;
    scene.champion.reason(change, Reason::WaitingForPods, PATIENCE).await?;
    let began = Instant::now();
    let change = scale(scene, 4).await?;
    while sizes(scene).await?["1"] != 4 {
        ensure!(selected(scene).await? == "1", "the version that serves was not scaled before traffic moved");
        ensure!(began.elapsed() < PATIENCE, "the version that serves is not scaled");
        sleep(Duration::from_millis(50)).await;
    }
    println!("  the version that serves grew after {:?}", began.elapsed());
    reached(scene, change, "2").await?;
    until_sizes(scene, [("1", 4), ("2", 4)]).await?;
    let last = status(&scene.champion.last().context("the ModelAlias is gone")?);
    ensure!(last.replicas == Some(4) && last.ready_replicas == Some(4), "{last:?}");
    wanted_at_most(scene, began, 8)?;
    let change = scale(scene, 2).await?;
    reached(scene, change, "2").await?;
    // The previous version stays warm at the size it had when traffic left it.
    until_sizes(scene, [("1", 4), ("2", 2)]).await?;
    rest(scene).await
}

/// The size changes several times while the next version starts: the promotion comes to its end all the same.
async fn goes_up_and_down(scene: &Scene, strategy: &str) -> Result<()> {
    let rollout = format!("}}\nrollout: {{strategy: {strategy}, progressDeadline: 30s");
    let slow = ", template: {metadata: {annotations: {kwok.laurel.test/ready-after: 1s}}}";
    scene.operator.start().await?;
    scene.registered(2).await?;
    desired(scene, "1", &rollout).await?;
    let change = scale(scene, 3).await?;
    reached(scene, change, "1").await?;
    let began = Instant::now();
    desired(scene, "2", &format!("{slow}{rollout}")).await?;
    let mut change = None;
    for replicas in [4, 2, 5, 3, 4, 2, 3] {
        sleep(Duration::from_millis(400)).await; // Time itself is the subject: another moment each time.
        change = Some(scale(scene, replicas).await?);
    }
    reached(scene, change.context("it was scaled")?, "2").await?;
    let sizes = sizes(scene).await?;
    ensure!(sizes["2"] == 3, "{sizes:?}");
    // The size that it had when traffic left it, which was one of those.
    ensure!(if strategy == "Rolling" { sizes["1"] == 0 } else { (2..=5).contains(&sizes["1"]) }, "{sizes:?}");
    if strategy == "Rolling" {
        bounded(scene, began, 2, 6)?;
    } else {
        wanted_at_most(scene, began, 10)?;
    }
    rest(scene).await
}

/// Scaled in the moment after traffic moved, and back to the version before at another size.
async fn rolled_back_at_another_size(scene: &Scene) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    desired(scene, "1", "").await?;
    let change = scale(scene, 2).await?;
    reached(scene, change, "1").await?;
    let change = desired(scene, "2", "").await?;
    reached(scene, change, "2").await?;
    let began = Instant::now();
    scale(scene, 4).await?;
    let back = desired(scene, "1", "").await?;
    reached(scene, back, "1").await?;
    until_sizes(scene, [("1", 4), ("2", 4)]).await?;
    wanted_at_most(scene, began, 8)?;
    let generation = scene.api::<Deployment>().get("champion-v1").await?.metadata.generation;
    rest(scene).await?;
    let later = scene.api::<Deployment>().get("champion-v1").await?.metadata.generation;
    ensure!(generation == later, "it was written at rest");
    Ok(())
}

#[test]
fn an_autoscaler_scales_what_serves_and_what_comes_through_a_promotion() {
    play_all([
        scene("h-grows", async |scene| grows(scene).await),
        scene("h-up-down", async |scene| goes_up_and_down(scene, "BlueGreen").await),
        scene("h-up-down-rolling", async |scene| goes_up_and_down(scene, "Rolling").await),
        scene("h-back", async |scene| rolled_back_at_another_size(scene).await),
    ]);
}
