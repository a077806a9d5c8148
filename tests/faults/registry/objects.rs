//! Aliases, versions and models that are deleted, made anew or renamed in the registry.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use tokio::time::{Instant, sleep};

use super::{
    Played, alias_writes, cluster, scene, serving, side_by_side,
    told::{Told, says, synced},
    until_recorded, untouched,
};
use crate::{
    scene::{PATIENCE, Scene},
    simulated::look::{selected, until_sizes},
    support::alias::{holds, is_ready, status},
};

pub(super) fn scenes() -> Vec<Played> {
    vec![
        scene("reg-alias", alias_deleted),
        scene("reg-version", version_deleted),
        scene("reg-warm", warm_version_deleted),
        scene("reg-anew", async |scene| made_anew(scene, true).await),
        scene("reg-renamed", renamed),
    ]
}

#[test]
#[ignore = "what tells them apart, the time of their registration, is not remembered yet"]
fn versions_without_an_identity_of_their_own_are_told_apart_when_they_are_made_anew() {
    side_by_side([vec![scene("reg-anew-alike", async |scene| made_anew(scene, false).await)]]);
}

/// The alias is put back, or its loss is told.
async fn alias_deleted(scene: &Scene) -> Result<()> {
    serving(scene, 1).await?;
    let (before, writes, began) = (cluster(scene).await?, alias_writes(scene), Instant::now());
    scene.mlflow.delete_alias(&scene.model, "champion").await?;
    scene.told_of("AliasPutBack").await?;
    scene.until_named("champion", Some("1")).await?;
    synced(scene, began, "True", Reason::Synced).await?;
    ensure!(alias_writes(scene) == writes + 1, "it was set {} times", alias_writes(scene) - writes);

    scene.get("{version: '1', drift: Report}").await?;
    let began = Instant::now();
    scene.mlflow.delete_alias(&scene.model, "champion").await?;
    let said = synced(scene, began, "False", Reason::AliasDrifted).await?;
    ensure!(said.contains("the alias names nothing") && said.contains("set the alias to 1"), "{said:?}");
    scene.until_quiet().await?;
    ensure!(scene.named("champion").await?.is_none(), "it was put back");
    ensure!(holds(&scene.champion.last().context("it is there")?, ConditionType::Ready), "it is not Ready");
    untouched(scene, &before).await
}

/// The version that serves is deleted; a rollback to the one before it goes at once.
async fn version_deleted(scene: &Scene) -> Result<()> {
    serving(scene, 2).await?;
    scene.get("version: '2'").await?;
    scene.until_named("champion", Some("2")).await?;
    let (before, began) = (cluster(scene).await?, Instant::now());
    scene.mlflow.delete_version(&scene.model, "2").await?;
    let said = synced(scene, began, "False", Reason::VersionNotFound).await?;
    ensure!(
        said.contains("version 2 serves, but does not exist") && said.contains("promote a version"),
        "{said:?}"
    );
    says(scene, began, ConditionType::Ready, "False", Reason::VersionNotFound).await?;
    scene.until_quiet().await?;
    ensure!(
        holds(&scene.champion.last().context("it is there")?, ConditionType::Serving),
        "it does not serve"
    );
    untouched(scene, &before).await?;
    scene.get("version: '1'").await?;
    ensure!(selected(scene).await? == "1", "traffic did not move");
    scene.until_named("champion", Some("1")).await
}

/// The warm version is deleted: it stays warm, and the rollback to it goes at once; only the alias cannot
/// name it.
async fn warm_version_deleted(scene: &Scene) -> Result<()> {
    serving(scene, 2).await?;
    scene.get("version: '2'").await?;
    scene.until_named("champion", Some("2")).await?;
    let before = cluster(scene).await?;
    scene.mlflow.delete_version(&scene.model, "1").await?;
    scene.until_quiet().await?;
    untouched(scene, &before).await?;
    let change = scene.desired("version: '1'").await?;
    let said =
        says(scene, change.accepted, ConditionType::RegistrySynced, "False", Reason::VersionNotFound).await?;
    ensure!(said.contains("version 1 serves, but does not exist"), "{said:?}");
    ensure!(selected(scene).await? == "1", "traffic did not move");
    until_sizes(scene, [("1", 2), ("2", 2)]).await?;
    scene.get("version: '2'").await?;
    scene.until_named("champion", Some("2")).await
}

