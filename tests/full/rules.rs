//! Promotion rules and followers, judged by what the runs of real models say.

use anyhow::{Context, Result, ensure};
use laurel::api::condition::ConditionType;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    scene::{PATIENCE, Scene, play},
    support::alias,
};

/// The RegisteredModel with these rules for `@champion`.
async fn rules(scene: &Scene, rules: serde_json::Value) -> Result<()> {
    let model = json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "RegisteredModel", "metadata": { "name": "model" },
        "spec": { "modelName": scene.model, "registryRef": { "name": "mlflow" }, "promotion": [rules] } });
    scene.apply(&model.to_string()).await
}

#[test]
fn promise_5_rules_hold_a_promotion_back_until_it_is_approved_and_never_hold_back_a_rollback() {
    play("rules", 3, async |scene| {
        scene.good_versions(2).await?;
        let (first, second) = ((scene.model.as_str(), "1"), (scene.model.as_str(), "2"));
        rules(
            scene,
            json!({ "name": "rules", "aliases": ["champion"], "tags": { "validated": "true" },
                    "metrics": [{ "name": "auc", "min": 0.5 }, { "name": "cost", "min": 0.0 }] }),
        )
        .await?;
        scene.mlflow.set_version_tag(first, "validated", "true").await?;
        scene.get(json!({ "version": "1" })).await?;
        let clients = scene.clients().await?;

        let asked = scene.desired(json!({ "version": "2" })).await?;
        let held_back = |malias: &_| {
            alias::condition(malias, ConditionType::GatesPassed).is_some_and(|gates| {
                gates.status == "False" && gates.message.contains("tag validated = \"true\": not set")
            })
        };
        scene.champion.until_since(asked.accepted, "the rules hold it back", PATIENCE, held_back).await?;
        ensure!(scene.pods.started_since(asked.accepted).is_empty(), "pods were started for it");
        let gates =
            scene.champion.last().as_ref().and_then(|it| alias::condition(it, ConditionType::GatesPassed));
        println!("  {}", gates.context("no GatesPassed")?.message);
        clients.stay_on(asked.accepted, "1").await?;

        scene.mlflow.set_version_tag(second, "validated", "true").await?;
        clients.move_to(asked, "1", "2").await?;
        scene.champion.ready(asked, PATIENCE).await?;

        // What served before passes no rule any more, and is let in all the same.
        rules(
            scene,
            json!({ "name": "rules", "aliases": ["champion"], "metrics": [{ "name": "auc", "min": 2.0 }] }),
        )
        .await?;
        let back = scene.desired(json!({ "version": "1" })).await?;
        let took = clients.move_to(back, "2", "1").await?;
        scene.champion.ready(back, PATIENCE).await?;
        println!("  back on version 1 after {took:?}");
        ensure!(scene.pods.started_since(back.accepted).is_empty(), "pods were started for a rollback");
        clients.leave().await.map(drop)
    });
}

#[test]
fn the_best_approved_version_is_followed_and_the_one_before_it_when_the_approval_is_withdrawn() {
    play("best", 3, async |scene| {
        scene.good_versions(1).await?;
        let best = json!({ "metric": "auc", "tags": { "validated": "true" } });
        scene.mlflow.set_version_tag((&scene.model, "1"), "validated", "true").await?;
        let desired = json!({ "follow": { "best": best }, "rollout": { "progressDeadline": "2m" } });
        let change = scene.get(desired).await?;
        let clients = scene.clients().await?;

        // The second is the better one by its run, and is chosen as soon as it is approved.
        let number = scene.mlflow.copy_version((crate::scene::ORIGIN, "2"), &scene.model).await?;
        let registered = Instant::now();
        clients.stay_on(registered, "1").await?;
        let approved = Instant::now();
        scene.mlflow.set_version_tag((&scene.model, &number), "validated", "true").await?;
        let follows =
            |malias: &_| alias::is_ready(malias, change.generation) && alias::version(malias) == number;
        let seen =
            scene.champion.until_since(approved, "the better version serves", PATIENCE, follows).await?;
        println!("  chosen and serving {:?} after it was approved", seen.at - approved);

        // The approval is taken back: the one before is the best now, and traffic goes back to it.
        let withdrawn = Instant::now();
        scene.mlflow.delete_version_tag((&scene.model, &number), "validated").await?;
        let back = |malias: &_| alias::is_ready(malias, change.generation) && alias::version(malias) == "1";
        scene.champion.until_since(withdrawn, "the version before serves", PATIENCE, back).await?;
        clients.until_answered_by(withdrawn, "1").await;
        ensure!(scene.pods.started_since(withdrawn).is_empty(), "pods were started for the way back");
        clients.leave().await.map(drop)
    });
}
