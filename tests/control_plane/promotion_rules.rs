//! Promotion rules: what holds a version back, and what lets it in.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use tokio::time::Instant;

use crate::{
    scene::{PATIENCE, Scene, play},
    simulated::look::{revisions, selected, settled, sizes},
    support::alias::{condition, holds, is_ready, message, status, version},
};

/// A model in the registry without versions, and these rules.
async fn ruled(scene: &Scene, promotion: &str) -> Result<()> {
    scene.world.mlflow.create_model(&scene.model).await?;
    scene.describe_model(&format!("promotion: [{{name: rules, aliases: [champion], {promotion}}}]")).await
}

fn gates(malias: &ModelAlias) -> Option<Condition> {
    condition(malias, ConditionType::GatesPassed)
}

/// Waits until the rules hold the wished version back with these words.
async fn held_back(scene: &Scene, since: Instant, words: &str) -> Result<()> {
    let is_it = |malias: &ModelAlias| {
        let reported =
            gates(malias).is_some_and(|gates| gates.status == "False" && gates.message.contains(words));
        reported && message(malias).contains("spec.promotion") && holds(malias, ConditionType::Stalled)
    };
    scene.champion.until_since(since, &format!("GatesFailed: {words}"), PATIENCE, is_it).await.map(drop)
}

/// Waits until a version serves, in a state seen since a moment.
async fn serves(scene: &Scene, since: Instant, wanted: &str) -> Result<()> {
    let it = |malias: &ModelAlias| is_ready(malias, 1) && version(malias) == wanted;
    scene.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, it).await?;
    ensure!(selected(scene).await? == wanted, "the Service is not on version {wanted}");
    Ok(())
}

#[test]
fn a_version_waits_for_its_metric_and_goes_on_when_it_is_logged() {
    play("gate-metric", async |scene| {
        let mlflow = &scene.world.mlflow;
        ruled(scene, "metrics: [{name: auc, min: 0.9}]").await?;
        mlflow.register_run(&scene.model, &[("auc", 0.95)]).await?;
        let (_, run) = mlflow.register_run(&scene.model, &[]).await?;
        scene.get("version: '1'").await?;
        let reported = gates(&scene.champion.last().context("it is gone")?).context("no GatesPassed")?;
        ensure!(
            reported.status == "True" && reported.message.contains("metric auc at least 0.9: 0.95"),
            "{reported:?}"
        );
        scene.reported(Reason::GatesPassed).await?;

        let asked = Instant::now();
        scene.desired("version: '2'").await?;
        held_back(scene, asked, "its run has no such metric").await?;
        scene.reported(Reason::GatesFailed).await?;
        mlflow.log_metric(&run, "auc", f64::NAN).await?;
        held_back(scene, asked, "NaN").await?;
        mlflow.log_metric(&run, "auc", 0.7).await?;
        held_back(scene, asked, "metric auc at least 0.9: 0.7").await?;
        ensure!(selected(scene).await? == "1", "traffic moved");
        ensure!(sizes(scene).await?.len() == 1, "pods were started for a version that is held back");
        scene.until_named("champion", Some("1")).await?;

        let logged = Instant::now();
        mlflow.log_metric(&run, "auc", 0.93).await?;
        serves(scene, logged, "2").await?;
        println!("  let in and serving {:?} after the metric was logged", logged.elapsed());
        scene.until_named("champion", Some("2")).await
    });
}

#[test]
fn a_version_is_approved_by_a_tag_and_a_description_in_mlflow() {
    play("gate-tag", async |scene| {
        let mlflow = &scene.world.mlflow;
        ruled(scene, "tags: {validated: 'true'}, description: Required").await?;
        mlflow.register(&scene.model).await?;
        let first = (scene.model.as_str(), "1");
        let asked = Instant::now();
        scene.desired("version: '1'").await?;
        held_back(scene, asked, "tag validated = \"true\": not set").await?;
        mlflow.set_version_tag(first, "validated", "no").await?;
        held_back(scene, asked, "tag validated = \"true\": \"no\"; a description: none").await?;
        mlflow.set_version_tag(first, "validated", "true").await?;
        held_back(scene, asked, "failed: a description: none | passed: tag validated").await?;
        let approved = Instant::now();
        mlflow.describe_version(first, "Trained on the data of May").await?;
        serves(scene, approved, "1").await
    });
}