/// The model is deleted and registered anew, with the same numbers: pods keep what they were started with
/// until somebody wants the new one. With `logged`, versions have an identity of their own; otherwise only
/// their times tell them apart.
async fn made_anew(scene: &Scene, logged: bool) -> Result<()> {
    let reported = Told::watch(scene);
    let register = async || {
        if logged {
            scene.mlflow.register_logged(&scene.model).await
        } else {
            scene.mlflow.register(&scene.model).await
        }
    };
    scene.mlflow.create_model(&scene.model).await?;
    register().await?;
    reported.describe(scene).await?;
    let change = scene.get("version: '1'").await?;
    scene.until_named("champion", Some("1")).await?;
    until_recorded(scene, "1").await?;
    let (before, began, pinned) = (cluster(scene).await?, Instant::now(), pinned(scene)?);
    scene.mlflow.delete_model(&scene.model).await?;
    let said = synced(scene, began, "False", Reason::VersionNotFound).await?;
    ensure!(said.contains("version 1 serves, but does not exist"), "{said:?}");
    untouched(scene, &before).await?;
    // The RegisteredModel has made it again, without versions.
    register().await?;
    let said = synced(scene, began, "False", Reason::VersionReplaced).await?;
    ensure!(said.contains("deleted and registered anew") && said.contains("laurel.dev/retry"), "{said:?}");
    says(scene, began, ConditionType::Ready, "False", Reason::VersionReplaced).await?;
    scene.until_quiet().await?;
    untouched(scene, &before).await?;
    ensure!(scene.named("champion").await?.is_none(), "the alias names a model that does not serve");
    let asked = Instant::now();
    scene.retry("the new one").await?;
    synced(scene, asked, "True", Reason::Synced).await?;
    scene.champion.until_since(asked, "Ready", PATIENCE, |it| is_ready(it, change.generation)).await?;
    scene.until_named("champion", Some("1")).await?;
    if logged {
        ensure!(self::pinned(scene)? != pinned, "the new one was not taken");
    }
    scene.until_quiet().await
}

/// What the pods of version 1 load.
fn pinned(scene: &Scene) -> Result<String> {
    let versions = scene.champion.last().map(|last| status(&last).versions).unwrap_or_default();
    let uri = versions.first().and_then(|held| held.model_uri.clone()).context("a version is held")?;
    Ok(uri.to_string())
}

/// The model gets another name in the registry, and its old one back.
async fn renamed(scene: &Scene) -> Result<()> {
    serving(scene, 1).await?;
    let (before, began) = (cluster(scene).await?, Instant::now());
    let elsewhere = format!("renamed-{}", scene.model);
    scene.mlflow.rename_model(&scene.model, &elsewhere).await?;
    let said = synced(scene, began, "False", Reason::VersionNotFound).await?;
    ensure!(said.contains("version 1 serves, but does not exist"), "{said:?}");
    says(scene, began, ConditionType::Ready, "False", Reason::VersionNotFound).await?;
    scene.until_quiet().await?;
    untouched(scene, &before).await?;
    // The RegisteredModel has made an empty model of the old name, which stands in the way.
    let back = Instant::now();
    loop {
        scene.mlflow.delete_model(&scene.model).await?;
        match scene.mlflow.rename_model(&elsewhere, &scene.model).await {
            Ok(()) => break,
            Err(error) => ensure!(back.elapsed() < PATIENCE, "{error:#}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
    synced(scene, back, "True", Reason::Synced).await?;
    let ready = |alias: &ModelAlias| holds(alias, ConditionType::Ready);
    scene.champion.until_since(back, "Ready", PATIENCE, ready).await?;
    scene.until_quiet().await?;
    untouched(scene, &before).await
}
