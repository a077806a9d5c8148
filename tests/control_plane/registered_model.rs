//! RegisteredModel: created or adopted in the registry, described there, and told about here.

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use laurel::api::{ModelAlias, RegisteredModel};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{Fixture, PATIENCE, run},
    support::watch::Watch,
};

/// Watches the RegisteredModel.
fn model(fixture: &Fixture) -> Watch<RegisteredModel> {
    Watch::of(fixture.api(), "model")
}

/// Waits until the RegisteredModel is ready with its present generation, in a state that `wanted` holds for.
async fn synced(
    fixture: &Fixture,
    watch: &Watch<RegisteredModel>,
    wanted: impl Fn(&RegisteredModel) -> bool,
) -> Result<RegisteredModel> {
    let generation = fixture.api::<RegisteredModel>().get("model").await?.metadata.generation;
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
    run("model", async |fixture| {
        let watch = model(fixture);
        let mlflow = &fixture.world.mlflow;
        fixture.describe_model("{description: Card-fraud scorer, tags: {team: risk, tier: gold}}").await?;
        synced(fixture, &watch, |_| true).await?;
        let created = mlflow.model(&fixture.model).await?.context("the model is not there")?;
        ensure!(created["description"] == "Card-fraud scorer", "{created}");
        ensure!(mlflow.tags(&fixture.model).await? == json!({ "team": "risk", "tier": "gold" }), "{created}");

        mlflow.set_tag(&fixture.model, "theirs", "kept").await?;
        fixture.describe_model("{description: Scores cards, tags: {team: fraud}}").await?;
        synced(fixture, &watch, |_| true).await?;
        let tags = mlflow.tags(&fixture.model).await?;
        ensure!(tags == json!({ "team": "fraud", "theirs": "kept" }), "{tags}");
        let described = mlflow.model(&fixture.model).await?.context("the model is gone")?;
        ensure!(described["description"] == "Scores cards", "{described}");

        // What somebody changes by hand is put right at the next poll.
        mlflow.set_tag(&fixture.model, "team", "somebody").await?;
        let began = Instant::now();
        while mlflow.tags(&fixture.model).await?["team"] != "fraud" {
            ensure!(began.elapsed() < PATIENCE, "the tag is not put right");
            sleep(std::time::Duration::from_millis(200)).await;
        }
        Ok(())
    });
}

#[test]
fn the_newest_versions_are_listed_with_current_metrics() {
    run("glance", async |fixture| {
        let (watch, mlflow) = (model(fixture), &fixture.world.mlflow);
        mlflow.create_model(&fixture.model).await?;
        mlflow.register_run(&fixture.model, &[("auc", 0.9), ("f1", 0.5), ("other", 1.0)]).await?;
        let (_, run) = mlflow.register_run(&fixture.model, &[("auc", f64::NAN)]).await?;
        mlflow.register(&fixture.model).await?;
        fixture
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
        synced(fixture, &watch, |it| reported(it) == before).await?;
        // Nothing but the metric changes, so only a poll can see it.
        mlflow.log_metric(&run, "f1", 0.7).await?;
        let after = [none, json!({ "auc": "NaN", "f1": "0.7" }), first];
        synced(fixture, &watch, |it| reported(it) == after).await?;
        Ok(())
    });
}

#[test]
fn an_existing_model_is_adopted_and_its_versions_and_aliases_are_listed() {
    run("adopt", async |fixture| {
        let watch = model(fixture);
        let mlflow = &fixture.world.mlflow;
        mlflow.create_model(&fixture.model).await?;
        mlflow.set_tag(&fixture.model, "theirs", "kept").await?;
        for _ in 0..2 {
            mlflow.register(&fixture.model).await?;
        }
        mlflow.set_alias(&fixture.model, "shadow", "1").await?;
        fixture.describe_model("").await?;
        let adopted = synced(fixture, &watch, |_| true).await?.status.context("no status")?;
        let versions: Vec<String> = adopted.versions.iter().map(|each| each.version.to_string()).collect();
        ensure!(versions == ["2", "1"], "{adopted:?}");
        ensure!(
            adopted.latest_version.map(|version| version.to_string()).as_deref() == Some("2"),
            "{adopted:?}"
        );
        ensure!(adopted.versions[1].aliases == ["shadow"], "{adopted:?}");
        ensure!(adopted.versions.iter().all(|each| each.state == "Ready"), "{adopted:?}");
        ensure!(mlflow.tags(&fixture.model).await? == json!({ "theirs": "kept" }), "a tag was touched");

        mlflow.register(&fixture.model).await?;
        mlflow.set_alias(&fixture.model, "shadow", "3").await?;
        let reported = |model: &RegisteredModel| {
            let status = model.status.clone().unwrap_or_default();
            let shadow = status.versions.first().is_some_and(|first| first.aliases == ["shadow"]);
            shadow && status.versions.len() == 3
        };
        synced(fixture, &watch, reported).await.map(drop)
    });
}

#[test]
fn a_model_is_deleted_from_the_registry_only_by_its_policy_and_after_its_aliases() {
    run("model-delete", async |fixture| {
        fixture.registered(1).await?;
        let models = fixture.api::<RegisteredModel>();
        let object = models.get("model").await?;
        models.delete("model", &DeleteParams::default()).await?;
        fixture.gone(&models, &object, PATIENCE).await?;
        let mlflow = &fixture.world.mlflow;
        ensure!(mlflow.model(&fixture.model).await?.is_some(), "Retain deleted the model");

        fixture.describe_model("deletionPolicy: Delete").await?;
        fixture.get("version: '1'").await?;
        let object = models.get("model").await?;
        models.delete("model", &DeleteParams::default()).await?;
        sleep(std::time::Duration::from_secs(6)).await; // Time itself is the subject: it is tried every 5 s.
        ensure!(mlflow.model(&fixture.model).await?.is_some(), "the model went before its alias");
        ensure!(models.get_opt("model").await?.is_some(), "the object went before its alias");
        let aliases = fixture.api::<ModelAlias>();
        aliases.delete("champion", &DeleteParams::default()).await?;
        fixture.gone(&models, &object, PATIENCE).await?;
        ensure!(mlflow.model(&fixture.model).await?.is_none(), "the model is left in the registry");
        Ok(())
    });
}
