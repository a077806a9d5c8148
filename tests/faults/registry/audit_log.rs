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

use super::{RunningCase, asked, case, reports::says, serving};
use crate::{
    fixture::{Fixture, PATIENCE},
    support::alias::{has, status},
    wire::{Rule, Violation},
};

const TAGS: &str = "model-versions/set-tag";

pub(super) fn cases() -> Vec<RunningCase> {
    vec![case("tags-forbidden", forbidden), case("tags-answer-lost", answer_lost), case("tags-away", away)]
}

/// Waits until all that the status tells of is in the registry.
async fn until_recorded(fixture: &Fixture, entries: usize) -> Result<()> {
    let all = |it: &ModelAlias| {
        let history = status(it).history;
        history.len() == entries && history.iter().all(|entry| entry.recorded == Recorded::Written)
    };
    fixture.champion.until(&format!("{entries} entries, recorded"), 3 * PATIENCE, all).await.map(drop)
}

async fn tags(fixture: &Fixture, version: &str) -> Result<BTreeMap<String, String>> {
    fixture.mlflow.version_tags(&fixture.model, version).await
}

fn lines(tags: &BTreeMap<String, String>) -> usize {
    tags.keys().filter(|key| key.starts_with("laurel.log.")).count()
}

/// A login that may set aliases and no tags: it is told, and holds up nothing.
async fn forbidden(fixture: &Fixture) -> Result<()> {
    serving(fixture, 2).await?;
    until_recorded(fixture, 1).await?;
    let asked_before = asked(fixture, &Method::POST, TAGS);
    let began = Instant::now();
    fixture.registry.place(Rule::on(Method::POST, TAGS, Violation::status(403)));
    let change = fixture.get("version: '2'").await?;
    let said =
        says(fixture, began, ConditionType::RegistrySynced, "False", Reason::RegistryForbidden).await?;
    ensure!(said.contains("the alias names version 2") && said.contains("tags"), "{said:?}");
    let stays = |it: &ModelAlias| has(it, Reason::Serving);
    ensure!(fixture.champion.last().as_ref().is_some_and(stays), "{change:?}: it is not Ready");
    ensure!(asked(fixture, &Method::POST, TAGS) - asked_before < 10, "it is tried without a pause");
    fixture.registry.lift_all();
    until_recorded(fixture, 2).await?;
    says(fixture, began, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    ensure!(lines(&tags(fixture, "2").await?) == 1, "one line for one promotion");
    fixture.until_quiet().await
}

/// Each tag was set, and it was not heard of.
async fn answer_lost(fixture: &Fixture) -> Result<()> {
    serving(fixture, 2).await?;
    until_recorded(fixture, 1).await?;
    let lost = fixture.registry.place(Rule::on(Method::POST, TAGS, Violation::LoseAnswer).times(3));
    fixture.get("version: '2'").await?;
    until_recorded(fixture, 2).await?;
    ensure!(lost.hits() == 3, "only {} answers were lost", lost.hits());
    let two = tags(fixture, "2").await?;
    ensure!(lines(&two) == 1 && two["laurel.promoted_from"] == "1", "{two:?}");
    fixture.until_quiet().await
}

/// A rollback while the registry is away is told when it is back.
async fn away(fixture: &Fixture) -> Result<()> {
    serving(fixture, 2).await?;
    fixture.get("version: '2'").await?;
    until_recorded(fixture, 2).await?;
    fixture.registry.refuse();
    fixture.desired("version: '1'").await?;
    let waits = |it: &ModelAlias| status(it).history.len() == 3;
    fixture.champion.until("traffic is back", PATIENCE, waits).await?;
    fixture.operator.kill()?;
    fixture.registry.accept().await?;
    fixture.operator.start().await?;
    until_recorded(fixture, 3).await?;
    let (one, two) = (tags(fixture, "1").await?, tags(fixture, "2").await?);
    ensure!(lines(&one) == 2 && one["laurel.promoted_from"] == "2", "{one:?}");
    ensure!(lines(&two) == 1 && two.contains_key("laurel.rolled_back_at"), "{two:?}");
    fixture.until_quiet().await
}
