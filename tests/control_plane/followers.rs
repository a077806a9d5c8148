//! What follows the newest, the best or the highest version; the alias in MLflow comes after traffic.

use anyhow::{Result, ensure};
use laurel::api::{
    ModelAlias,
    condition::Reason,
    model_alias::{Cause, Outcome},
};
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::{never_ready, ready_again, selected},
    support::alias::{is_ready, message, status, version},
};

/// Waits until a version serves and the alias says so, in a state seen since a moment.
async fn chosen(fixture: &Fixture, since: Instant, wanted: &str) -> Result<()> {
    let it = |malias: &ModelAlias| is_ready(malias, 1) && version(malias) == wanted;
    fixture.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, it).await?;
    ensure!(selected(fixture).await? == wanted, "the Service is not on version {wanted}");
    fixture.until_named("champion", Some(wanted)).await
}

#[test]
fn the_newest_version_is_followed() {
    run("follow-latest", async |fixture| {
        fixture.registered(0).await?;
        let change = fixture.desired("follow: {latest: {}}").await?;
        let waits = fixture.champion.reason(change, Reason::NoCandidate, PATIENCE).await?;
        ensure!(message(&waits.object).contains("register one"), "{}", message(&waits.object));
        for wanted in ["1", "2"] {
            let registered = Instant::now();
            fixture.world.mlflow.register(&fixture.model).await?;
            chosen(fixture, registered, wanted).await?;
        }
        let newest = fixture.champion.last().map(|it| status(&it).history).unwrap_or_default();
        ensure!(newest.first().is_some_and(|entry| entry.cause == Cause::Follower), "{newest:?}");
        Ok(())
    });
}

#[test]
fn the_best_version_is_followed_and_never_one_without_a_value() {
    run("follow-best", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        fixture.registered(0).await?;
        for values in [&[("auc", 0.9)][..], &[("auc", f64::NAN)], &[], &[("auc", 0.8)]] {
            mlflow.register_run(&fixture.model, values).await?;
        }
        let asked = Instant::now();
        fixture.desired("follow: {best: {metric: auc}}").await?;
        chosen(fixture, asked, "1").await?;
        let better = Instant::now();
        let (_, run) = mlflow.register_run(&fixture.model, &[("auc", 0.97)]).await?;
        chosen(fixture, better, "5").await?;
        // A value that turns out to be worse is seen, too.
        let worse = Instant::now();
        mlflow.log_metric(&run, "auc", 0.1).await?;
        chosen(fixture, worse, "1").await
    });
}

#[test]
fn the_highest_semantic_version_in_the_range_is_followed() {
    run("follow-semver", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        fixture.registered(3).await?;
        for (number, semver) in [("1", "2.1.0"), ("2", "3.0.0"), ("3", "none")] {
            mlflow.set_version_tag((&fixture.model, number), "semver", semver).await?;
        }
        let asked = Instant::now();
        fixture.desired("follow: {semver: {tag: semver, range: '>=2.1 <3'}}").await?;
        chosen(fixture, asked, "1").await?;
        let tagged = Instant::now();
        mlflow.set_version_tag((&fixture.model, "3"), "semver", "v2.10.0").await?;
        chosen(fixture, tagged, "3").await?;
        let change = fixture.desired("follow: {semver: {tag: semver, range: '>=9'}}").await?;
        let none = fixture.champion.reason(change, Reason::NoCandidate, PATIENCE).await?;
        ensure!(message(&none.object).contains("3 have the tag"), "{}", message(&none.object));
        ensure!(selected(fixture).await? == "3", "traffic moved");
        Ok(())
    });
}

#[test]
fn promise_6_a_follower_waits_after_a_failed_version_until_its_choice_changes() {
    run("follow-holds", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        fixture.registered(1).await?;
        fixture.get("{follow: {latest: {}}, rollout: {progressDeadline: 3s}}").await?;
        never_ready(fixture, "2").await?;
        mlflow.register(&fixture.model).await?;
        let rejected = |it: &ModelAlias| {
            let history = status(it).history;
            history.first().is_some_and(|entry| entry.outcome == Outcome::Rejected)
        };
        fixture.champion.until("version 2 is rejected", PATIENCE, rejected).await?;
        ensure!(selected(fixture).await? == "1", "traffic moved");
        // Time itself is the subject: two polls.
        tokio::time::sleep(std::time::Duration::from_secs(11)).await;
        ensure!(selected(fixture).await? == "1", "it was tried again by itself");
        ready_again(fixture, "2").await?;
        let asked = Instant::now();
        fixture.retry("please").await?;
        chosen(fixture, asked, "2").await
    });
}
