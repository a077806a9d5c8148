//! Promotion rules: what holds a version back, and what admits it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    simulated::look::{revisions, selected, settled, sizes},
    support::alias::{condition, holds, is_ready, message, status, version},
};

/// Creates a model without versions in the registry, with these rules.
async fn ruled(fixture: &Fixture, promotion: &str) -> Result<()> {
    fixture.world.mlflow.create_model(&fixture.model).await?;
    fixture.describe_model(&format!("promotion: [{{name: rules, aliases: [champion], {promotion}}}]")).await
}

fn gates(malias: &ModelAlias) -> Option<Condition> {
    condition(malias, ConditionType::GatesPassed)
}

/// Waits until the rules hold the desired version back with this message.
async fn held_back(fixture: &Fixture, since: Instant, words: &str) -> Result<()> {
    let is_it = |malias: &ModelAlias| {
        let reported =
            gates(malias).is_some_and(|gates| gates.status == "False" && gates.message.contains(words));
        reported && message(malias).contains("spec.promotion") && holds(malias, ConditionType::Stalled)
    };
    fixture.champion.until_since(since, &format!("GatesFailed: {words}"), PATIENCE, is_it).await.map(drop)
}

/// Waits until a version serves, in a state seen since a given time.
async fn serves(fixture: &Fixture, since: Instant, wanted: &str) -> Result<()> {
    let it = |malias: &ModelAlias| is_ready(malias, 1) && version(malias) == wanted;
    fixture.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, it).await?;
    ensure!(selected(fixture).await? == wanted, "the Service is not on version {wanted}");
    Ok(())
}

#[test]
fn a_version_waits_for_its_metric_and_continues_when_it_is_logged() {
    run("gate-metric", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        ruled(fixture, "metrics: [{name: auc, min: 0.9}]").await?;
        mlflow.register_run(&fixture.model, &[("auc", 0.95)]).await?;
        let (_, run) = mlflow.register_run(&fixture.model, &[]).await?;
        fixture.get("version: '1'").await?;
        let reported = gates(&fixture.champion.last().context("it is gone")?).context("no GatesPassed")?;
        ensure!(
            reported.status == "True" && reported.message.contains("metric auc at least 0.9: 0.95"),
            "{reported:?}"
        );
        fixture.reported(Reason::GatesPassed).await?;

        let asked = Instant::now();
        fixture.desired("version: '2'").await?;
        held_back(fixture, asked, "its run has no such metric").await?;
        fixture.reported(Reason::GatesFailed).await?;
        mlflow.log_metric(&run, "auc", f64::NAN).await?;
        held_back(fixture, asked, "NaN").await?;
        mlflow.log_metric(&run, "auc", 0.7).await?;
        held_back(fixture, asked, "metric auc at least 0.9: 0.7").await?;
        ensure!(selected(fixture).await? == "1", "traffic moved");
        ensure!(sizes(fixture).await?.len() == 1, "pods were started for a version that is held back");
        fixture.until_named("champion", Some("1")).await?;

        let logged = Instant::now();
        mlflow.log_metric(&run, "auc", 0.93).await?;
        serves(fixture, logged, "2").await?;
        println!("  admitted and serving {:?} after the metric was logged", logged.elapsed());
        fixture.until_named("champion", Some("2")).await
    });
}

#[test]
fn a_version_is_approved_by_a_tag_and_a_description_in_mlflow() {
    run("gate-tag", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        ruled(fixture, "tags: {validated: 'true'}, description: Required").await?;
        mlflow.register(&fixture.model).await?;
        let first = (fixture.model.as_str(), "1");
        let asked = Instant::now();
        fixture.desired("version: '1'").await?;
        held_back(fixture, asked, "tag validated = \"true\": not set").await?;
        mlflow.set_version_tag(first, "validated", "no").await?;
        held_back(fixture, asked, "tag validated = \"true\": \"no\"; a description: none").await?;
        mlflow.set_version_tag(first, "validated", "true").await?;
        held_back(fixture, asked, "failed: a description: none | passed: tag validated").await?;
        let approved = Instant::now();
        mlflow.describe_version(first, "Trained on the data of May").await?;
        serves(fixture, approved, "1").await
    });
}

#[test]
fn a_version_whose_inputs_drifted_is_reported_by_the_tags_of_a_job() {
    run("gate-drift", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        ruled(fixture, "live: {checks: [{name: failures, failures: {}}], drift: {maxShare: 0.3}}").await?;
        mlflow.register(&fixture.model).await?;
        mlflow.register(&fixture.model).await?;
        let now = jiff::Timestamp::now().to_string();
        for (key, value) in [("share", "0.5"), ("rows", "5231"), ("columns", "amount,country"), ("at", &now)]
        {
            mlflow.set_version_tag((&fixture.model, "1"), &format!("laurel.drift.{key}"), value).await?;
        }
        let asked = Instant::now();
        fixture.get("version: '1'").await?;
        let reported = |reason: &'static str, words: &'static str| {
            move |malias: &ModelAlias| {
                condition(malias, ConditionType::InputsAsTrained)
                    .is_some_and(|it| it.reason == reason && it.message.contains(words))
            }
        };
        let drifted = reported("InputsDrifted", "in 5231 rows");
        fixture.champion.until_since(asked, "InputsDrifted", PATIENCE, drifted).await?;
        fixture.reported(Reason::InputsDrifted).await?;
        // Nobody has compared the inputs of the next one.
        let asked = Instant::now();
        fixture.get("version: '2'").await?;
        let unknown = reported("DriftUnknown", "version 2: its inputs have not been compared");
        fixture.champion.until_since(asked, "DriftUnknown", PATIENCE, unknown).await?;
        ensure!(selected(fixture).await? == "2", "it holds nothing back");
        Ok(())
    });
}

