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
    fixture::Fixture,
    kubernetes::{PATIENCE, RECOVERY, calm, case, run_all},
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
async fn owner_and_loser(aliases: &[Alias; 2], since: Instant) -> Result<(&Alias, &Alias)> {
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
async fn one_moment(fixture: &Fixture, runs: bool) -> Result<()> {
    fixture.registered(2).await?;
    // Nothing serves here: the alias itself is what is wished for.
    fixture.invariants.excuse_alias("1");
    fixture.invariants.excuse_alias("2");
    let aliases = NAMES.map(|name| Alias::observe(&fixture.cluster, &fixture.namespace, name));
    if runs {
        fixture.operator.start().await?;
    }
    let api = fixture.api::<ModelAlias>();
    let ours = PatchParams::apply("kubectl");
    let patches = [Patch::Apply(manifest("left", "1")?), Patch::Apply(manifest("right", "2")?)];
    let (left, right) =
        tokio::join!(api.patch("left", &ours, &patches[0]), api.patch("right", &ours, &patches[1]));
    let made = [left?, right?];
    if !runs {
        fixture.operator.start().await?;
    }
    let began = Instant::now();
    // The one that was seen first may have begun before it gave way.
    rest(fixture).await?;
    let (owner, loser) = owner_and_loser(&aliases, fixture.began).await?;
    let age = |alias: &ModelAlias| (alias.creation_timestamp().map(|time| time.0), alias.uid());
    let older = made.iter().min_by_key(|alias| age(alias)).context("none")?.name_any();
    ensure!(owner.name == older, "{} owns the alias, and {older} is older", owner.name);
    let said = message(&loser.last().context("it is gone")?);
    ensure!(said.contains(&format!("{}/{}", fixture.namespace, owner.name)), "{said}");
    let version = if owner.name == "left" { "1" } else { "2" };
    ensure!(fixture.named("champion").await?.as_deref() == Some(version), "the alias is not the owner's");
    let settled = fixture.journal.count();
    fixture.operator.restart().await?;
    rest(fixture).await?;
    ensure!(
        fixture.journal.count() == settled,
        "another operator wrote:\n{}",
        fixture.journal.writes_since(began)
    );
    calm(fixture, began, |exchange| exchange.write.is_some())?;

    let gone = Instant::now();
    api.delete(&owner.name, &DeleteParams::default()).await?;
    let takes_over = |it: &ModelAlias| {
        has(it, Reason::AliasSet) && holds(it, laurel::api::condition::ConditionType::Ready)
    };
    loser.until_since(gone, "it takes over", RECOVERY, takes_over).await?;
    let version = if version == "1" { "2" } else { "1" };
    fixture.until_named("champion", Some(version)).await?;
    ensure!(api.list_metadata(&ListParams::default()).await?.items.len() == 1, "there are others");
    Ok(())
}

#[test]
fn promise_11_one_of_two_created_at_once_owns_the_alias_across_restarts() {
    run_all([
        case("d-running", async |fixture| one_moment(fixture, true).await),
        case("d-before", async |fixture| one_moment(fixture, false).await),
    ]);
}
