//! Somebody else goes on moving the alias: Laurel puts it back three times, says that there is a quarrel, and
//! stops writing, also after it was started anew. It ends as the message says.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use tokio::time::Instant;

use super::{Played, alias_writes, cluster, scene, serving, told::says, untouched};
use crate::{
    scene::{PATIENCE, Scene},
    simulated::look::{never_ready, selected, until_sizes},
    support::alias::status,
    wire::{Rule, Violation},
};

/// How often an alias is put back.
const THREE_TIMES: usize = 3;

/// Lets an alias name `version` again as soon as the operator has set it.
fn quarrel(scene: &Scene, alias: &'static str, version: &'static str) {
    scene.witness.excuse_alias(version);
    let (mlflow, model) = (scene.mlflow, scene.model.clone());
    let again = Violation::after(move |asked| {
        let model = model.clone();
        async move {
            if asked.body.contains(&format!("{alias:?}")) {
                mlflow.set_alias(&model, alias, version).await.unwrap();
            }
        }
    });
    scene.registry.place(Rule::on(Method::POST, "registered-models/alias", again));
}

/// What serves when the quarrel begins, and how often the alias was set before.
struct Before {
    cluster: BTreeMap<String, Option<String>>,
    writes: usize,
}

/// Version 1 serves, and somebody wants the alias on version 2, until Laurel gives in.
async fn contested(scene: &Scene) -> Result<Before> {
    serving(scene, 3).await?;
    let before = Before { cluster: cluster(scene).await?, writes: alias_writes(scene) };
    quarrel(scene, "champion", "2");
    let began = Instant::now();
    scene.move_alias("2").await?;
    gives_in(scene, began, &before).await?;
    Ok(before)
}

/// Waits until the quarrel is told, and sees that nothing is written any more.
async fn gives_in(scene: &Scene, began: Instant, before: &Before) -> Result<()> {
    let said = says(scene, began, ConditionType::RegistrySynced, "False", Reason::Contested).await?;
    for part in ["names version 2 again", "3 times", "stop the other writer", "laurel.dev/retry"] {
        ensure!(said.contains(part), "no {part:?} in {said:?}");
    }
    says(scene, began, ConditionType::Ready, "False", Reason::Contested).await?;
    says(scene, began, ConditionType::Stalled, "True", Reason::Contested).await?;
    scene.reported(Reason::Contested).await?;
    scene.until_quiet().await?;
    still(scene, before, THREE_TIMES).await
}

/// The alias was set so often since, it names version 2, and what serves was not touched.
async fn still(scene: &Scene, before: &Before, times: usize) -> Result<()> {
    let writes = alias_writes(scene) - before.writes;
    ensure!(writes == times, "the alias was set {writes} times");
    ensure!(scene.named("champion").await?.as_deref() == Some("2"), "who moved the alias?");
    untouched(scene, &before.cluster).await
}

