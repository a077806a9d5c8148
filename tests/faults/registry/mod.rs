//! The registry answers wrongly, late or not at all, others change what is in it, clocks disagree: what
//! serves goes on serving, the conditions say what is wrong, and when it is right again, that is noticed
//! without anybody's help.
//!
//! ```text
//! answers   what comes back is no answer, or comes late: one fault after the other
//! listing   pages that are empty, cut, endless, or that others delete from while they are read
//! flight    the fault begins in the middle of a promotion
//! rollback  a rollback to the warm version waits for no registry
//! follower  with `follow: {registry: {}}`
//! record    what was done is written into the tags of versions
//! objects   aliases, versions and models that are deleted, made anew or renamed in the registry
//! writers   somebody else goes on moving the alias
//! ends      deletions
//! clocks    times that make no sense here
//! told      what the three objects say of the registry
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

/// How many cases are set at the same time, by all tests together. Once it is set, a fixture waits most of the
/// time.
static ROOM: Semaphore = Semaphore::const_new(4);

/// A fixture that is result.
type RunningCase = LocalBoxFuture<'static, Result<()>>;

/// One of several cases that are result at the same time, each with a running operator of its own.
fn case(name: &'static str, story: impl AsyncFnOnce(&Fixture) -> Result<()> + 'static) -> RunningCase {
    let result = run_case(name, async |fixture| {
        let room = ROOM.acquire().await?;
        fixture.operator.start().await?;
        drop(room);
        story(fixture).await
    });
    result.boxed_local()
}

/// Plays cases at the same time, and tells of all that fail.
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

/// A model with `count` versions, served by the ModelAlias `champion` in version 1; all by way of the
/// ModelRegistry `mlflow`, whose URL is the proxy's.
async fn serving(fixture: &Fixture, count: usize) -> Result<Reports> {
    let _room = ROOM.acquire().await?;
    let reported = described(fixture, count).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    until_recorded(fixture, "1").await?;
    Ok(reported)
}

/// Waits until the history tells of a promotion to this version last, and all of it stands in the registry,
/// so that nothing is written there any more.
async fn until_recorded(fixture: &Fixture, newest: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let history = fixture.champion.last().map(|it| status(&it).history).unwrap_or_default();
        let is_reported = history.first().is_some_and(|entry| entry.version.to_string() == newest);
        if is_reported && history.iter().all(|entry| entry.recorded != Recorded::Pending) {
            return Ok(());
        }
        ensure!(began.elapsed() < 2 * PATIENCE, "it is not recorded: {history:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The model, and the two objects that speak of it and of its registry.
async fn described(fixture: &Fixture, count: usize) -> Result<Reports> {
    fixture.mlflow.create_model(&fixture.model).await?;
    for _ in 0..count {
        fixture.mlflow.register(&fixture.model).await?;
    }
    let reported = Reports::watch(fixture);
    reported.describe(fixture).await?;
    Ok(reported)
}

/// The revisions of the Service and of the Deployments.
async fn cluster(fixture: &Fixture) -> Result<BTreeMap<String, Option<String>>> {
    let mut all = revisions(fixture).await?;
    all.retain(|name, _| name.starts_with("Deployment ") || name.starts_with("Service "));
    Ok(all)
}

/// An error when the Service or a Deployment was written, made or deleted since.
async fn untouched(fixture: &Fixture, before: &BTreeMap<String, Option<String>>) -> Result<()> {
    let now = cluster(fixture).await?;
    ensure!(*before == now, "what serves was written: {before:#?}\n{now:#?}");
    Ok(())
}

/// How many requests of a method, to a path that contains `part`, the operator sent to the registry so far.
fn asked(fixture: &Fixture, method: &Method, part: &str) -> usize {
    let is_it = |exchange: &Exchange| {
        exchange.server == Server::Registry && exchange.method == *method && exchange.path.contains(part)
    };
    fixture.journal.exchanges().iter().filter(|exchange| is_it(exchange)).count()
}

/// How often the operator has tried to set an alias so far.
fn alias_writes(fixture: &Fixture) -> usize {
    asked(fixture, &Method::POST, "registered-models/alias")
}
