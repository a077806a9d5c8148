//! Wishes in quick or unlucky order: bad versions in a row, back again at every moment, sizes and strategies
//! that change in the middle, another operator. It ends where the last wish leads, and then is quiet.
//!
//! ```text
//! back_and_forth  to another version and back again, at every moment
//! bad             bad versions in a row
//! follow          what was rolled back is not rolled forward to
//! owners          two ModelAliases that want one alias
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

/// Waits until nothing is written, also by the next poll.
async fn rest(fixture: &Fixture) -> Result<()> {
    fixture.journal.until_quiet(A_POLL, A_POLL + PATIENCE).await
}

/// Waits until the operator has nothing left to say about what was just reached.
async fn settle(fixture: &Fixture) -> Result<()> {
    fixture.journal.until_quiet(Duration::from_secs(1), PATIENCE).await
}

/// The UIDs of the pods of a version.
async fn pods_of(fixture: &Fixture, version: &str) -> Result<BTreeSet<String>> {
    let of_it = ListParams::default().labels(&format!("{}={version}", labels::VERSION));
    let pods = fixture.api::<Pod>().list_metadata(&of_it).await?;
    Ok(pods.items.iter().filter_map(ResourceExt::uid).collect())
}

/// How long a wish may take that needs several pods one after the other, on a busy machine.
const STEP_BY_STEP: Duration = Duration::from_secs(90);

/// Waits until a wish for a version is met, in the cluster and in the registry.
async fn reached(fixture: &Fixture, change: Change, wanted: &str) -> Result<()> {
    let met = |it: &ModelAlias| is_ready(it, change.generation) && version(it) == wanted;
    let what = format!("Ready with version {wanted}");
    fixture.champion.until_since(change.accepted, &what, STEP_BY_STEP, met).await?;
    ensure!(selected(fixture).await? == wanted, "traffic is not on version {wanted}");
    fixture.until_named("champion", Some(wanted)).await
}

/// At all times since a moment so many pods were ready, and there were no more than so many.
fn bounded(fixture: &Fixture, since: Instant, least: usize, most: usize) -> Result<()> {
    let counts = fixture.pods.counts_since(since);
    ensure!(!counts.iter().any(|count| count.ready < least), "fewer than {least} ready pods: {counts:?}");
    ensure!(!counts.iter().any(|count| count.existing > most), "more than {most} pods: {counts:?}");
    Ok(())
}
