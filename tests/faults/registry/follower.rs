//! With `follow: {registry: {}}` the alias in the registry requests the version. An unreadable alias requests
//! nothing.

use anyhow::{Context, Result, ensure};
use hyper::Method;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    RunningCase, alias_writes, case, cluster, described,
    reports::{Reports, condition_is, synced},
    until_recorded, untouched,
};
use crate::{
    fixture::{Fixture, PATIENCE},
    simulated::look::{selected, until_sizes},
    support::alias::{has, is_ready, version},
    wire::{Rule, Violation},
};

const FOLLOW: &str = "follow: {registry: {}}";

/// Applies a ModelAlias that follows the alias, which names version 1.
async fn following(fixture: &Fixture, spec: &str, count: usize) -> Result<Reports> {
    let reported = described(fixture, count).await?;
    fixture.mlflow.set_alias(&fixture.model, "champion", "1").await?;
    fixture.get(spec).await?;
    Ok(reported)
}

async fn follows(fixture: &Fixture, since: Instant, wanted: &str) -> Result<()> {
    let it = |alias: &ModelAlias| is_ready(alias, 1) && version(alias) == wanted;
    fixture.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, it).await?;
    ensure!(selected(fixture).await? == wanted, "traffic is elsewhere");
    fixture.until_quiet().await
}

pub(super) fn cases() -> Vec<RunningCase> {
    vec![
        case("reg-f-refused", async |fixture| unread(fixture, None, Reason::RegistryUnreachable).await),
        case("reg-f-hang", async |fixture| {
            unread(fixture, Some(Violation::Hang), Reason::RegistryUnreachable).await
        }),
        case("reg-f-403", async |fixture| {
            let forbidden = json!({"error_code": "PERMISSION_DENIED", "message": "Permission denied"});
            unread(fixture, Some(Violation::json(403, &forbidden)), Reason::RegistryForbidden).await
        }),
        case("reg-f-flight", in_flight),
        case("reg-f-alias", alias_deleted),
        case("reg-f-report", alias_deleted_and_reported),
        case("reg-f-version", version_deleted),
        case("reg-f-unread", async |fixture| {
            version_unread(fixture, Violation::Hang, Reason::RegistryUnreachable).await
        }),
        case("reg-f-forbidden", async |fixture| {
            let forbidden = json!({"error_code": "PERMISSION_DENIED", "message": "Permission denied"});
            version_unread(fixture, Violation::json(403, &forbidden), Reason::RegistryForbidden).await
        }),
    ]
}

/// The alias is moved while the registry cannot be read: it is followed later.
async fn unread(fixture: &Fixture, violation: Option<Violation>, reason: Reason) -> Result<()> {
    let reported = following(fixture, FOLLOW, 2).await?;
    // Until then it has something to write, and is not at rest.
    until_recorded(fixture, "1").await?;
    fixture.until_quiet().await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    match violation {
        Some(violation) => drop(fixture.registry.place(Rule::always(violation))),
        None => fixture.registry.refuse(),
    }
    reported.error(fixture, began, reason).await?;
    fixture.mlflow.set_alias(&fixture.model, "champion", "2").await?;
    fixture.until_quiet().await?;
    untouched(fixture, &before).await?;
    let lifted = Instant::now();
    fixture.registry.lift_all();
    fixture.registry.accept().await?;
    follows(fixture, lifted, "2").await?;
    ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "the alias was moved");
    reported.well(fixture, lifted).await
}

