//! The registry responds wrongly, late or not at all, others change it, clocks disagree: serving continues,
//! conditions report the error, and recovery needs no help.
//!
//! ```text
//! answers   invalid or late responses: one fault after another
//! listing   pages that are empty, truncated, endless, or change while being read
//! flight    the fault begins in the middle of a promotion
//! rollback  a rollback to the warm version does not wait for the registry
//! follower  with `follow: {registry: {}}`
//! record    audit writes to the tags of versions
//! objects   aliases, versions and models that are deleted, recreated or renamed in the registry
//! writers   another writer keeps moving the alias
//! ends      deletions
//! clocks    wrong clocks
//! reports   the conditions of the three objects about the registry
//! ```

mod answers;
mod audit_log;
mod clocks;
mod ends;
mod flight;
mod follower;
mod listing;
mod objects;
mod reports;
mod rollback;
mod writers;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use futures::{
    FutureExt,
    future::{LocalBoxFuture, join_all},
};
use hyper::Method;
use laurel::api::model_alias::Recorded;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use self::reports::Reports;
use crate::{
    fixture::{Fixture, PATIENCE, run_case},
    simulated::{look::revisions, machine::RUNTIME},
    support::alias::status,
    wire::{Exchange, Server},
};

/// Maximum number of cases at a time, over all tests. They share one MLflow server, and each has an operator that
/// polls it: with more of them it would answer nobody in time.
static ROOM: Semaphore = Semaphore::const_new(16);

/// A running case.
type RunningCase = LocalBoxFuture<'static, Result<()>>;

/// One of several concurrent cases, each with its own running operator.
fn case(name: &'static str, story: impl AsyncFnOnce(&Fixture) -> Result<()> + 'static) -> RunningCase {
    let result = async move {
        let _room = ROOM.acquire().await?;
        run_case(name, async |fixture| {
            fixture.operator.start().await?;
            story(fixture).await
        })
        .await
    };
    result.boxed_local()
}

/// Runs cases concurrently, and reports all failures.
fn side_by_side(cases: impl IntoIterator<Item = Vec<RunningCase>>) {
    let ends = RUNTIME.block_on(join_all(cases.into_iter().flatten()));
    let count = ends.len();
    let failures: Vec<String> =
        ends.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    assert!(failures.is_empty(), "{} of {count} cases fail:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn promise_3_no_response_of_the_registry_affects_serving() {
    side_by_side([answers::cases(), listing::cases(), follower::cases()]);
}

#[test]
fn promises_3_4_and_5_traffic_does_not_wait_for_the_registry_and_the_alias_names_what_serves() {
    side_by_side([
        flight::cases(),
        rollback::cases(),
        audit_log::cases(),
        objects::cases(),
        writers::cases(),
    ]);
}

#[test]
fn promise_9_deletions_do_not_wait_for_the_registry_or_depend_on_other_clocks() {
    side_by_side([ends::cases(), clocks::cases()]);
}

/// Sets up a model with `count` versions, whose version 1 is served by the ModelAlias `champion`, with the
/// ModelRegistry `mlflow`, whose URL is the proxy's.
async fn serving(fixture: &Fixture, count: usize) -> Result<Reports> {
    let reported = described(fixture, count).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    until_recorded(fixture, "1").await?;
    Ok(reported)
}

/// Waits until the last history entry is a promotion to this version, and all entries are in the registry, so
/// that nothing more is written there.
async fn until_recorded(fixture: &Fixture, newest: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let history = fixture.champion.last().map(|it| status(&it).history).unwrap_or_default();
        let is_reported = history.first().is_some_and(|entry| entry.version.to_string() == newest);
        if is_reported && history.iter().all(|entry| entry.recorded != Recorded::Pending) {
            return Ok(());
        }
        ensure!(began.elapsed() < 2 * PATIENCE, "it is not in the audit log: {history:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Creates the model, and the two objects for it and its registry.
async fn described(fixture: &Fixture, count: usize) -> Result<Reports> {
    fixture.mlflow.create_model(&fixture.model).await?;
    for _ in 0..count {
        fixture.mlflow.register(&fixture.model).await?;
    }
    let reported = Reports::watch(fixture);
    reported.describe(fixture).await?;
    Ok(reported)
}

/// Returns the revisions of the Service and of the Deployments.
async fn cluster(fixture: &Fixture) -> Result<BTreeMap<String, Option<String>>> {
    let mut all = revisions(fixture).await?;
    all.retain(|name, _| name.starts_with("Deployment ") || name.starts_with("Service "));
    Ok(all)
}

/// Fails if the Service or a Deployment was written, created or deleted since.
async fn untouched(fixture: &Fixture, before: &BTreeMap<String, Option<String>>) -> Result<()> {
    let now = cluster(fixture).await?;
    ensure!(*before == now, "what serves was written: {before:#?}\n{now:#?}");
    Ok(())
}

/// Returns how many requests of a method, to a path that contains `part`, the operator has sent to the
/// registry.
fn asked(fixture: &Fixture, method: &Method, part: &str) -> usize {
    let is_it = |exchange: &Exchange| {
        exchange.server == Server::Registry && exchange.method == *method && exchange.path.contains(part)
    };
    fixture.journal.exchanges().iter().filter(|exchange| is_it(exchange)).count()
}

/// Returns how many times the operator has tried to set an alias.
fn alias_writes(fixture: &Fixture) -> usize {
    asked(fixture, &Method::POST, "registered-models/alias")
}
