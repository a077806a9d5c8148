//! What a view that is out of date must not lead to.
//!
//! No controller can know that a pod dies at the very moment at which traffic moves to it. What holds is that
//! traffic is moved by what the API server says at that moment, not by what a watch said some time ago.

use std::time::Duration;

use anyhow::{Result, ensure};
use laurel::api::condition::{ConditionType, Reason};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, calm, play_all, pods::fate, scene};
use crate::{
    scene::Scene,
    simulated::look::selected,
    support::alias::{holds, message},
    wire::{Rule, Violation},
};

/// So many of the two pods of the warm version are ready no more, and the watch of pods does not say so. Then
/// somebody rolls back to it.
async fn rolled_back_to_dead_pods(scene: &Scene, dead: usize) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.get("version: '1'").await?;
    scene.get("version: '2'").await?;
    scene.until_named("champion", Some("2")).await?;
    let silence = scene.kubernetes.place(Rule::watches("/pods?", Violation::Silence));
    scene.kubernetes.drop_streams();
    silence.until_struck(1, PATIENCE).await?;
    fate(scene, "1", Some("never-ready"), dead).await?;
    let began = Instant::now();
    let change = scene.desired("version: '1'").await?;
    let refused = scene.champion.reason(change, Reason::WaitingForPods, PATIENCE).await?.object;
    let seen = format!("{} and not 2 pods of version 1", 2 - dead);
    ensure!(message(&refused).contains(&seen), "{}", message(&refused));
    sleep(Duration::from_secs(3)).await; // Time itself is the subject: it is not tried again and again.
    calm(scene, began, |exchange| !exchange.is_watch())?;
    ensure!(selected(scene).await? == "2", "traffic moved to pods that are not ready");
    ensure!(holds(&scene.champion.last().unwrap(), ConditionType::Serving), "what serves goes on");
    scene.kubernetes.lift(&silence);
    scene.kubernetes.drop_streams();
    fate(scene, "1", None, dead).await?;
    scene.champion.ready(change, PATIENCE).await?;
    ensure!(selected(scene).await? == "1", "traffic did not move");
    scene.until_quiet().await
}

/// The pods of a new version become ready and unready again, and the watch of pods falls silent in between.
async fn promoted_to_dead_pods(scene: &Scene) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.get("version: '1'").await?;
    // Traffic cannot move: so that the version is seen ready first.
    let held = scene.kubernetes.place(Rule::on(
        hyper::Method::PATCH,
        "/services/champion?",
        Violation::kubernetes(500, "InternalError", "etcdserver: leader changed"),
    ));
    let change = scene.desired("version: '2'").await?;
    held.until_struck(1, PATIENCE).await?;
    let silence = scene.kubernetes.place(Rule::watches("/pods?", Violation::Silence));
    scene.kubernetes.drop_streams();
    silence.until_struck(1, PATIENCE).await?;
    fate(scene, "2", Some("never-ready"), 2).await?;
    scene.kubernetes.lift(&held);
    let refused = scene.champion.reason(change, Reason::WaitingForPods, PATIENCE).await?.object;
    ensure!(holds(&refused, ConditionType::Serving), "what serves goes on");
    sleep(Duration::from_secs(6)).await; // Time itself is the subject: it is tried again meanwhile.
    ensure!(selected(scene).await? == "1", "traffic moved to pods that are not ready");
    scene.kubernetes.lift(&silence);
    scene.kubernetes.drop_streams();
    fate(scene, "2", None, 2).await?;
    scene.champion.ready(change, PATIENCE).await?;
    ensure!(selected(scene).await? == "2", "traffic did not move");
    scene.until_quiet().await
}

#[test]
fn promise_1_traffic_moves_by_what_is_so_and_not_by_what_a_stale_watch_said() {
    let scenes = [
        scene("t-rollback", async |scene| rolled_back_to_dead_pods(scene, 2).await),
        scene("t-half", async |scene| rolled_back_to_dead_pods(scene, 1).await),
        scene("t-promotion", async |scene| promoted_to_dead_pods(scene).await),
    ];
    play_all(scenes);
}