/// The registry becomes unreachable during a requested rollout: the rollout completes.
async fn in_flight(fixture: &Fixture) -> Result<()> {
    following(fixture, FOLLOW, 2).await?;
    let registry = fixture.registry.clone();
    let go = Violation::after(move |_| {
        let registry = registry.clone();
        async move { registry.refuse() }
    });
    let went = fixture.kubernetes.place(Rule::on(Method::PATCH, "/deployments/champion-v2", go).times(1));
    let began = Instant::now();
    fixture.mlflow.set_alias(&fixture.model, "champion", "2").await?;
    fixture.champion.until_since(began, "version 2", PATIENCE, |it| version(it) == "2").await?;
    ensure!(went.hits() == 1 && selected(fixture).await? == "2", "traffic did not move");
    synced(fixture, began, "Unknown", Reason::RegistryUnreachable).await?;
    let lifted = Instant::now();
    fixture.registry.accept().await?;
    follows(fixture, lifted, "2").await?;
    until_sizes(fixture, [("1", 2), ("2", 2)]).await
}

/// Without the alias nothing is requested: the serving version keeps serving, and gets the alias back.
async fn alias_deleted(fixture: &Fixture) -> Result<()> {
    following(fixture, FOLLOW, 1).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    fixture.mlflow.delete_alias(&fixture.model, "champion").await?;
    fixture.until_named("champion", Some("1")).await?;
    synced(fixture, began, "True", Reason::Synced).await?;
    follows(fixture, began, "1").await?;
    untouched(fixture, &before).await
}

/// The same with `drift: Report`.
async fn alias_deleted_and_reported(fixture: &Fixture) -> Result<()> {
    following(fixture, &format!("{{{FOLLOW}, drift: Report}}"), 1).await?;
    let (before, writes, began) = (cluster(fixture).await?, alias_writes(fixture), Instant::now());
    fixture.mlflow.delete_alias(&fixture.model, "champion").await?;
    let text = condition_is(fixture, began, ConditionType::Ready, "False", Reason::AliasNotFound).await?;
    ensure!(text.contains("set it there on the version to serve"), "{text:?}");
    synced(fixture, began, "False", Reason::AliasDrifted).await?;
    fixture.until_quiet().await?;
    ensure!(alias_writes(fixture) == writes, "the alias was set");
    untouched(fixture, &before).await?;
    let set = Instant::now();
    fixture.mlflow.set_alias(&fixture.model, "champion", "1").await?;
    follows(fixture, set, "1").await?;
    untouched(fixture, &before).await
}

/// Deleting a version deletes its alias: it keeps serving until the alias is set to another one.
async fn version_deleted(fixture: &Fixture) -> Result<()> {
    following(fixture, FOLLOW, 2).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    fixture.mlflow.delete_version(&fixture.model, "1").await?;
    condition_is(fixture, began, ConditionType::Ready, "False", Reason::AliasNotFound).await?;
    let text = synced(fixture, began, "False", Reason::VersionNotFound).await?;
    ensure!(text.contains("version 1 serves, but does not exist"), "{text:?}");
    fixture.until_quiet().await?;
    untouched(fixture, &before).await?;
    let set = Instant::now();
    fixture.mlflow.set_alias(&fixture.model, "champion", "2").await?;
    follows(fixture, set, "2").await
}

/// The alias names a version that cannot be read: traffic stays, and it is read again.
async fn version_unread(fixture: &Fixture, violation: Violation, reason: Reason) -> Result<()> {
    following(fixture, FOLLOW, 2).await?;
    let (before, began) = (cluster(fixture).await?, Instant::now());
    fixture.registry.place(Rule::on(Method::GET, "model-versions/get?", violation));
    fixture.mlflow.set_alias(&fixture.model, "champion", "2").await?;
    let text = condition_is(fixture, began, ConditionType::Ready, "False", reason).await?;
    ensure!(text.contains(&fixture.registry.url()), "{text:?}");
    untouched(fixture, &before).await?;
    ensure!(
        fixture.named("champion").await?.as_deref() == Some("2"),
        "the alias was put back without a response"
    );
    let lifted = Instant::now();
    fixture.registry.lift_all();
    follows(fixture, lifted, "2").await.context("once it can be read")?;
    let stalled = |it: &ModelAlias| has(it, Reason::VersionNotFound);
    ensure!(
        !fixture.champion.seen().iter().any(|seen| stalled(&seen.object)),
        "unknown was mistaken for absent"
    );
    Ok(())
}