async fn ends(scene: &Scene, since: Instant, version: &str) -> Result<()> {
    says(scene, since, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    let ready = |alias: &ModelAlias| crate::support::alias::holds(alias, ConditionType::Ready);
    scene.champion.until_since(since, "Ready", PATIENCE, ready).await?;
    ensure!(scene.named("champion").await?.as_deref() == Some(version), "the alias is elsewhere");
    ensure!(selected(scene).await? == version, "traffic is elsewhere");
    scene.until_quiet().await
}

pub(super) fn scenes() -> Vec<Played> {
    vec![
        scene("reg-quarrel", asked),
        scene("reg-agrees", agrees),
        scene("reg-wishes", wishes_for_another),
        scene("reg-reports", reports),
        scene("reg-previous", previous),
        scene("reg-follows", follows),
    ]
}

/// It ends when the other one has stopped and somebody asks. Until then an operator that is started anew does
/// not write either.
async fn asked(scene: &Scene) -> Result<()> {
    let before = contested(scene).await?;
    scene.operator.restart().await?;
    scene.until_quiet().await?;
    still(scene, &before, THREE_TIMES).await.context("after a restart")?;
    let asked = Instant::now();
    scene.registry.lift_all();
    scene.retry("stopped").await?;
    ends(scene, asked, "1").await?;
    let writes = alias_writes(scene) - before.writes;
    ensure!(writes == THREE_TIMES + 1, "the alias was set {writes} times");
    untouched(scene, &before.cluster).await
}

/// It ends when the alias agrees; but it is not forgotten at once.
async fn agrees(scene: &Scene) -> Result<()> {
    let before = contested(scene).await?;
    let agreed = Instant::now();
    scene.move_alias("1").await?;
    ends(scene, agreed, "1").await?;
    let again = Instant::now();
    scene.move_alias("2").await?;
    says(scene, again, ConditionType::Ready, "False", Reason::Contested).await?;
    scene.until_quiet().await?;
    still(scene, &before, THREE_TIMES).await
}

/// It ends when another version is wished for.
async fn wishes_for_another(scene: &Scene) -> Result<()> {
    contested(scene).await?;
    scene.registry.lift_all();
    let change = scene.get("version: '3'").await?;
    ends(scene, change.accepted, "3").await?;
    until_sizes(scene, [("1", 2), ("3", 2)]).await
}

/// With `drift: Report` there is no quarrel: what somebody does to the alias is told and left.
async fn reports(scene: &Scene) -> Result<()> {
    serving(scene, 2).await?;
    scene.get("{version: '1', drift: Report}").await?;
    let (before, writes, began) = (cluster(scene).await?, alias_writes(scene), Instant::now());
    scene.move_alias("2").await?;
    says(scene, began, ConditionType::RegistrySynced, "False", Reason::AliasDrifted).await?;
    for version in ["1", "2"] {
        let (moved, wanted) = (Instant::now(), if version == "1" { "True" } else { "False" });
        let reason = if version == "1" { Reason::Synced } else { Reason::AliasDrifted };
        scene.move_alias(version).await?;
        says(scene, moved, ConditionType::RegistrySynced, wanted, reason).await?;
    }
    scene.until_quiet().await?;
    ensure!(alias_writes(scene) == writes, "the alias was set");
    untouched(scene, &before).await
}

/// The same quarrel over the previous alias.
async fn previous(scene: &Scene) -> Result<()> {
    let spec = |version: u8| format!("{{version: '{version}', previousAlias: previous}}");
    serving(scene, 3).await?;
    scene.get(&spec(1)).await?;
    scene.get(&spec(2)).await?;
    scene.until_named("champion", Some("2")).await?;
    scene.until_named("previous", Some("1")).await?;
    let (before, writes, began) = (cluster(scene).await?, alias_writes(scene), Instant::now());
    quarrel(scene, "previous", "3");
    scene.mlflow.set_alias(&scene.model, "previous", "3").await?;
    let said = says(scene, began, ConditionType::Ready, "False", Reason::Contested).await?;
    ensure!(said.contains("spec.previousAlias"), "{said:?}");
    scene.until_quiet().await?;
    ensure!(alias_writes(scene) == writes + THREE_TIMES, "it was set {} times", alias_writes(scene) - writes);
    ensure!(scene.named("previous").await?.as_deref() == Some("3"), "who moved the previous alias?");
    untouched(scene, &before).await
}

/// A follower takes an alias that is set again for somebody who asks again, but not without end.
async fn follows(scene: &Scene) -> Result<()> {
    super::described(scene, 2).await?;
    scene.move_alias("1").await?;
    scene.get("follow: {registry: {}}").await?;
    scene.get("{follow: {registry: {}}, rollout: {progressDeadline: 2s}}").await?;
    never_ready(scene, "2").await?;
    let writes = alias_writes(scene);
    quarrel(scene, "champion", "2");
    let began = Instant::now();
    scene.move_alias("2").await?;
    let said = says(scene, began, ConditionType::RegistrySynced, "False", Reason::Contested).await?;
    ensure!(said.contains("names version 2 again") && said.contains("laurel.dev/retry"), "{said:?}");
    says(scene, began, ConditionType::Ready, "False", Reason::ProgressDeadlineExceeded).await?;
    scene.until_quiet().await?;
    scene.operator.restart().await?;
    scene.until_quiet().await?;
    ensure!(alias_writes(scene) == writes + THREE_TIMES, "it was set {} times", alias_writes(scene) - writes);
    ensure!(scene.named("champion").await?.as_deref() == Some("2"), "who moved the alias?");
    ensure!(selected(scene).await? == "1", "traffic moved");
    let rejected = scene.champion.last().map(|last| status(&last).rejected).unwrap_or_default();
    ensure!(rejected.iter().any(|rejected| rejected.version.to_string() == "2"), "{rejected:?}");
    let agreed = Instant::now();
    scene.move_alias("1").await?;
    says(scene, agreed, ConditionType::RegistrySynced, "True", Reason::AliasPutBack).await?;
    ensure!(selected(scene).await? == "1", "traffic moved");
    scene.until_quiet().await
}
