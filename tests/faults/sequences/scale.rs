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
    fixture::Fixture,
    kubernetes::{PATIENCE, case, run_all},
    simulated::look::{selected, sizes, until_sizes},
    support::alias::{Change, status},
};

/// What an autoscaler does: by the scale subresource, as a field manager of its own.
async fn scale(fixture: &Fixture, replicas: u32) -> Result<Change> {
    let aliases: Api<ModelAlias> = fixture.api();
    let size = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    aliases.patch_scale("champion", &PatchParams::default(), &size).await?;
    fixture.champion.accepted().await
}

/// Only the version: the size is the autoscaler's.
async fn desired(fixture: &Fixture, version: &str, more: &str) -> Result<Change> {
    fixture.desired(&format!("version: '{version}'\nserving: {{replicas: null{more}}}")).await
}

const SLOW: &str = ", template: {metadata: {annotations: {kwok.laurel.test/ready-after: 6s}}}";

/// With `BlueGreen` pods that are ending hold nobody up: what was taken away may still be there when more are
/// asked for.
fn wanted_at_most(fixture: &Fixture, since: Instant, most: usize) -> Result<()> {
    let counts = fixture.pods.counts_since(since);
    ensure!(!counts.iter().any(|count| count.ready < 2), "fewer than 2 ready pods: {counts:?}");
    ensure!(!counts.iter().any(|count| count.wanted > most), "more than {most} pods: {counts:?}");
    Ok(())
}

/// Load rises while the next version starts slowly: the one that serves grows now, and the next one comes up
/// at the new size. Load falls again: what serves shrinks.
async fn grows(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    desired(fixture, "1", "").await?;
    let change = scale(fixture, 2).await?;
    reached(fixture, change, "1").await?;
    let change = desired(fixture, "2", SLOW).await?;
    fixture.champion.reason(change, Reason::WaitingForPods, PATIENCE).await?;
    let began = Instant::now();
    let change = scale(fixture, 4).await?;
    while sizes(fixture).await?["1"] != 4 {
        ensure!(
            selected(fixture).await? == "1",
            "the version that serves was not scaled before traffic moved"
        );
        ensure!(began.elapsed() < PATIENCE, "the version that serves is not scaled");
        sleep(Duration::from_millis(50)).await;
    }
    println!("  the version that serves grew after {:?}", began.elapsed());
    reached(fixture, change, "2").await?;
    until_sizes(fixture, [("1", 4), ("2", 4)]).await?;
    let last = status(&fixture.champion.last().context("the ModelAlias is gone")?);
    ensure!(last.replicas == Some(4) && last.ready_replicas == Some(4), "{last:?}");
    wanted_at_most(fixture, began, 8)?;
    let change = scale(fixture, 2).await?;
    reached(fixture, change, "2").await?;
    // The previous version stays warm at the size it had when traffic left it.
    until_sizes(fixture, [("1", 4), ("2", 2)]).await?;
    rest(fixture).await
}

/// The size changes several times while the next version starts: the promotion comes to its end all the same.
async fn goes_up_and_down(fixture: &Fixture, strategy: &str) -> Result<()> {
    let rollout = format!("}}\nrollout: {{strategy: {strategy}, progressDeadline: 30s");
    let slow = ", template: {metadata: {annotations: {kwok.laurel.test/ready-after: 1s}}}";
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    desired(fixture, "1", &rollout).await?;
    let change = scale(fixture, 3).await?;
    reached(fixture, change, "1").await?;
    let began = Instant::now();
    desired(fixture, "2", &format!("{slow}{rollout}")).await?;
    let mut change = None;
    for replicas in [4, 2, 5, 3, 4, 2, 3] {
        sleep(Duration::from_millis(400)).await; // Time itself is the subject: another moment each time.
        change = Some(scale(fixture, replicas).await?);
    }
    reached(fixture, change.context("it was scaled")?, "2").await?;
    let sizes = sizes(fixture).await?;
    ensure!(sizes["2"] == 3, "{sizes:?}");
    // The size that it had when traffic left it, which was one of those.
    ensure!(if strategy == "Rolling" { sizes["1"] == 0 } else { (2..=5).contains(&sizes["1"]) }, "{sizes:?}");
    if strategy == "Rolling" {
        bounded(fixture, began, 2, 6)?;
    } else {
        wanted_at_most(fixture, began, 10)?;
    }
    rest(fixture).await
}

/// Scaled in the moment after traffic moved, and back to the version before at another size.
async fn rolled_back_at_another_size(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    desired(fixture, "1", "").await?;
    let change = scale(fixture, 2).await?;
    reached(fixture, change, "1").await?;
    let change = desired(fixture, "2", "").await?;
    reached(fixture, change, "2").await?;
    let began = Instant::now();
    scale(fixture, 4).await?;
    let back = desired(fixture, "1", "").await?;
    reached(fixture, back, "1").await?;
    until_sizes(fixture, [("1", 4), ("2", 4)]).await?;
    wanted_at_most(fixture, began, 8)?;
    let generation = fixture.api::<Deployment>().get("champion-v1").await?.metadata.generation;
    rest(fixture).await?;
    let later = fixture.api::<Deployment>().get("champion-v1").await?.metadata.generation;
    ensure!(generation == later, "it was written at rest");
    Ok(())
}

#[test]
fn an_autoscaler_scales_both_versions_during_a_promotion() {
    run_all([
        case("h-grows", async |fixture| grows(fixture).await),
        case("h-up-down", async |fixture| goes_up_and_down(fixture, "BlueGreen").await),
        case("h-up-down-rolling", async |fixture| goes_up_and_down(fixture, "Rolling").await),
        case("h-back", async |fixture| rolled_back_at_another_size(fixture).await),
    ]);
}
