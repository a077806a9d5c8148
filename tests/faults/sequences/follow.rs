//! What was rolled back is not rolled forward to again, whatever happens meanwhile, until somebody asks.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use tokio::time::{Instant, sleep};

use super::{reached, rest, settle};
use crate::{
    kubernetes::{PATIENCE, fate, play_all, scene},
    scene::Scene,
    simulated::look::{selected, until_sizes},
    support::alias::{condition, has, is_ready, status, version},
    wire::{Rule, Violation},
};

const FOLLOW: &str = "follow: {registry: {}}";

async fn follows(scene: &Scene, since: Instant, wanted: &str) -> Result<()> {
    let met = |it: &ModelAlias| is_ready(it, 1) && version(it) == wanted;
    scene.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, met).await?;
    ensure!(selected(scene).await? == wanted, "traffic is not on version {wanted}");
    Ok(())
}

/// Two polls of the registry: nothing moves.
async fn stays(scene: &Scene, named: &str) -> Result<()> {
    sleep(Duration::from_secs(11)).await; // Time itself is the subject: two polls.
    ensure!(selected(scene).await? == "1", "traffic was rolled forward");
    ensure!(scene.named("champion").await?.as_deref() == Some(named), "the alias was moved");
    let last = status(&scene.champion.last().context("the ModelAlias is gone")?);
    ensure!(last.version.is_some_and(|version| version.to_string() == "1"), "{last:?}");
    Ok(())
}

/// Version 2 was followed to, and then lost all its pods: version 1 took over. Then the operator is started
/// anew, the registry fails and goes away, and the settings stay as they are: version 2 is not tried again
/// until somebody asks.
async fn not_forward(scene: &Scene, drift: &str) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.move_alias("1").await?;
    scene.get(&format!("{FOLLOW}\n{drift}")).await?;
    let moved = Instant::now();
    scene.move_alias("2").await?;
    follows(scene, moved, "2").await?;
    settle(scene).await?;

    let failed = Instant::now();
    fate(scene, "2", Some("crash-loop"), 2).await?;
    let fell_back = |it: &ModelAlias| version(it) == "1";
    scene.champion.until_since(failed, "version 1 takes over", PATIENCE, fell_back).await?;
    let report = drift.contains("Report");
    let named = if report { "2" } else { "1" };
    let synced = |it: &ModelAlias| {
        let wanted = if report { "AliasDrifted" } else { "AliasPutBack" };
        condition(it, ConditionType::RegistrySynced).is_some_and(|synced| synced.reason == wanted)
    };
    scene.champion.until_since(failed, "what became of the alias", PATIENCE, synced).await?;
    scene.until_named("champion", Some(named)).await?;
    until_sizes(scene, [("1", 2), ("2", 0)]).await?;

    scene.operator.restart().await?;
    stays(scene, named).await?;
    let failing = scene.registry.place(Rule::always(Violation::status(503)));
    sleep(Duration::from_secs(6)).await; // Time itself is the subject: a poll.
    scene.registry.lift(&failing);
    scene.registry.refuse();
    scene.operator.restart().await?;
    sleep(Duration::from_secs(6)).await; // As above.
    scene.registry.accept().await?;
    stays(scene, named).await?;
    rest(scene).await?;

    let asked = Instant::now();
    if report {
        scene.retry("it was the node").await?;
    } else {
        scene.move_alias("2").await?;
    }
    follows(scene, asked, "2").await?;
    scene.until_named("champion", Some("2")).await
}

/// Somebody rolls back by `spec.version`, and follows the registry again later: the alias was moved back, so
/// it stays.
async fn by_hand(scene: &Scene) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.move_alias("1").await?;
    scene.get(FOLLOW).await?;
    let moved = Instant::now();
    scene.move_alias("2").await?;
    follows(scene, moved, "2").await?;
    let back = scene.desired("version: '1'").await?;
    reached(scene, back, "1").await?;
    let again = scene.desired(FOLLOW).await?;
    reached(scene, again, "1").await?;
    stays(scene, "1").await?;
    rest(scene).await
}

/// The same in one moment: the way back and the way forward are wished for before the registry could be
/// written.
async fn by_hand_in_haste(scene: &Scene) -> Result<()> {
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.move_alias("1").await?;
    scene.get(FOLLOW).await?;
    let moved = Instant::now();
    scene.move_alias("2").await?;
    follows(scene, moved, "2").await?;
    settle(scene).await?;
    let held = scene.registry.place(Rule::on(
        hyper::Method::POST,
        "registered-models/alias",
        Violation::status(503),
    ));
    let back = scene.desired("version: '1'").await?;
    scene.champion.until_since(back.accepted, "version 1", PATIENCE, |it| version(it) == "1").await?;
    // The alias still names version 2, and now it decides again: that is a wish, too.
    let again = scene.desired(FOLLOW).await?;
    scene.registry.lift(&held);
    let met = |it: &ModelAlias| is_ready(it, again.generation);
    scene.champion.until_since(again.accepted, "Ready", PATIENCE, met).await?;
    rest(scene).await?;
    let named = scene.named("champion").await?;
    ensure!(named == Some(selected(scene).await?), "the alias names {named:?}, and something else serves");
    Ok(())
}

/// A version that was rejected with `spec.version` stays so when the registry, which names it, decides.
async fn rejected_stays_rejected(scene: &Scene) -> Result<()> {
    let bad = "serving: {template: {metadata: {annotations: {kwok.laurel.test/fate: never-ready}}}}\n\
               rollout: {progressDeadline: 3s}\ndrift: Report";
    scene.operator.start().await?;
    scene.registered(2).await?;
    scene.get("version: '1'").await?;
    scene.until_named("champion", Some("1")).await?;
    let change = scene.desired(&format!("version: '2'\n{bad}")).await?;
    scene.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
    let moved = Instant::now();
    scene.move_alias("2").await?;
    // Seen by now: what is moved after the registry decides is asked for anew.
    let drifted = |it: &ModelAlias| {
        condition(it, ConditionType::RegistrySynced).is_some_and(|synced| synced.reason == "AliasDrifted")
    };
    scene.champion.until_since(moved, "AliasDrifted", PATIENCE, drifted).await?;
    let began = Instant::now();
    let change = scene.desired(&format!("{FOLLOW}\n{bad}")).await?;
    let refused = |it: &ModelAlias| {
        status(it).observed_generation >= Some(change.generation) && has(it, Reason::ProgressDeadlineExceeded)
    };
    scene.champion.until_since(began, "still rejected", PATIENCE, refused).await?;
    stays(scene, "2").await?;
    ensure!(scene.pods.started_since(began).is_empty(), "it was tried again");
    rest(scene).await
}

#[test]
fn promise_6_what_was_rolled_back_is_not_rolled_forward_to_whatever_happens_meanwhile() {
    play_all([
        scene("f-correct", async |scene| not_forward(scene, "drift: Correct").await),
        scene("f-report", async |scene| not_forward(scene, "drift: Report").await),
        scene("f-by-hand", async |scene| by_hand(scene).await),
        scene("f-in-haste", async |scene| by_hand_in_haste(scene).await),
        scene("f-rejected", async |scene| rejected_stays_rejected(scene).await),
    ]);
}
