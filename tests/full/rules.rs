//! Promotion rules and followers, judged by what the runs of real models say.

use anyhow::{Context, Result, ensure};
use laurel::api::condition::ConditionType;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE, run},
    support::alias,
};

/// The RegisteredModel with these rules for `@champion`.
async fn rules(fixture: &Fixture, rules: serde_json::Value) -> Result<()> {
    let model = json!({ "apiVersion": "laurel.dev/v1alpha1", "kind": "RegisteredModel", "metadata": { "name": "model" },
        "spec": { "modelName": fixture.model, "registryRef": { "name": "mlflow" }, "promotion": [rules] } });
    fixture.apply(&model.to_string()).await
}

#[test]
fn promise_5_rules_hold_a_promotion_back_until_it_is_approved_and_never_hold_back_a_rollback() {
    run("rules", 3, async |fixture| {
        fixture.good_versions(2).await?;
        let (first, second) = ((fixture.model.as_str(), "1"), (fixture.model.as_str(), "2"));
        rules(
            fixture,
            json!({ "name": "rules", "aliases": ["champion"], "tags": { "validated": "true" },
                    "metrics": [{ "name": "auc", "min": 0.5 }, { "name": "cost", "min": 0.0 }] }),
        )
        .await?;
        fixture.mlflow.set_version_tag(first, "validated", "true").await?;
        fixture.get(json!({ "version": "1" })).await?;
        let clients = fixture.clients().await?;

        let asked = fixture.desired(json!({ "version": "2" })).await?;
        let held_back = |malias: &_| {
            alias::condition(malias, ConditionType::GatesPassed).is_some_and(|gates| {
                gates.status == "False" && gates.message.contains("tag validated = \"true\": not set")
            })
        };
        fixture.champion.until_since(asked.accepted, "the rules hold it back", PATIENCE, held_back).await?;
        ensure!(fixture.pods.started_since(asked.accepted).is_empty(), "pods were started for it");
        let gates =
            fixture.champion.last().as_ref().and_then(|it| alias::condition(it, ConditionType::GatesPassed));
        println!("  {}", gates.context("no GatesPassed")?.message);
        clients.stay_on(asked.accepted, "1").await?;

        fixture.mlflow.set_version_tag(second, "validated", "true").await?;
        clients.move_to(asked, "1", "2").await?;
        fixture.champion.ready(asked, PATIENCE).await?;

        // What served before passes no rule any more, and is let in all the same.
        rules(
            fixture,
            json!({ "name": "rules", "aliases": ["champion"], "metrics": [{ "name": "auc", "min": 2.0 }] }),
        )
        .await?;
        let back = fixture.desired(json!({ "version": "1" })).await?;
        let took = clients.move_to(back, "2", "1").await?;
        fixture.champion.ready(back, PATIENCE).await?;
        println!("  back on version 1 after {took:?}");
        ensure!(fixture.pods.started_since(back.accepted).is_empty(), "pods were started for a rollback");
        clients.leave().await.map(drop)
    });
}

#[test]
fn the_best_approved_version_is_followed_and_the_next_best_when_the_approval_is_withdrawn() {
    run("best", 3, async |fixture| {
        fixture.good_versions(1).await?;
        let best = json!({ "metric": "auc", "tags": { "validated": "true" } });
        fixture.mlflow.set_version_tag((&fixture.model, "1"), "validated", "true").await?;
        let desired = json!({ "follow": { "best": best }, "rollout": { "progressDeadline": "2m" } });
        let change = fixture.get(desired).await?;
        let clients = fixture.clients().await?;

        // The second is the better one by its run, and is chosen as soon as it is approved.
        let number = fixture.mlflow.copy_version((crate::fixture::ORIGIN, "2"), &fixture.model).await?;
        let registered = Instant::now();
        clients.stay_on(registered, "1").await?;
        let approved = Instant::now();
        fixture.mlflow.set_version_tag((&fixture.model, &number), "validated", "true").await?;
        let follows =
            |malias: &_| alias::is_ready(malias, change.generation) && alias::version(malias) == number;
        let seen =
            fixture.champion.until_since(approved, "the better version serves", PATIENCE, follows).await?;
        println!("  chosen and serving {:?} after it was approved", seen.at - approved);

        // The approval is taken back: the one before is the best now, and traffic goes back to it.
        let withdrawn = Instant::now();
        fixture.mlflow.delete_version_tag((&fixture.model, &number), "validated").await?;
        let back = |malias: &_| alias::is_ready(malias, change.generation) && alias::version(malias) == "1";
        fixture.champion.until_since(withdrawn, "the version before serves", PATIENCE, back).await?;
        clients.until_answered_by(withdrawn, "1").await;
        ensure!(fixture.pods.started_since(withdrawn).is_empty(), "pods were started for the way back");
        clients.leave().await.map(drop)
    });
}
