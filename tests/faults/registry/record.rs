//! What was done is written into the tags of versions: late where it cannot be done at once, and never twice.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use hyper::Method;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
    model_alias::Recorded,
};
use tokio::time::Instant;

use super::{Played, asked, scene, serving, told::says};
use crate::{
    scene::{PATIENCE, Scene},
    support::alias::{has, status},
    wire::{Rule, Violation},
};

const TAGS: &str = "model-versions/set-tag";

pub(super) fn scenes() -> Vec<Played> {
    vec![scene("tags-forbidden", forbidden), scene("tags-answer-lost", answer_lost), scene("tags-away", away)]
}

/// Waits until all that the status tells of is in the registry.
async fn until_recorded(scene: &Scene, entries: usize) -> Result<()> {
    let all = |it: &ModelAlias| {
        let history = status(it).history;
        history.len() == entries && history.iter().all(|entry| entry.recorded == Recorded::Written)
    };
    scene.champion.until(&format!("{entries} entries, recorded"), 3 * PATIENCE, all).await.map(drop)
}

async fn tags(scene: &Scene, version: &str) -> Result<BTreeMap<String, String>> {
    scene.mlflow.version_tags(&scene.model, version).await
}

fn lines(tags: &BTreeMap<String, String>) -> usize {
    tags.keys().filter(|key| key.starts_with("laurel.log.")).count()
}

/// A login that may set aliases and no tags: it is told, and holds up nothing.
async fn forbidden(scene: &Scene) -> Result<()> {
    serving(scene, 2).await?;
    until_recorded(scene, 1).await?;
    let asked_before = asked(scene, &Method::POST, TAGS);
    let began = Instant::now();
    scene.registry.place(Rule::on(Method::POST, TAGS, Violation::status(403)));
    let change = scene.get("version: '2'").await?;
    let said = says(scene, began, ConditionType::RegistrySynced, "False", Reason::RegistryForbidden).await?;
    ensure!(said.contains("the alias names version 2") && said.contains("tags"), "{said:?}");
    let stays = |it: &ModelAlias| has(it, Reason::Serving);
    ensure!(scene.champion.last().as_ref().is_some_and(stays), "{change:?}: it is not Ready");
    ensure!(asked(scene, &Method::POST, TAGS) - asked_before < 10, "it is tried without a pause");
    scene.registry.lift_all();
    until_recorded(scene, 2).await?;
    says(scene, began, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    ensure!(lines(&tags(scene, "2").await?) == 1, "one line for one promotion");
    scene.until_quiet().await
}

/// Each tag was set, and it was not heard of.
async fn answer_lost(scene: &Scene) -> Result<()> {
    serving(scene, 2).await?;
    until_recorded(scene, 1).await?;
    let lost = scene.registry.place(Rule::on(Method::POST, TAGS, Violation::LoseAnswer).times(3));
    scene.get("version: '2'").await?;
    until_recorded(scene, 2).await?;
    ensure!(lost.struck() == 3, "only {} answers were lost", lost.struck());
    let two = tags(scene, "2").await?;
    ensure!(lines(&two) == 1 && two["laurel.promoted_from"] == "1", "{two:?}");
    scene.until_quiet().await
}

/// A rollback while the registry is away is told when it is back.
async fn away(scene: &Scene) -> Result<()> {
    serving(scene, 2).await?;
    scene.get("version: '2'").await?;
    until_recorded(scene, 2).await?;
    scene.registry.refuse();
    scene.desired("version: '1'").await?;
    let waits = |it: &ModelAlias| status(it).history.len() == 3;
    scene.champion.until("traffic is back", PATIENCE, waits).await?;
    scene.operator.kill()?;
    scene.registry.accept().await?;
    scene.operator.start().await?;
    until_recorded(scene, 3).await?;
    let (one, two) = (tags(scene, "1").await?, tags(scene, "2").await?);
    ensure!(lines(&one) == 2 && one["laurel.promoted_from"] == "2", "{one:?}");
    ensure!(lines(&two) == 1 && two.contains_key("laurel.rolled_back_at"), "{two:?}");
    scene.until_quiet().await
}
