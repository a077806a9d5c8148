//! With `follow: {registry: {}}` the alias in the registry is the wish. What cannot be read is no wish.

use anyhow::{Context, Result, ensure};
use hyper::Method;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Played, ROOM, alias_writes, cluster, described, scene,
    told::{Told, says, synced},
    untouched,
};
use crate::{
    scene::{PATIENCE, Scene},
    simulated::look::{selected, until_sizes},
    support::alias::{has, is_ready, version},
    wire::{Rule, Violation},
};

const FOLLOW: &str = "follow: {registry: {}}";

/// The ModelAlias follows the alias, which names version 1.
async fn following(scene: &Scene, spec: &str, count: usize) -> Result<Told> {
    let _room = ROOM.acquire().await?;
    let reported = described(scene, count).await?;
    scene.mlflow.set_alias(&scene.model, "champion", "1").await?;
    scene.get(spec).await?;
    Ok(reported)
}

async fn follows(scene: &Scene, since: Instant, wanted: &str) -> Result<()> {
    let it = |alias: &ModelAlias| is_ready(alias, 1) && version(alias) == wanted;
    scene.champion.until_since(since, &format!("Ready with version {wanted}"), PATIENCE, it).await?;
    ensure!(selected(scene).await? == wanted, "traffic is elsewhere");
    scene.until_quiet().await
}

pub(super) fn scenes() -> Vec<Played> {
    vec![
        scene("reg-f-refused", async |scene| unread(scene, None, Reason::RegistryUnreachable).await),
        scene("reg-f-hang", async |scene| {
            unread(scene, Some(Violation::Hang), Reason::RegistryUnreachable).await
        }),
        scene("reg-f-403", async |scene| {
            let forbidden = json!({"error_code": "PERMISSION_DENIED", "message": "Permission denied"});
            unread(scene, Some(Violation::json(403, &forbidden)), Reason::RegistryForbidden).await
        }),
        scene("reg-f-flight", in_flight),
        scene("reg-f-alias", alias_deleted),
        scene("reg-f-report", alias_deleted_and_reported),
        scene("reg-f-version", version_deleted),
        scene("reg-f-unread", async |scene| {
            version_unread(scene, Violation::Hang, Reason::RegistryUnreachable).await
        }),
        scene("reg-f-forbidden", async |scene| {
            let forbidden = json!({"error_code": "PERMISSION_DENIED", "message": "Permission denied"});
            version_unread(scene, Violation::json(403, &forbidden), Reason::RegistryForbidden).await
        }),
    ]
}

/// The alias is moved while the registry cannot be read: it is followed once it can.
async fn unread(scene: &Scene, violation: Option<Violation>, reason: Reason) -> Result<()> {
    let reported = following(scene, FOLLOW, 2).await?;
    let (before, began) = (cluster(scene).await?, Instant::now());
    match violation {
        Some(violation) => drop(scene.registry.place(Rule::always(violation))),
        None => scene.registry.refuse(),
    }
    reported.error(scene, began, reason).await?;
    scene.mlflow.set_alias(&scene.model, "champion", "2").await?;
    scene.until_quiet().await?;
    untouched(scene, &before).await?;
    let lifted = Instant::now();
    scene.registry.lift_all();
    scene.registry.accept().await?;
    follows(scene, lifted, "2").await?;
    ensure!(scene.named("champion").await?.as_deref() == Some("2"), "the alias was moved");
    reported.well(scene, lifted).await
}

