//! `Rolling`: pods are exchanged a few at a time, never too many and never too few.

use anyhow::{Context, Result, ensure};
use laurel::api::condition::Reason;
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run},
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
fn bounded(fixture: &Fixture, since: Instant) -> Result<()> {
    let counts = fixture.pods.counts_since(since);
    let too_many = |count: &&Count| count.existing > REPLICAS + MAX_SURGE;
    let too_few = |count: &&Count| count.ready < REPLICAS;
    ensure!(!counts.is_empty(), "nothing happened");
    ensure!(!counts.iter().any(|count| too_many(&count)), "too many pods: {counts:?}");
    ensure!(!counts.iter().any(|count| too_few(&count)), "too few ready pods: {counts:?}");
    Ok(())
}

#[test]
fn rolling_replaces_pods_within_its_bounds_and_rolls_back_the_same_way() {
    run("rolling", async |fixture| {
        fixture.registered(2).await?;
        fixture.get(&rolling("1", SLOW)).await?;
        until_sizes(fixture, [("1", 3)]).await?;
        for version in ["2", "1"] {
            let began = Instant::now();
            fixture.get(&rolling(version, SLOW)).await?;
            ensure!(selected(fixture).await? == version, "the Service is not on version {version} alone");
            println!("  to version {version} in {:?}", began.elapsed());
            let other = if version == "1" { "2" } else { "1" };
            let mut sizes = [(version, 3), (other, 0)];
            sizes.sort_unstable();
            until_sizes(fixture, sizes).await?;
            bounded(fixture, began)?;
        }
        Ok(())
    });
}

#[test]
fn rolling_to_a_version_that_never_becomes_ready_is_rolled_back_within_its_bounds() {
    run("rolling-back", async |fixture| {
        fixture.registered(2).await?;
        fixture.get(&rolling("1", SLOW)).await?;
        let began = Instant::now();
        let change = fixture.desired(&rolling("2", "kwok.laurel.test/fate: never-ready")).await?;
        fixture.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
        until_sizes(fixture, [("1", 3), ("2", 0)]).await?;
        bounded(fixture, began)?;
        ensure!(selected(fixture).await? == "1", "traffic moved");
        ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias moved");
        let last = status(&fixture.champion.last().context("the ModelAlias is gone")?);
        ensure!(last.version.map(|version| version.to_string()).as_deref() == Some("1"), "{last:?}");
        Ok(())
    });
}
