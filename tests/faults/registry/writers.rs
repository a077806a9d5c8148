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

use super::{RunningCase, alias_writes, case, cluster, reports::says, serving, untouched};
use crate::{
    fixture::{Fixture, PATIENCE},
    simulated::look::{never_ready, selected, until_sizes},
    support::alias::status,
    wire::{Rule, Violation},
};

/// How often an alias is put back.
const THREE_TIMES: usize = 3;

/// Lets an alias name `version` again as soon as the operator has set it.
fn quarrel(fixture: &Fixture, alias: &'static str, version: &'static str) {
    fixture.invariants.excuse_alias(version);
    let (mlflow, model) = (fixture.mlflow, fixture.model.clone());
    let again = Violation::after(move |asked| {
        let model = model.clone();
        async move {
            if asked.body.contains(&format!("{alias:?}")) {
                mlflow.set_alias(&model, alias, version).await.unwrap();
            }
        }
    });
    fixture.registry.place(Rule::on(Method::POST, "registered-models/alias", again));
}

/// What serves when the quarrel begins, and how often the alias was set before.
struct Before {
    cluster: BTreeMap<String, Option<String>>,
    writes: usize,
}

/// Version 1 serves, and somebody wants the alias on version 2, until Laurel gives in.
async fn contested(fixture: &Fixture) -> Result<Before> {
    serving(fixture, 3).await?;
    let before = Before { cluster: cluster(fixture).await?, writes: alias_writes(fixture) };
    quarrel(fixture, "champion", "2");
    let began = Instant::now();
    fixture.move_alias("2").await?;
    gives_in(fixture, began, &before).await?;
    Ok(before)
}

/// Waits until the quarrel is told, and sees that nothing is written any more.
async fn gives_in(fixture: &Fixture, began: Instant, before: &Before) -> Result<()> {
    let said = says(fixture, began, ConditionType::RegistrySynced, "False", Reason::Contested).await?;
    for part in ["moving the alias to version 2", "3 times", "stop the other writer", "laurel.dev/retry"] {
        ensure!(said.contains(part), "no {part:?} in {said:?}");
    }
    says(fixture, began, ConditionType::Ready, "False", Reason::Contested).await?;
    says(fixture, began, ConditionType::Stalled, "True", Reason::Contested).await?;
    fixture.reported(Reason::Contested).await?;
    fixture.until_quiet().await?;
    still(fixture, before, THREE_TIMES).await
}

/// The alias was set so often since, it names version 2, and what serves was not touched.
async fn still(fixture: &Fixture, before: &Before, times: usize) -> Result<()> {
    let writes = alias_writes(fixture) - before.writes;
    ensure!(writes == times, "the alias was set {writes} times");
    ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "who moved the alias?");
    untouched(fixture, &before.cluster).await
}

