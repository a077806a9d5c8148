//! RegisteredModel: created or adopted in the registry, described there, and told about here.

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use laurel::api::{ModelAlias, RegisteredModel};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    scene::{PATIENCE, Scene, play},
    support::watch::Watch,
};

/// Watches the RegisteredModel.
fn model(scene: &Scene) -> Watch<RegisteredModel> {
    Watch::of(scene.api(), "model")
}

/// Waits until the RegisteredModel is ready with its present generation, in a state that `wanted` holds for.
async fn synced(
    scene: &Scene,
    watch: &Watch<RegisteredModel>,
    wanted: impl Fn(&RegisteredModel) -> bool,
) -> Result<RegisteredModel> {
    let generation = scene.api::<RegisteredModel>().get("model").await?.metadata.generation;
    let ready = |model: &RegisteredModel| {
        let status = model.status.clone().unwrap_or_default();
        status.observed_generation >= generation
            && status.conditions.iter().any(|each| each.type_ == "Ready" && each.reason == "ModelSynced")
    };
    let found =
        watch.until("ModelSynced", PATIENCE, |seen| ready(&seen.object) && wanted(&seen.object)).await;
    Ok(found.with_context(|| format!("last seen: {:?}", watch.last().map(|seen| seen.object.status)))?.object)
}

#[test]
fn a_model_that_is_missing_is_created_and_kept_as_described() {
    play("model", async |scene| {
        let watch = model(scene);
        let mlflow = &scene.world.mlflow;
        scene.describe_model("{description: Card-fraud scorer, tags: {team: risk, tier: gold}}").await?;
        synced(scene, &watch, |_| true).await?;
        let created = mlflow.model(&scene.model).await?.context("the model is not there")?;
        ensure!(created["description"] == "Card-fraud scorer", "{created}");
        ensure!(mlflow.tags(&scene.model).await? == json!({ "team": "risk", "tier": "gold" }), "{created}");

        mlflow.set_tag(&scene.model, "theirs", "kept").await?;
        scene.describe_model("{description: Scores cards, tags: {team: fraud}}").await?;
        synced(scene, &watch, |_| true).await?;
        let tags = mlflow.tags(&scene.model).await?;
        ensure!(tags == json!({ "team": "fraud", "theirs": "kept" }), "{tags}");
        let described = mlflow.model(&scene.model).await?.context("the model is gone")?;
        ensure!(described["description"] == "Scores cards", "{described}");

        // What somebody changes by hand is put right at the next poll.
        mlflow.set_tag(&scene.model, "team", "somebody").await?;
        let began = Instant::now();
        while mlflow.tags(&scene.model).await?["team"] != "fraud" {
            ensure!(began.elapsed() < PATIENCE, "the tag is not put right");
            sleep(std::time::Duration::from_millis(200)).await;
        }
        Ok(())
    });
}

#[test]
fn the_newest_versions_are_told_with_their_metrics_and_a_later_value_is_seen() {
    play("glance", async |scene| {
        let (watch, mlflow) = (model(scene), &scene.world.mlflow);
        mlflow.create_model(&scene.model).await?;
        mlflow.register_run(&scene.model, &[("auc", 0.9), ("f1", 0.5), ("other", 1.0)]).await?;
        let (_, run) = mlflow.register_run(&scene.model, &[("auc", f64::NAN)]).await?;
        mlflow.register(&scene.model).await?;
        scene
            .describe_model(
                "{displayMetrics: [f1], promotion: [{name: quality, aliases: [champion], \
                 metrics: [{name: auc, min: 0.8}]}]}",
            )
            .await?;
        let reported = |it: &RegisteredModel| {
            let versions = it.status.clone().unwrap_or_default().versions;
            versions.into_iter().map(|it| json!(it.metrics)).collect::<Vec<_>>()
        };
        let (none, first) = (json!({ "auc": "none", "f1": "none" }), json!({ "auc": "0.9", "f1": "0.5" }));
        let before = [none.clone(), json!({ "auc": "NaN", "f1": "none" }), first.clone()];
        synced(scene, &watch, |it| reported(it) == before).await?;
        // Nothing but the metric changes, so only a poll can see it.
        mlflow.log_metric(&run, "f1", 0.7).await?;
        let after = [none, json!({ "auc": "NaN", "f1": "0.7" }), first];
        synced(scene, &watch, |it| reported(it) == after).await?;
        Ok(())
    });
}

#[test]
fn a_model_that_is_there_is_adopted_and_its_versions_and_aliases_are_told() {
    play("adopt", async |scene| {
        let watch = model(scene);
        let mlflow = &scene.world.mlflow;
        mlflow.create_model(&scene.model).await?;
        mlflow.set_tag(&scene.model, "theirs", "kept").await?;
        for _ in 0..2 {
            mlflow.register(&scene.model).await?;
        }
        mlflow.set_alias(&scene.model, "shadow", "1").await?;
        scene.describe_model("").await?;
        let adopted = synced(scene, &watch, |_| true).await?.status.context("no status")?;
        let versions: Vec<String> = adopted.versions.iter().map(|each| each.version.to_string()).collect();
        ensure!(versions == ["2", "1"], "{adopted:?}");
        ensure!(
            adopted.latest_version.map(|version| version.to_string()).as_deref() == Some("2"),
            "{adopted:?}"
        );
        ensure!(adopted.versions[1].aliases == ["shadow"], "{adopted:?}");
        ensure!(adopted.versions.iter().all(|each| each.state == "Ready"), "{adopted:?}");
        ensure!(mlflow.tags(&scene.model).await? == json!({ "theirs": "kept" }), "a tag was touched");

        mlflow.register(&scene.model).await?;
        mlflow.set_alias(&scene.model, "shadow", "3").await?;
        let reported = |model: &RegisteredModel| {
            let status = model.status.clone().unwrap_or_default();
            let shadow = status.versions.first().is_some_and(|first| first.aliases == ["shadow"]);
            shadow && status.versions.len() == 3
        };
        synced(scene, &watch, reported).await.map(drop)
    });
}

#[test]
fn a_model_goes_from_the_registry_only_when_its_policy_says_so_and_after_its_aliases() {
    play("model-delete", async |scene| {
        scene.registered(1).await?;
        let models = scene.api::<RegisteredModel>();
        let object = models.get("model").await?;
        models.delete("model", &DeleteParams::default()).await?;
        scene.gone(&models, &object, PATIENCE).await?;
        let mlflow = &scene.world.mlflow;
        ensure!(mlflow.model(&scene.model).await?.is_some(), "Retain deleted the model");

        scene.describe_model("deletionPolicy: Delete").await?;
        scene.get("version: '1'").await?;
        let object = models.get("model").await?;
        models.delete("model", &DeleteParams::default()).await?;
        sleep(std::time::Duration::from_secs(6)).await; // Time itself is the subject: it is tried every 5 s.
        ensure!(mlflow.model(&scene.model).await?.is_some(), "the model went before its alias");
        ensure!(models.get_opt("model").await?.is_some(), "the object went before its alias");
        let aliases = scene.api::<ModelAlias>();
        aliases.delete("champion", &DeleteParams::default()).await?;
        scene.gone(&models, &object, PATIENCE).await?;
        ensure!(mlflow.model(&scene.model).await?.is_none(), "the model is left in the registry");
        Ok(())
    });
}