/// The registry goes in the middle of what the alias asked for: it is finished.
async fn in_flight(scene: &Scene) -> Result<()> {
    following(scene, FOLLOW, 2).await?;
    let registry = scene.registry.clone();
    let go = Violation::after(move |_| {
        let registry = registry.clone();
        async move { registry.refuse() }
    });
    let went = scene.kubernetes.place(Rule::on(Method::PATCH, "/deployments/champion-v2", go).times(1));
    let began = Instant::now();
    scene.mlflow.set_alias(&scene.model, "champion", "2").await?;
    scene.champion.until_since(began, "version 2", PATIENCE, |it| version(it) == "2").await?;
    ensure!(went.struck() == 1 && selected(scene).await? == "2", "traffic did not move");
    synced(scene, began, "Unknown", Reason::RegistryUnreachable).await?;
    let lifted = Instant::now();
    scene.registry.accept().await?;
    follows(scene, lifted, "2").await?;
    until_sizes(scene, [("1", 2), ("2", 2)]).await
}

/// Without the alias there is no wish: what serves goes on, and gets the alias back.
async fn alias_deleted(scene: &Scene) -> Result<()> {
    following(scene, FOLLOW, 1).await?;
    let (before, began) = (cluster(scene).await?, Instant::now());
    scene.mlflow.delete_alias(&scene.model, "champion").await?;
    scene.until_named("champion", Some("1")).await?;
    synced(scene, began, "True", Reason::Synced).await?;
    follows(scene, began, "1").await?;
    untouched(scene, &before).await
}

/// The same where Laurel is not to write it.
async fn alias_deleted_and_reported(scene: &Scene) -> Result<()> {
    following(scene, &format!("{{{FOLLOW}, drift: Report}}"), 1).await?;
    let (before, writes, began) = (cluster(scene).await?, alias_writes(scene), Instant::now());
    scene.mlflow.delete_alias(&scene.model, "champion").await?;
    let said = says(scene, began, ConditionType::Ready, "False", Reason::AliasNotFound).await?;
    ensure!(said.contains("set it there on the version to serve"), "{said:?}");
    synced(scene, began, "False", Reason::AliasDrifted).await?;
    scene.until_quiet().await?;
    ensure!(alias_writes(scene) == writes, "the alias was set");
    untouched(scene, &before).await?;
    let set = Instant::now();
    scene.mlflow.set_alias(&scene.model, "champion", "1").await?;
    follows(scene, set, "1").await?;
    untouched(scene, &before).await
}

/// A version that is deleted takes its alias with it: it goes on serving, until the alias is set on another
/// one.
async fn version_deleted(scene: &Scene) -> Result<()> {
    following(scene, FOLLOW, 2).await?;
    let (before, began) = (cluster(scene).await?, Instant::now());
    scene.mlflow.delete_version(&scene.model, "1").await?;
    says(scene, began, ConditionType::Ready, "False", Reason::AliasNotFound).await?;
    let said = synced(scene, began, "False", Reason::VersionNotFound).await?;
    ensure!(said.contains("version 1 serves, but does not exist"), "{said:?}");
    scene.until_quiet().await?;
    untouched(scene, &before).await?;
    let set = Instant::now();
    scene.mlflow.set_alias(&scene.model, "champion", "2").await?;
    follows(scene, set, "2").await
}

/// The alias names a version that cannot be read: traffic stays, and it is looked at again.
async fn version_unread(scene: &Scene, violation: Violation, reason: Reason) -> Result<()> {
    following(scene, FOLLOW, 2).await?;
    let (before, began) = (cluster(scene).await?, Instant::now());
    scene.registry.place(Rule::on(Method::GET, "model-versions/get?", violation));
    scene.mlflow.set_alias(&scene.model, "champion", "2").await?;
    let said = says(scene, began, ConditionType::Ready, "False", reason).await?;
    ensure!(said.contains(&scene.registry.url()), "{said:?}");
    untouched(scene, &before).await?;
    ensure!(
        scene.named("champion").await?.as_deref() == Some("2"),
        "the alias was put back for want of an answer"
    );
    let lifted = Instant::now();
    scene.registry.lift_all();
    follows(scene, lifted, "2").await.context("once it can be read")?;
    let stalled = |it: &ModelAlias| has(it, Reason::VersionNotFound);
    ensure!(!scene.champion.seen().iter().any(|seen| stalled(&seen.object)), "unknown was taken for absent");
    Ok(())
}