#[test]
fn a_version_has_to_be_better_than_the_champion_and_to_have_been_challenger() {
    play("gate-improves", async |scene| {
        let mlflow = &scene.world.mlflow;
        ruled(
            scene,
            "improves: {metric: cost, over: champion, by: 5, goal: Minimize}, requiredAlias: challenger",
        )
        .await?;
        for cost in [100.0, 98.0, 90.0] {
            mlflow.register_run(&scene.model, &[("cost", cost)]).await?;
        }
        mlflow.set_alias(&scene.model, "challenger", "1").await?;
        scene.get("version: '1'").await?;
        scene.until_named("champion", Some("1")).await?;
        let asked = Instant::now();
        mlflow.set_alias(&scene.model, "challenger", "2").await?;
        scene.desired("version: '2'").await?;
        held_back(scene, asked, "98, and 100 of version 1").await?;
        let asked = Instant::now();
        scene.desired("version: '3'").await?;
        held_back(scene, asked, "alias challenger: it names version 2").await?;
        let challenged = Instant::now();
        mlflow.set_alias(&scene.model, "challenger", "3").await?;
        serves(scene, challenged, "3").await
    });
}

#[test]
fn promise_5_a_rollback_is_not_held_back_by_rules_that_the_version_does_not_meet() {
    play("gate-rollback", async |scene| {
        scene.registered(2).await?;
        scene.get("version: '1'").await?;
        scene.get("version: '2'").await?;
        scene
            .describe_model(
                "promotion: [{name: quality, aliases: [champion], metrics: [{name: auc, min: 0.9}]}]",
            )
            .await?;
        let before = Instant::now();
        let change = scene.desired("version: '1'").await?;
        scene.champion.ready(change, PATIENCE).await?;
        ensure!(selected(scene).await? == "1", "the Service is not back on version 1");
        ensure!(scene.pods.started_since(before).is_empty(), "a rollback started pods");
        let reported = gates(&scene.champion.last().context("it is gone")?).context("no GatesPassed")?;
        ensure!(reported.status == "True" && reported.reason == "ServedBefore", "{reported:?}");
        Ok(())
    });
}

#[test]
fn an_alias_in_mlflow_that_asks_for_what_the_rules_refuse_is_put_back() {
    play("gate-follow", async |scene| {
        let mlflow = &scene.world.mlflow;
        ruled(scene, "tags: {validated: 'true'}").await?;
        for number in ["1", "2"] {
            mlflow.register(&scene.model).await?;
            let value = if number == "1" { "true" } else { "not yet" };
            mlflow.set_version_tag((&scene.model, number), "validated", value).await?;
        }
        mlflow.set_alias(&scene.model, "champion", "1").await?;
        scene.get("follow: {registry: {}}").await?;
        mlflow.set_alias(&scene.model, "champion", "2").await?;
        let put_back = |it: &ModelAlias| {
            condition(it, ConditionType::RegistrySynced).is_some_and(|synced| {
                synced.reason == "AliasPutBack" && synced.message.contains("GatesFailed")
            })
        };
        let seen = scene.champion.until("AliasPutBack", PATIENCE, put_back).await?;
        scene.until_named("champion", Some("1")).await?;
        ensure!(selected(scene).await? == "1", "traffic moved");
        let rejected = status(&seen.object).rejected;
        ensure!(rejected.first().is_some_and(|it| it.reason == Reason::GatesFailed), "{rejected:?}");
        mlflow.set_version_tag((&scene.model, "2"), "validated", "true").await?;
        let again = Instant::now();
        mlflow.set_alias(&scene.model, "champion", "2").await?;
        serves(scene, again, "2").await
    });
}

#[test]
fn promise_7_while_a_version_waits_at_its_gates_nothing_is_written() {
    play("gate-quiet", async |scene| {
        let _no_restart = scene.world.keeps_running.lock().await;
        let mlflow = &scene.world.mlflow;
        ruled(scene, "metrics: [{name: auc, min: 0.9}]").await?;
        mlflow.register_run(&scene.model, &[("auc", 0.95)]).await?;
        mlflow.register_run(&scene.model, &[("auc", 0.5)]).await?;
        scene.get("version: '1'").await?;
        let asked = Instant::now();
        scene.desired("version: '2'").await?;
        held_back(scene, asked, "0.5").await?;
        let settled = settled(scene).await?;
        tokio::time::sleep(Duration::from_secs(11)).await; // Time itself is the subject: two polls.
        let later = revisions(scene).await?;
        ensure!(settled == later, "something was written at rest:\n{settled:#?}\n{later:#?}");
        Ok(())
    });
}
