//! The alias in MLflow decides: what is moved there is followed, and what fails is put back.

use std::time::Duration;

use anyhow::{Result, ensure};
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::{never_ready, ready_again, selected, until_sizes},
    support::alias::{condition, is_ready, message, status, version},
};

/// A version that never becomes ready is given up soon.
const FOLLOW: &str = "
follow: {registry: {}}
rollout: {progressDeadline: 3s}
";

/// Waits until the wish is met with a version, in a state seen since a moment.
async fn follows(fixture: &Fixture, since: Instant, wanted: &str) -> Result<()> {
    let it = |malias: &ModelAlias| is_ready(malias, 1) && version(malias) == wanted;
    fixture.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, it).await?;
    ensure!(selected(fixture).await? == wanted, "the Service is not on version {wanted}");
    Ok(())
}

#[test]
fn an_alias_moved_in_mlflow_is_followed() {
    run("follow", async |fixture| {
        fixture.registered(3).await?;
        let change = fixture.desired(FOLLOW).await?;
        let waits = fixture.champion.reason(change, Reason::AliasNotFound, PATIENCE).await?;
        ensure!(
            message(&waits.object).contains("set it there on the version to serve"),
            "{:?}",
            waits.object
        );
        for wanted in ["1", "3", "2"] {
            let moved = Instant::now();
            fixture.world.mlflow.set_alias(&fixture.model, "champion", wanted).await?;
            follows(fixture, moved, wanted).await?;
        }
        ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "the alias was moved back");
        Ok(())
    });
}

#[test]
fn promise_6_an_alias_on_a_failed_version_is_put_back_and_retried_only_when_set_again() {
    run("put-back", async |fixture| {
        fixture.registered(2).await?;
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "1").await?;
        fixture.get(FOLLOW).await?;
        never_ready(fixture, "2").await?;
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        let put_back = |it: &ModelAlias| {
            let synced = condition(it, ConditionType::RegistrySynced);
            synced.is_some_and(|synced| synced.reason == "AliasPutBack" && synced.status == "True")
        };
        let seen = fixture.champion.until("AliasPutBack", PATIENCE, put_back).await?;
        fixture.until_named("champion", Some("1")).await?;
        ensure!(selected(fixture).await? == "1", "traffic moved");
        until_sizes(fixture, [("1", 2), ("2", 0)]).await?;

        let rejected = rejected_at(&seen.object);
        tokio::time::sleep(Duration::from_secs(11)).await; // Time itself is the subject: two polls.
        ensure!(
            fixture.champion.last().as_ref().and_then(rejected_at) == rejected,
            "it was tried again by itself"
        );
        ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias was moved by itself");

        let asked = Instant::now();
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        let again = |it: &ModelAlias| rejected_at(it) > rejected;
        fixture.champion.until_since(asked, "tried and rejected again", PATIENCE, again).await?;
        fixture.until_named("champion", Some("1")).await
    });
}

fn rejected_at(malias: &ModelAlias) -> Option<jiff::Timestamp> {
    status(malias).rejected.first().map(|rejection| rejection.at)
}

#[test]
fn with_drift_report_the_alias_stays_on_a_failed_version_until_a_retry() {
    run("report", async |fixture| {
        fixture.registered(2).await?;
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "1").await?;
        let change = fixture.get(&format!("{FOLLOW}drift: Report\n")).await?;
        never_ready(fixture, "2").await?;
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        let failed = fixture.champion.reason(change, Reason::ProgressDeadlineExceeded, PATIENCE).await?;
        ensure!(message(&failed.object).contains("version 2"), "{}", message(&failed.object));
        let drifted = |it: &ModelAlias| {
            condition(it, ConditionType::RegistrySynced).is_some_and(|synced| synced.reason == "AliasDrifted")
        };
        fixture.champion.until("AliasDrifted", PATIENCE, drifted).await?;
        ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "the alias was put back");
        ensure!(selected(fixture).await? == "1", "traffic moved");
        until_sizes(fixture, [("1", 2), ("2", 0)]).await?;

        ready_again(fixture, "2").await?;
        let asked = Instant::now();
        fixture.retry("please").await?;
        follows(fixture, asked, "2").await
    });
}

#[test]
fn promise_4_an_alias_deleted_or_moved_by_hand_is_put_back_without_affecting_serving() {
    run("drift", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.until_named("champion", Some("1")).await?;
        let before = fixture.audit.verdict().await?;
        fixture.world.mlflow.delete_alias(&fixture.model, "champion").await?;
        fixture.until_named("champion", Some("1")).await?;
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        fixture.until_named("champion", Some("1")).await?;
        ensure!(fixture.audit.verdict().await? == before, "the Service was written");

        let change = fixture.desired("{version: '1', drift: Report}").await?;
        fixture.champion.ready(change, PATIENCE).await?;
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        let drifted = |it: &ModelAlias| {
            condition(it, ConditionType::RegistrySynced).is_some_and(|synced| synced.reason == "AliasDrifted")
        };
        fixture.champion.until("AliasDrifted", PATIENCE, drifted).await?;
        ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "drift: Report moved the alias");
        Ok(())
    });
}

#[test]
fn a_followed_alias_that_is_deleted_is_set_to_the_serving_version() {
    run("follow-deleted", async |fixture| {
        fixture.registered(2).await?;
        fixture.world.mlflow.set_alias(&fixture.model, "champion", "2").await?;
        fixture.get(FOLLOW).await?;
        fixture.world.mlflow.delete_alias(&fixture.model, "champion").await?;
        fixture.until_named("champion", Some("2")).await?;
        ensure!(selected(fixture).await? == "2", "traffic moved");
        let last = |it: &ModelAlias| is_ready(it, 1) && version(it) == "2";
        fixture
            .champion
            .until_since(Instant::now() - Duration::from_secs(1), "Ready", PATIENCE, last)
            .await
            .map(drop)
    });
}
