//! `Rolling`: pods are exchanged a few at a time, never too many and never too few.

use anyhow::{Context, Result, ensure};
use laurel::api::condition::Reason;
use tokio::time::Instant;

use crate::{
    scene::{PATIENCE, Scene, play},
    simulated::look::{selected, until_sizes},
    support::{alias::status, pods::Count},
};

const REPLICAS: usize = 3;
const MAX_SURGE: usize = 1;

/// Three pods that take a moment to become ready, exchanged one at a time.
fn rolling(version: &str, fate: &str) -> String {
    format!(
        "
version: '{version}'
rollout: {{strategy: Rolling, maxSurge: {MAX_SURGE}, progressDeadline: 5s}}
serving:
  replicas: {REPLICAS}
  template: {{metadata: {{annotations: {{{fate}}}}}}}
"
    )
}

const SLOW: &str = "kwok.laurel.test/ready-after: 300ms";

/// At no time since a moment were there too many pods, or too few that were ready.
fn bounded(scene: &Scene, since: Instant) -> Result<()> {
    let counts = scene.pods.counts_since(since);
    let too_many = |count: &&Count| count.existing > REPLICAS + MAX_SURGE;
    let too_few = |count: &&Count| count.ready < REPLICAS;
    ensure!(!counts.is_empty(), "nothing happened");
    ensure!(!counts.iter().any(|count| too_many(&count)), "too many pods: {counts:?}");
    ensure!(!counts.iter().any(|count| too_few(&count)), "too few ready pods: {counts:?}");
    Ok(())
}

#[test]
fn rolling_exchanges_pods_within_its_bounds_and_goes_back_the_same_way() {
    play("rolling", async |scene| {
        scene.registered(2).await?;
        scene.get(&rolling("1", SLOW)).await?;
        until_sizes(scene, [("1", 3)]).await?;
        for version in ["2", "1"] {
            let began = Instant::now();
            scene.get(&rolling(version, SLOW)).await?;
            ensure!(selected(scene).await? == version, "the Service is not on version {version} alone");
            println!("  to version {version} in {:?}", began.elapsed());
            let other = if version == "1" { "2" } else { "1" };
            let mut sizes = [(version, 3), (other, 0)];
            sizes.sort_unstable();
            until_sizes(scene, sizes).await?;
            bounded(scene, began)?;
        }
        Ok(())
    });
}

#[test]
fn rolling_to_a_version_that_never_becomes_ready_goes_back_within_its_bounds() {
    play("rolling-back", async |scene| {
        scene.registered(2).await?;
        scene.get(&rolling("1", SLOW)).await?;
        let began = Instant::now();
        let change = scene.desired(&rolling("2", "kwok.laurel.test/fate: never-ready")).await?;
        scene.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
        until_sizes(scene, [("1", 3), ("2", 0)]).await?;
        bounded(scene, began)?;
        ensure!(selected(scene).await? == "1", "traffic moved");
        ensure!(scene.named("champion").await?.as_deref() == Some("1"), "the alias moved");
        let last = status(&scene.champion.last().context("the ModelAlias is gone")?);
        ensure!(last.version.map(|version| version.to_string()).as_deref() == Some("1"), "{last:?}");
        Ok(())
    });
}
