//! The fault begins in the middle of a promotion: traffic is not held up by it, the alias in the registry
//! comes after, once, and until then it is said what is missing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use tokio::time::Instant;

use super::{Played, alias_writes, scene, serving, told::says};
use crate::{
    scene::{PATIENCE, Scene},
    simulated::look::{selected, until_sizes},
    support::alias::{status, version},
    wire::{Exchange, Outcome, Rule, Server, Violation},
};

/// The writes of the alias that reached MLflow since version 1 got it.
fn arrived(scene: &Scene) -> usize {
    let writes = scene.journal.writes().into_iter();
    let is_it = |write: &Exchange| {
        write.server == Server::Registry
            && write.path.contains("registered-models/alias")
            && matches!(write.outcome, Outcome::Answered(_))
    };
    writes.filter(is_it).count() - 1
}

/// Wishes for version 2 and waits until it serves; when that was.
async fn traffic_moves(scene: &Scene) -> Result<Instant> {
    let change = scene.desired("version: '2'").await?;
    let moved =
        scene.champion.until_since(change.accepted, "version 2", PATIENCE, |it| version(it) == "2").await?;
    ensure!(selected(scene).await? == "2", "traffic did not move");
    Ok(moved.at)
}

/// Everything comes to the end that was wished for.
async fn arrives(scene: &Scene, since: Instant) -> Result<()> {
    says(scene, since, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    let ready = |alias: &ModelAlias| crate::support::alias::holds(alias, ConditionType::Ready);
    scene.champion.until_since(since, "Ready", PATIENCE, ready).await?;
    ensure!(scene.named("champion").await?.as_deref() == Some("2"), "the alias did not move");
    until_sizes(scene, [("1", 2), ("2", 2)]).await?;
    scene.until_quiet().await
}

/// A fault of the write itself: how often it is done in the end.
async fn while_written(scene: &Scene, violation: Violation, times: usize, done: usize) -> Result<()> {
    serving(scene, 2).await?;
    let write = Rule::on(Method::POST, "registered-models/alias", violation);
    let struck = scene.registry.place(write.times(times));
    let moved = traffic_moves(scene).await?;
    struck.until_struck(times, PATIENCE).await?;
    arrives(scene, moved).await?;
    ensure!(arrived(scene) == done, "the alias was set {} times", arrived(scene));
    Ok(())
}

pub(super) fn scenes() -> Vec<Played> {
    vec![
        // The new version's Deployment was applied, and then the registry goes.
        scene("reg-gone", async |scene| away(scene, Reason::RegistryUnreachable, None).await),
        scene("reg-gone-hang", async |scene| {
            away(scene, Reason::RegistryUnreachable, Some(Violation::Hang)).await
        }),
        scene("reg-gone-500", async |scene| {
            away(scene, Reason::RegistryFailing, Some(Violation::status(500))).await
        }),
        // The alias is being set. What was done is not done again.
        scene("reg-lost", async |scene| while_written(scene, Violation::LoseAnswer, 1, 1).await),
        scene("reg-no-answer", async |scene| while_written(scene, Violation::HangAnswer, 1, 1).await),
        scene("reg-no-write", async |scene| while_written(scene, Violation::Hang, 1, 1).await),
        scene("reg-write-500", refused),
        scene("reg-stale", stale),
        scene("reg-smoke", unproven),
    ]
}

/// The registry goes once the new version was started: it is finished all the same, and the alias follows
/// when it is back.
async fn away(scene: &Scene, reason: Reason, violation: Option<Violation>) -> Result<()> {
    let reported = serving(scene, 2).await?;
    let registry = scene.registry.clone();
    let go = Violation::after(move |_| {
        let (registry, violation) = (registry.clone(), violation.clone());
        async move {
            match violation {
                Some(violation) => drop(registry.place(Rule::always(violation))),
                None => registry.refuse(),
            }
        }
    });
    let applied = scene.kubernetes.place(Rule::on(Method::PATCH, "/deployments/champion-v2", go).times(1));
    let began = Instant::now();
    traffic_moves(scene).await?;
    ensure!(applied.struck() == 1, "the fault did not begin");
    reported.registry(began, "False", reason).await?;
    let said = says(scene, began, ConditionType::RegistrySynced, "Unknown", reason).await?;
    ensure!(said.contains(&scene.registry.url()), "{said:?}");
    let said = says(scene, began, ConditionType::Ready, "False", reason).await?;
    ensure!(said.contains(&scene.registry.url()), "{said:?}");
    ensure!(scene.named("champion").await?.as_deref() == Some("1"), "who moved the alias?");
    let lifted = Instant::now();
    scene.registry.lift_all();
    scene.registry.accept().await?;
    arrives(scene, lifted).await?;
    reported.registry(lifted, "True", Reason::Connected).await.map(drop)
}

/// While every write is refused, it is tried less and less often, and told; nothing else waits for it.
async fn refused(scene: &Scene) -> Result<()> {
    serving(scene, 2).await?;
    let failing =
        Violation::json(500, &serde_json::json!({"error_code": "INTERNAL_ERROR", "message": "disk full"}));
    let failing = scene.registry.place(Rule::on(Method::POST, "registered-models/alias", failing));
    let moved = traffic_moves(scene).await?;
    let said = says(scene, moved, ConditionType::Ready, "False", Reason::RegistryFailing).await?;
    ensure!(said.contains("disk full") && said.contains(&scene.registry.url()), "{said:?}");
    says(scene, moved, ConditionType::RegistrySynced, "False", Reason::RegistryPending).await?;
    failing.until_struck(2, PATIENCE).await?;
    ensure!(scene.named("champion").await?.as_deref() == Some("1"), "who moved the alias?");
    let lifted = Instant::now();
    scene.registry.lift_all();
    arrives(scene, lifted).await?;
    let tried = failing.struck();
    ensure!(tried <= 4, "it was tried {tried} times");
    Ok(())
}

/// A write whose answer was lost is settled once the alias is seen to agree: what is written later does not
/// speak of it.
async fn stale(scene: &Scene) -> Result<()> {
    serving(scene, 3).await?;
    scene.registry.place(Rule::on(Method::POST, "registered-models/alias", Violation::LoseAnswer).times(1));
    let moved = traffic_moves(scene).await?;
    arrives(scene, moved).await?;
    let tries = alias_writes(scene);
    let change = scene.get("version: '3'").await?;
    let troubled = scene.champion.seen().into_iter().find(|seen| {
        seen.at >= change.accepted && crate::support::alias::has(&seen.object, Reason::RegistryUnreachable)
    });
    ensure!(troubled.is_none(), "an old failure was told again: {troubled:?}");
    ensure!(alias_writes(scene) == tries + 1, "the alias was set {} times", alias_writes(scene) - tries);
    scene.until_named("champion", Some("3")).await.context("the next promotion")
}

/// The input example of a version is in the registry, too: while that is away, nothing is known of it, and
/// the version is not rejected for it.
async fn unproven(scene: &Scene) -> Result<()> {
    const LONGER_THAN_TRIED: Duration = Duration::from_secs(36);
    let spec =
        |version: u8| format!("{{version: '{version}', rollout: {{smokeTest: {{mode: InputExample}}}}}}");
    scene.mlflow.create_model(&scene.model).await?;
    // Neither has an example, and the registry says so itself.
    scene.mlflow.register_logged(&scene.model).await?;
    scene.mlflow.register_logged(&scene.model).await?;
    scene.describe_model("").await?;
    scene.get(&spec(1)).await?;
    let registry = scene.registry.clone();
    let go = Violation::after(move |_| {
        let registry = registry.clone();
        async move { registry.refuse() }
    });
    scene.kubernetes.place(Rule::on(Method::PATCH, "/deployments/champion-v2", go).times(1));
    let change = scene.desired(&spec(2)).await?;
    scene.champion.reason(change, Reason::SmokeTesting, PATIENCE).await?;
    tokio::time::sleep(LONGER_THAN_TRIED).await; // Time itself is the subject.
    let last = scene.champion.last().context("it is there")?;
    ensure!(
        status(&last).rejected.is_empty(),
        "version 2 was rejected for an example that could not be read"
    );
    until_sizes(scene, [("1", 2), ("2", 2)]).await?;
    ensure!(selected(scene).await? == "1", "traffic moved to a version that is not proven");
    scene.registry.accept().await?;
    scene.champion.ready(change, PATIENCE).await?;
    ensure!(selected(scene).await? == "2", "traffic did not move");
    scene.until_named("champion", Some("2")).await
}