async fn ends(fixture: &Fixture, since: Instant, version: &str) -> Result<()> {
    says(fixture, since, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    let ready = |alias: &ModelAlias| crate::support::alias::holds(alias, ConditionType::Ready);
    fixture.champion.until_since(since, "Ready", PATIENCE, ready).await?;
    ensure!(fixture.named("champion").await?.as_deref() == Some(version), "the alias is elsewhere");
    ensure!(selected(fixture).await? == version, "traffic is elsewhere");
    fixture.until_quiet().await
}

pub(super) fn cases() -> Vec<RunningCase> {
    vec![
        case("reg-quarrel", asked),
        case("reg-agrees", agrees),
        case("reg-wishes", wishes_for_another),
        case("reg-reports", reports),
        case("reg-previous", previous),
        case("reg-follows", follows),
    ]
}

/// It ends when the other one has stopped and somebody asks. Until then an operator that is started anew does
/// not write either.
async fn asked(fixture: &Fixture) -> Result<()> {
    let before = contested(fixture).await?;
    fixture.operator.restart().await?;
    fixture.until_quiet().await?;
    still(fixture, &before, THREE_TIMES).await.context("after a restart")?;
    let asked = Instant::now();
    fixture.registry.lift_all();
    fixture.retry("stopped").await?;
    ends(fixture, asked, "1").await?;
    let writes = alias_writes(fixture) - before.writes;
    ensure!(writes == THREE_TIMES + 1, "the alias was set {writes} times");
    untouched(fixture, &before.cluster).await
}

/// It ends when the alias agrees; but it is not forgotten at once.
async fn agrees(fixture: &Fixture) -> Result<()> {
    let before = contested(fixture).await?;
    let agreed = Instant::now();
    fixture.move_alias("1").await?;
    ends(fixture, agreed, "1").await?;
    let again = Instant::now();
    fixture.move_alias("2").await?;
    says(fixture, again, ConditionType::Ready, "False", Reason::Contested).await?;
    fixture.until_quiet().await?;
    still(fixture, &before, THREE_TIMES).await
}

/// It ends when another version is wished for.
async fn wishes_for_another(fixture: &Fixture) -> Result<()> {
    contested(fixture).await?;
    fixture.registry.lift_all();
    let change = fixture.get("version: '3'").await?;
    ends(fixture, change.accepted, "3").await?;
    until_sizes(fixture, [("1", 2), ("3", 2)]).await
}

/// With `drift: Report` there is no quarrel: what somebody does to the alias is told and left.
async fn reports(fixture: &Fixture) -> Result<()> {
    serving(fixture, 2).await?;
    fixture.get("{version: '1', drift: Report}").await?;
    let (before, writes, began) = (cluster(fixture).await?, alias_writes(fixture), Instant::now());
    fixture.move_alias("2").await?;
    says(fixture, began, ConditionType::RegistrySynced, "False", Reason::AliasDrifted).await?;
    for version in ["1", "2"] {
        let (moved, wanted) = (Instant::now(), if version == "1" { "True" } else { "False" });
        let reason = if version == "1" { Reason::Synced } else { Reason::AliasDrifted };
        fixture.move_alias(version).await?;
        says(fixture, moved, ConditionType::RegistrySynced, wanted, reason).await?;
    }
    fixture.until_quiet().await?;
    ensure!(alias_writes(fixture) == writes, "the alias was set");
    untouched(fixture, &before).await
}

/// The same quarrel over the previous alias.
async fn previous(fixture: &Fixture) -> Result<()> {
    let spec = |version: u8| format!("{{version: '{version}', previousAlias: previous}}");
    serving(fixture, 3).await?;
    fixture.get(&spec(1)).await?;
    fixture.get(&spec(2)).await?;
    fixture.until_named("champion", Some("2")).await?;
    fixture.until_named("previous", Some("1")).await?;
    let (before, writes, began) = (cluster(fixture).await?, alias_writes(fixture), Instant::now());
    quarrel(fixture, "previous", "3");
    fixture.mlflow.set_alias(&fixture.model, "previous", "3").await?;
    let said = says(fixture, began, ConditionType::Ready, "False", Reason::Contested).await?;
    ensure!(said.contains("spec.previousAlias"), "{said:?}");
    fixture.until_quiet().await?;
    ensure!(
        alias_writes(fixture) == writes + THREE_TIMES,
        "it was set {} times",
        alias_writes(fixture) - writes
    );
    ensure!(fixture.named("previous").await?.as_deref() == Some("3"), "who moved the previous alias?");
    untouched(fixture, &before).await
}

/// A follower takes an alias that is set again for somebody who asks again, but not without end.
async fn follows(fixture: &Fixture) -> Result<()> {
    super::described(fixture, 2).await?;
    fixture.move_alias("1").await?;
    fixture.get("follow: {registry: {}}").await?;
    fixture.get("{follow: {registry: {}}, rollout: {progressDeadline: 2s}}").await?;
    never_ready(fixture, "2").await?;
    let writes = alias_writes(fixture);
    quarrel(fixture, "champion", "2");
    let began = Instant::now();
    fixture.move_alias("2").await?;
    let said = says(fixture, began, ConditionType::RegistrySynced, "False", Reason::Contested).await?;
    ensure!(said.contains("moving the alias to version 2") && said.contains("laurel.dev/retry"), "{said:?}");
    says(fixture, began, ConditionType::Ready, "False", Reason::ProgressDeadlineExceeded).await?;
    fixture.until_quiet().await?;
    fixture.operator.restart().await?;
    fixture.until_quiet().await?;
    ensure!(
        alias_writes(fixture) == writes + THREE_TIMES,
        "it was set {} times",
        alias_writes(fixture) - writes
    );
    ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "who moved the alias?");
    ensure!(selected(fixture).await? == "1", "traffic moved");
    let rejected = fixture.champion.last().map(|last| status(&last).rejected).unwrap_or_default();
    ensure!(rejected.iter().any(|rejected| rejected.version.to_string() == "2"), "{rejected:?}");
    let agreed = Instant::now();
    fixture.move_alias("1").await?;
    says(fixture, agreed, ConditionType::RegistrySynced, "True", Reason::AliasPutBack).await?;
    ensure!(selected(fixture).await? == "1", "traffic moved");
    fixture.until_quiet().await
}