#[test]
fn a_version_must_improve_on_the_champion_and_be_challenger() {
    run("gate-improves", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        ruled(
            fixture,
            "improves: {metric: cost, over: champion, by: 5, goal: Minimize}, requiredAlias: challenger",
        )
        .await?;
        for cost in [100.0, 98.0, 90.0] {
            mlflow.register_run(&fixture.model, &[("cost", cost)]).await?;
        }
        mlflow.set_alias(&fixture.model, "challenger", "1").await?;
        fixture.get("version: '1'").await?;
        fixture.until_named("champion", Some("1")).await?;
        let asked = Instant::now();
        mlflow.set_alias(&fixture.model, "challenger", "2").await?;
        fixture.desired("version: '2'").await?;
        held_back(fixture, asked, "98, and 100 of version 1").await?;
        let asked = Instant::now();
        fixture.desired("version: '3'").await?;
        held_back(fixture, asked, "alias challenger: it names version 2").await?;
        let challenged = Instant::now();
        mlflow.set_alias(&fixture.model, "challenger", "3").await?;
        serves(fixture, challenged, "3").await
    });
}

#[test]
fn promise_5_a_rollback_is_not_held_back_by_rules_that_the_version_does_not_meet() {
    run("gate-rollback", async |fixture| {
        fixture.registered(2).await?;
        fixture.get("version: '1'").await?;
        fixture.get("version: '2'").await?;
        fixture
            .describe_model(
                "promotion: [{name: quality, aliases: [champion], metrics: [{name: auc, min: 0.9}]}]",
            )
            .await?;
        let before = Instant::now();
        let change = fixture.desired("version: '1'").await?;
        fixture.champion.ready(change, PATIENCE).await?;
        ensure!(selected(fixture).await? == "1", "the Service is not back on version 1");
        ensure!(fixture.pods.started_since(before).is_empty(), "a rollback started pods");
        let reported = gates(&fixture.champion.last().context("it is gone")?).context("no GatesPassed")?;
        ensure!(reported.status == "True" && reported.reason == "ServedBefore", "{reported:?}");
        Ok(())
    });
}

#[test]
fn an_alias_in_mlflow_on_a_version_that_the_rules_reject_is_put_back() {
    run("gate-follow", async |fixture| {
        let mlflow = &fixture.world.mlflow;
        ruled(fixture, "tags: {validated: 'true'}").await?;
        for number in ["1", "2"] {
            mlflow.register(&fixture.model).await?;
            let value = if number == "1" { "true" } else { "not yet" };
            mlflow.set_version_tag((&fixture.model, number), "validated", value).await?;
        }
        mlflow.set_alias(&fixture.model, "champion", "1").await?;
        fixture.get("follow: {registry: {}}").await?;
        mlflow.set_alias(&fixture.model, "champion", "2").await?;
        let put_back = |it: &ModelAlias| {
            condition(it, ConditionType::RegistrySynced).is_some_and(|synced| {
                synced.reason == "AliasPutBack" && synced.message.contains("GatesFailed")
            })
        };
        let seen = fixture.champion.until("AliasPutBack", PATIENCE, put_back).await?;
        fixture.until_named("champion", Some("1")).await?;
        ensure!(selected(fixture).await? == "1", "traffic moved");
        let rejected = status(&seen.object).rejected;
        ensure!(rejected.first().is_some_and(|it| it.reason == Reason::GatesFailed), "{rejected:?}");
        mlflow.set_version_tag((&fixture.model, "2"), "validated", "true").await?;
        let again = Instant::now();
        mlflow.set_alias(&fixture.model, "champion", "2").await?;
        serves(fixture, again, "2").await
    });
}

#[test]
fn promise_7_nothing_is_written_while_a_version_waits_for_its_rules() {
    run("gate-quiet", async |fixture| {
        let _no_restart = fixture.world.keeps_running.lock().await;
        let mlflow = &fixture.world.mlflow;
        ruled(fixture, "metrics: [{name: auc, min: 0.9}]").await?;
        mlflow.register_run(&fixture.model, &[("auc", 0.95)]).await?;
        mlflow.register_run(&fixture.model, &[("auc", 0.5)]).await?;
        fixture.get("version: '1'").await?;
        let asked = Instant::now();
        fixture.desired("version: '2'").await?;
        held_back(fixture, asked, "0.5").await?;
        let settled = settled(fixture).await?;
        tokio::time::sleep(Duration::from_secs(11)).await; // Time is the subject here: two polls.
        let later = revisions(fixture).await?;
        ensure!(settled == later, "something was written at rest:\n{settled:#?}\n{later:#?}");
        Ok(())
    });
}
