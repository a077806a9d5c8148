//! Changes in quick or unlucky order: bad versions in a row, rollbacks at every moment, sizes and strategies
//! that change midway, another operator. The last change takes effect, and then the operator is quiet.
//!
//! ```text
//! back_and_forth  promotions that are rolled back at every moment
//! bad             bad versions in a row
//! follow          a version that was rolled back is not rolled out again
//! owners          two ModelAliases that claim one alias
//! scale           an autoscaler scales through a promotion
//! strategy        the strategy changes while serving and in mid-rollout
//! upgrade         another operator takes over, and restarts nothing
//! ```

mod back_and_forth;
mod bad;
mod follow;
mod owners;
mod scale;
mod strategy;
mod upgrade;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};
use laurel::{api::ModelAlias, render::labels};
use tokio::time::Instant;

use crate::{
    fixture::Fixture,
    kubernetes::PATIENCE,
    simulated::look::selected,
    support::alias::{Change, is_ready, version},
};

/// A little more than a poll of the registry.
const A_POLL: Duration = Duration::from_secs(6);

/// Waits until nothing is written, even by the next poll.
async fn rest(fixture: &Fixture) -> Result<()> {
    fixture.journal.until_quiet(A_POLL, A_POLL + PATIENCE).await
}

/// Waits until the operator has written everything about the last change.
async fn settle(fixture: &Fixture) -> Result<()> {
    fixture.journal.until_quiet(Duration::from_secs(1), PATIENCE).await
}

/// Returns the UIDs of the pods of a version.
async fn pods_of(fixture: &Fixture, version: &str) -> Result<BTreeSet<String>> {
    let of_it = ListParams::default().labels(&format!("{}={version}", labels::VERSION));
    let pods = fixture.api::<Pod>().list_metadata(&of_it).await?;
    Ok(pods.items.iter().filter_map(ResourceExt::uid).collect())
}

/// Time limit for a change that needs several pods one after another, on a busy machine.
const STEP_BY_STEP: Duration = Duration::from_secs(90);

/// Waits until a requested version serves, in the cluster and in the registry.
async fn reached(fixture: &Fixture, change: Change, wanted: &str) -> Result<()> {
    let met = |it: &ModelAlias| is_ready(it, change.generation) && version(it) == wanted;
    let what = format!("Ready with version {wanted}");
    fixture.champion.until_since(change.accepted, &what, STEP_BY_STEP, met).await?;
    ensure!(selected(fixture).await? == wanted, "traffic is not on version {wanted}");
    fixture.until_named("champion", Some(wanted)).await
}

/// Asserts that since a given time there were always at least `least` ready pods and at most `most` pods.
fn bounded(fixture: &Fixture, since: Instant, least: usize, most: usize) -> Result<()> {
    let counts = fixture.pods.counts_since(since);
    ensure!(!counts.iter().any(|count| count.ready < least), "fewer than {least} ready pods: {counts:?}");
    ensure!(!counts.iter().any(|count| count.existing > most), "more than {most} pods: {counts:?}");
    Ok(())
}
