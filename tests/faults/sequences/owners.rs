//! Two `ModelAliases` that want one alias, made at the same moment: one has it, also for the operators that
//! come after.

use anyhow::{Context, Result, ensure};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use laurel::api::{ModelAlias, condition::Reason};
use serde_json::Value;
use tokio::time::Instant;

use super::rest;
use crate::{
    kubernetes::{PATIENCE, RECOVERY, calm, play_all, scene},
    scene::Scene,
    support::alias::{Alias, has, holds, message},
};

const NAMES: [&str; 2] = ["left", "right"];

fn manifest(name: &str, version: &str) -> Result<Value> {
    Ok(serde_yaml::from_str(&format!(
        "
apiVersion: laurel.dev/v1alpha1
kind: ModelAlias
metadata: {{name: {name}}}
spec:
  modelRef: {{name: model}}
  alias: champion
  version: '{version}'
"
    ))?)
}

/// The one that says `Conflict`, and the one that does not.
async fn told_apart(aliases: &[Alias; 2], since: Instant) -> Result<(&Alias, &Alias)> {
    let settled = |it: &ModelAlias| has(it, Reason::Conflict) || has(it, Reason::AliasSet);
    for alias in aliases {
        alias.until_since(since, "one of the two", PATIENCE, settled).await?;
    }
    let refused = |alias: &&Alias| alias.last().is_some_and(|it| has(&it, Reason::Conflict));
    let loser = aliases.iter().find(refused).context("neither says Conflict")?;
    let owner = aliases.iter().find(|alias| !refused(alias)).context("both say Conflict")?;
    Ok((owner, loser))
}

/// Both are made while the operator runs, or before it does.
async fn one_moment(scene: &Scene, runs: bool) -> Result<()> {
    scene.registered(2).await?;
    // Nothing serves here: the alias itself is what is wished for.
    scene.witness.excuse_alias("1");
    scene.witness.excuse_alias("2");
    let aliases = NAMES.map(|name| Alias::observe(&scene.cluster, &scene.namespace, name));
    if runs {
        scene.operator.start().await?;
    }
    let api = scene.api::<ModelAlias>();
    let ours = PatchParams::apply("kubectl");
    let patches = [Patch::Apply(manifest("left", "1")?), Patch::Apply(manifest("right", "2")?)];
    let (left, right) =
        tokio::join!(api.patch("left", &ours, &patches[0]), api.patch("right", &ours, &patches[1]));
    let made = [left?, right?];
    if !runs {
        scene.operator.start().await?;
    }
    let began = Instant::now();
    // The one that was seen first may have begun before it gave way.
    rest(scene).await?;
    let (owner, loser) = told_apart(&aliases, scene.began).await?;
    let age = |alias: &ModelAlias| (alias.creation_timestamp().map(|time| time.0), alias.uid());
    let older = made.iter().min_by_key(|alias| age(alias)).context("none")?.name_any();
    ensure!(owner.name == older, "{} owns the alias, and {older} is older", owner.name);
    let said = message(&loser.last().context("it is gone")?);
    ensure!(said.contains(&format!("{}/{}", scene.namespace, owner.name)), "{said}");
    let version = if owner.name == "left" { "1" } else { "2" };
    ensure!(scene.named("champion").await?.as_deref() == Some(version), "the alias is not the owner's");
    let settled = scene.journal.count();
    scene.operator.restart().await?;
    rest(scene).await?;
    ensure!(scene.journal.count() == settled, "another operator wrote:\n{}", scene.journal.told_since(began));
    calm(scene, began, |exchange| exchange.write.is_some())?;

    let gone = Instant::now();
    api.delete(&owner.name, &DeleteParams::default()).await?;
    let takes_over = |it: &ModelAlias| {
        has(it, Reason::AliasSet) && holds(it, laurel::api::condition::ConditionType::Ready)
    };
    loser.until_since(gone, "it takes over", RECOVERY, takes_over).await?;
    let version = if version == "1" { "2" } else { "1" };
    scene.until_named("champion", Some(version)).await?;
    ensure!(api.list_metadata(&ListParams::default()).await?.items.len() == 1, "there are others");
    Ok(())
}

#[test]
fn promise_11_of_two_that_are_made_in_one_moment_one_owns_the_alias_also_for_the_next_operator() {
    play_all([
        scene("d-running", async |scene| one_moment(scene, true).await),
        scene("d-before", async |scene| one_moment(scene, false).await),
    ]);
}
