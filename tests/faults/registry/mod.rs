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
mod clocks;
mod ends;
mod flight;
mod follower;
mod listing;
mod objects;
mod record;
mod rollback;
mod told;
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

use self::told::Told;
use crate::{
    scene::{PATIENCE, Scene, act},
    simulated::{look::revisions, machine::RUNTIME},
    support::alias::status,
    wire::{Exchange, Server},
};

/// How many scenes are set at the same time, by all tests together. Once it is set, a scene waits most of the
/// time.
static ROOM: Semaphore = Semaphore::const_new(4);

/// A scene that is played.
type Played = LocalBoxFuture<'static, Result<()>>;

/// One of several scenes that are played at the same time, each with a running operator of its own.
fn scene(name: &'static str, story: impl AsyncFnOnce(&Scene) -> Result<()> + 'static) -> Played {
    let played = act(name, async |scene| {
        let room = ROOM.acquire().await?;
        scene.operator.start().await?;
        drop(room);
        story(scene).await
    });
    played.boxed_local()
}

/// Plays scenes at the same time, and tells of all that fail.
fn side_by_side(scenes: impl IntoIterator<Item = Vec<Played>>) {
    let ends = RUNTIME.block_on(join_all(scenes.into_iter().flatten()));
    let count = ends.len();
    let failures: Vec<String> =
        ends.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    assert!(failures.is_empty(), "{} of {count} scenes fail:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn promise_3_no_answer_of_the_registry_takes_away_what_serves() {
    side_by_side([answers::scenes(), listing::scenes(), follower::scenes()]);
}

#[test]
fn promises_3_4_and_5_traffic_waits_for_no_registry_and_the_alias_names_what_serves() {
    side_by_side([
        flight::scenes(),
        rollback::scenes(),
        record::scenes(),
        objects::scenes(),
        writers::scenes(),
    ]);
}

#[test]
fn promise_9_deletions_wait_for_no_registry_and_nothing_depends_on_the_clocks_of_others() {
    side_by_side([ends::scenes(), clocks::scenes()]);
}

/// A model with `count` versions, served by the ModelAlias `champion` in version 1; all by way of the
/// ModelRegistry `mlflow`, whose URL is the proxy's.
async fn serving(scene: &Scene, count: usize) -> Result<Told> {
    let _room = ROOM.acquire().await?;
    let reported = described(scene, count).await?;
    scene.get("version: '1'").await?;
    scene.until_named("champion", Some("1")).await?;
    until_recorded(scene, "1").await?;
    Ok(reported)
}

/// Waits until the history tells of a promotion to this version last, and all of it stands in the registry,
/// so that nothing is written there any more.
async fn until_recorded(scene: &Scene, newest: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let history = scene.champion.last().map(|it| status(&it).history).unwrap_or_default();
        let is_reported = history.first().is_some_and(|entry| entry.version.to_string() == newest);
        if is_reported && history.iter().all(|entry| entry.recorded != Recorded::Pending) {
            return Ok(());
        }
        ensure!(began.elapsed() < 2 * PATIENCE, "it is not recorded: {history:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The model, and the two objects that speak of it and of its registry.
async fn described(scene: &Scene, count: usize) -> Result<Told> {
    scene.mlflow.create_model(&scene.model).await?;
    for _ in 0..count {
        scene.mlflow.register(&scene.model).await?;
    }
    let reported = Told::watch(scene);
    reported.describe(scene).await?;
    Ok(reported)
}

/// The revisions of the Service and of the Deployments.
async fn cluster(scene: &Scene) -> Result<BTreeMap<String, Option<String>>> {
    let mut all = revisions(scene).await?;
    all.retain(|name, _| name.starts_with("Deployment ") || name.starts_with("Service "));
    Ok(all)
}

/// An error when the Service or a Deployment was written, made or deleted since.
async fn untouched(scene: &Scene, before: &BTreeMap<String, Option<String>>) -> Result<()> {
    let now = cluster(scene).await?;
    ensure!(*before == now, "what serves was written: {before:#?}\n{now:#?}");
    Ok(())
}

/// How many requests of a method, to a path that contains `part`, the operator sent to the registry so far.
fn asked(scene: &Scene, method: &Method, part: &str) -> usize {
    let is_it = |exchange: &Exchange| {
        exchange.server == Server::Registry && exchange.method == *method && exchange.path.contains(part)
    };
    scene.journal.exchanges().iter().filter(|exchange| is_it(exchange)).count()
}

/// How often the operator has tried to set an alias so far.
fn alias_writes(scene: &Scene) -> usize {
    asked(scene, &Method::POST, "registered-models/alias")
}
