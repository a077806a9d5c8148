//! Watches break, hang before their first word, go silent, or end with 410 Gone: what was missed is caught up with.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::api::DeleteParams;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{PATIENCE, expired, play_all, scene};
use crate::{
    scene::{Scene, play},
    simulated::look::{selected, sizes},
    wire::{Exchange, Rule, Violation},
};

/// The longest that a watch may be out of date without anybody knowing, and a busy machine.
const NOTICED: Duration = Duration::from_mins(1);

/// Breaks off all watches, so that each is opened anew.
async fn reopen(scene: &Scene) -> Result<()> {
    let before = scene.journal.exchanges().len();
    scene.kubernetes.drop_streams();
    for kind in [
        "/deployments?",
        "/services?",
        "/pods?",
        "/endpointslices?",
        "/poddisruptionbudgets?",
        "/modelaliases?",
    ] {
        let again = |it: &Exchange| {
            it.number > before && it.is_watch() && it.path.contains(kind) && it.ended.is_some()
        };
        scene.journal.until(&format!("the watch {kind} again"), PATIENCE, again).await?;
    }
    Ok(())
}

#[test]
fn promise_7_watches_that_break_again_and_again_in_mid_promotion_lose_nothing() {
    play("v-break", async |scene| {
        scene.registered(3).await?;
        scene.get("version: '1'").await?;
        for version in ["2", "3", "1"] {
            let change = scene.desired(&format!("version: '{version}'")).await?;
            for _ in 0..8 {
                scene.kubernetes.drop_streams();
                sleep(Duration::from_millis(120)).await; // Time itself is the subject: another moment each time.
            }
            scene.champion.ready(change, PATIENCE).await?;
            ensure!(selected(scene).await? == version, "the Service is not on version {version}");
        }
        scene.until_named("champion", Some("1")).await?;
        scene.until_quiet().await
    });
}

/// While nothing is heard of the cluster, it moves on; then the watches end with 410 Gone.
async fn gone(scene: &Scene) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(3).await?;
    scene.get("version: '1'").await?;
    scene.get("version: '2'").await?;
    scene.until_named("champion", Some("2")).await?;
    let silence = scene.kubernetes.place(Rule::when(Exchange::is_watch, Violation::Silence));
    reopen(scene).await?;
    let unseen = Instant::now();
    scene.api::<Service>().delete("champion", &DeleteParams::default()).await?;
    scene.api::<Deployment>().delete("champion-v1", &DeleteParams::background()).await?;
    scene.edit::<Deployment>("champion-v2", json!({ "spec": { "replicas": 3 } })).await?;
    let change = scene.desired("version: '3'").await?;
    sleep(Duration::from_secs(2)).await; // Time itself is the subject: nothing is heard.
    ensure!(selected(scene).await.is_err(), "the Service is back: the silence was none");

    scene.kubernetes.lift(&silence);
    scene.kubernetes.place(Rule::when(Exchange::is_watch, expired()).times(7));
    scene.kubernetes.drop_streams();
    scene.audit.service_since(unseen, "the Service again", |_| true).await?;
    scene.champion.ready(change, PATIENCE).await?;
    ensure!(selected(scene).await? == "3", "traffic did not move");
    // Version 1 is gone for good. Version 2 is warm at the size that it had when traffic left it: what somebody gave it, or, where
    // that was seen before the new wish, the size it should have.
    let sizes = sizes(scene).await?;
    ensure!(sizes.keys().eq(["2", "3"]) && sizes["3"] == 2 && matches!(sizes["2"], 2 | 3), "{sizes:?}");
    scene.until_named("champion", Some("3")).await?;
    scene.until_quiet().await
}

/// One kind's watch is deaf: it hangs before it begins, or falls silent. A promotion needs it and waits no longer than until
/// that is noticed.
async fn deaf(scene: &Scene, kind: &'static str, violation: Violation) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.get("version: '1'").await?;
    scene.until_named("champion", Some("1")).await?;
    let once = scene.kubernetes.place(Rule::watches(kind, violation).times(1));
    scene.kubernetes.drop_streams();
    once.until_struck(1, PATIENCE).await?;
    let began = Instant::now();
    let change = scene.desired("{version: '2', rollout: {progressDeadline: 120s}}").await?;
    scene.champion.ready(change, NOTICED).await?;
    println!("  {kind} deaf: ready after {:?}", began.elapsed());
    ensure!(selected(scene).await? == "2", "traffic did not move");
    scene.until_named("champion", Some("2")).await?;
    scene.until_quiet().await
}

/// An operator that starts hears no answer to its first lists, or none of its watches says anything.
async fn deaf_from_the_start(scene: &Scene, rule: Rule, times: usize) -> Result<()> {
    scene.registered(1).await?;
    let placed = scene.kubernetes.place(rule);
    scene.operator.launch()?;
    placed.until_struck(times, PATIENCE).await?;
    scene.kubernetes.lift(&placed);
    let change = scene.desired("{version: '1', rollout: {progressDeadline: 120s}}").await?;
    scene.champion.ready(change, NOTICED).await?;
    scene.until_quiet().await
}

#[test]
fn promise_7_what_a_deaf_watch_missed_is_caught_up_with() {
    let deaf_ones = [
        ("silent", "/pods?", Violation::Silence),
        ("silent", "/modelaliases?", Violation::Silence),
        ("hang", "/deployments?", Violation::HangAnswer),
    ];
    let mut scenes = vec![
        scene("v-gone", async |scene| gone(scene).await),
        scene("v-start-lists", async |scene| {
            let lists = |exchange: &Exchange| !exchange.is_watch() && exchange.path.contains("limit=");
            deaf_from_the_start(scene, Rule::when(lists, Violation::HangAnswer), 7).await
        }),
        scene("v-start-watches", async |scene| {
            deaf_from_the_start(scene, Rule::when(Exchange::is_watch, Violation::Silence), 7).await
        }),
    ];
    for (how, kind, violation) in deaf_ones {
        let name = format!("v-{how}-{}", kind.trim_matches(['/', '?']));
        scenes.push(scene(name, async move |scene| deaf(scene, kind, violation).await));
    }
    play_all(scenes);
}
