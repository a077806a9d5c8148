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
    fixture::Fixture,
    kubernetes::{PATIENCE, case, fate, run_all},
    simulated::look::{selected, until_sizes},
    support::alias::{condition, has, is_ready, status, version},
    wire::{Rule, Violation},
};

const FOLLOW: &str = "follow: {registry: {}}";

async fn follows(fixture: &Fixture, since: Instant, wanted: &str) -> Result<()> {
    let met = |it: &ModelAlias| is_ready(it, 1) && version(it) == wanted;
    fixture.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, met).await?;
    ensure!(selected(fixture).await? == wanted, "traffic is not on version {wanted}");
    Ok(())
}

/// Two polls of the registry: nothing moves.
async fn stays(fixture: &Fixture, named: &str) -> Result<()> {
    sleep(Duration::from_secs(11)).await; // Time itself is the subject: two polls.
    ensure!(selected(fixture).await? == "1", "traffic was rolled forward");
    ensure!(fixture.named("champion").await?.as_deref() == Some(named), "the alias was moved");
    let last = status(&fixture.champion.last().context("the ModelAlias is gone")?);
    ensure!(last.version.is_some_and(|version| version.to_string() == "1"), "{last:?}");
    Ok(())
}

/// Version 2 was followed to, and then lost all its pods: version 1 took over. Then the operator is started
/// anew, the registry fails and goes away, and the settings stay as they are: version 2 is not tried again
/// until somebody asks.
async fn not_forward(fixture: &Fixture, drift: &str) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.move_alias("1").await?;
    fixture.get(&format!("{FOLLOW}\n{drift}")).await?;
    let moved = Instant::now();
    fixture.move_alias("2").await?;
    follows(fixture, moved, "2").await?;
    settle(fixture).await?;

    let failed = Instant::now();
    fate(fixture, "2", Some("crash-loop"), 2).await?;
    let fell_back = |it: &ModelAlias| version(it) == "1";
    fixture.champion.until_since(failed, "version 1 takes over", PATIENCE, fell_back).await?;
    let report = drift.contains("Report");
    let named = if report { "2" } else { "1" };
    let synced = |it: &ModelAlias| {
        let wanted = if report { "AliasDrifted" } else { "AliasPutBack" };
        condition(it, ConditionType::RegistrySynced).is_some_and(|synced| synced.reason == wanted)
    };
    fixture.champion.until_since(failed, "what became of the alias", PATIENCE, synced).await?;
    fixture.until_named("champion", Some(named)).await?;
    until_sizes(fixture, [("1", 2), ("2", 0)]).await?;

    fixture.operator.restart().await?;
    stays(fixture, named).await?;
    let failing = fixture.registry.place(Rule::always(Violation::status(503)));
    sleep(Duration::from_secs(6)).await; // Time itself is the subject: a poll.
    fixture.registry.lift(&failing);
    fixture.registry.refuse();
    fixture.operator.restart().await?;
    sleep(Duration::from_secs(6)).await; // As above.
    fixture.registry.accept().await?;
    stays(fixture, named).await?;
    rest(fixture).await?;

    let asked = Instant::now();
    if report {
        fixture.retry("it was the node").await?;
    } else {
        fixture.move_alias("2").await?;
    }
    follows(fixture, asked, "2").await?;
    fixture.until_named("champion", Some("2")).await
}

/// Somebody rolls back by `spec.version`, and follows the registry again later: the alias was moved back, so
/// it stays.
async fn by_hand(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.move_alias("1").await?;
    fixture.get(FOLLOW).await?;
    let moved = Instant::now();
    fixture.move_alias("2").await?;
    follows(fixture, moved, "2").await?;
    let back = fixture.desired("version: '1'").await?;
    reached(fixture, back, "1").await?;
    let again = fixture.desired(FOLLOW).await?;
    reached(fixture, again, "1").await?;
    stays(fixture, "1").await?;
    rest(fixture).await
}

/// The same in one moment: the way back and the way forward are wished for before the registry could be
/// written.
async fn by_hand_in_haste(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.move_alias("1").await?;
    fixture.get(FOLLOW).await?;
    let moved = Instant::now();
    fixture.move_alias("2").await?;
    follows(fixture, moved, "2").await?;
    settle(fixture).await?;
    let held = fixture.registry.place(Rule::on(
        hyper::Method::POST,
        "registered-models/alias",
        Violation::status(503),
    ));
    let back = fixture.desired("version: '1'").await?;
    fixture.champion.until_since(back.accepted, "version 1", PATIENCE, |it| version(it) == "1").await?;
    // The alias still names version 2, and now it decides again: that is a wish, too.
    let again = fixture.desired(FOLLOW).await?;
    fixture.registry.lift(&held);
    let met = |it: &ModelAlias| is_ready(it, again.generation);
    fixture.champion.until_since(again.accepted, "Ready", PATIENCE, met).await?;
    rest(fixture).await?;
    let named = fixture.named("champion").await?;
    ensure!(named == Some(selected(fixture).await?), "the alias names {named:?}, and something else serves");
    Ok(())
}

/// A version that was rejected with `spec.version` stays so when the registry, which names it, decides.
async fn rejected_stays_rejected(fixture: &Fixture) -> Result<()> {
    let bad = "serving: {template: {metadata: {annotations: {kwok.laurel.test/fate: never-ready}}}}\n\
               rollout: {progressDeadline: 3s}\ndrift: Report";
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    let change = fixture.desired(&format!("version: '2'\n{bad}")).await?;
    fixture.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
    let moved = Instant::now();
    fixture.move_alias("2").await?;
    // Seen by now: what is moved after the registry decides is asked for anew.
    let drifted = |it: &ModelAlias| {
        condition(it, ConditionType::RegistrySynced).is_some_and(|synced| synced.reason == "AliasDrifted")
    };
    fixture.champion.until_since(moved, "AliasDrifted", PATIENCE, drifted).await?;
    let began = Instant::now();
    let change = fixture.desired(&format!("{FOLLOW}\n{bad}")).await?;
    let refused = |it: &ModelAlias| {
        status(it).observed_generation >= Some(change.generation) && has(it, Reason::ProgressDeadlineExceeded)
    };
    fixture.champion.until_since(began, "still rejected", PATIENCE, refused).await?;
    stays(fixture, "2").await?;
    ensure!(fixture.pods.started_since(began).is_empty(), "it was tried again");
    rest(fixture).await
}

#[test]
fn promise_6_a_version_that_was_rolled_back_is_not_rolled_out_again_unless_requested() {
    run_all([
        case("f-correct", async |fixture| not_forward(fixture, "drift: Correct").await),
        case("f-report", async |fixture| not_forward(fixture, "drift: Report").await),
        case("f-by-hand", async |fixture| by_hand(fixture).await),
        case("f-in-haste", async |fixture| by_hand_in_haste(fixture).await),
        case("f-rejected", async |fixture| rejected_stays_rejected(fixture).await),
    ]);
}
