//! The fault begins in the middle of a promotion: traffic is not held up, the alias in the registry follows,
//! once, and until then the condition reports what is missing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::Method;
use laurel::api::{
    ModelAlias,
    condition::{ConditionType, Reason},
};
use tokio::time::Instant;

use super::{RunningCase, alias_writes, case, reports::condition_is, serving};
use crate::{
    fixture::{Fixture, PATIENCE},
    simulated::look::{selected, until_sizes},
    support::alias::{status, version},
    wire::{Exchange, Outcome, Rule, Server, Violation},
};

/// Returns the alias writes that reached MLflow since version 1 got it.
fn arrived(fixture: &Fixture) -> usize {
    let writes = fixture.journal.writes().into_iter();
    let is_it = |write: &Exchange| {
        write.server == Server::Registry
            && write.path.contains("registered-models/alias")
            && matches!(write.outcome, Outcome::Answered(_))
    };
    writes.filter(is_it).count() - 1
}

/// Requests version 2 and waits until it serves. Returns when.
async fn traffic_moves(fixture: &Fixture) -> Result<Instant> {
    let change = fixture.desired("version: '2'").await?;
    let moved =
        fixture.champion.until_since(change.accepted, "version 2", PATIENCE, |it| version(it) == "2").await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    Ok(moved.at)
}

/// Asserts that everything reaches the desired state.
async fn arrives(fixture: &Fixture, since: Instant) -> Result<()> {
    condition_is(fixture, since, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    let ready = |alias: &ModelAlias| crate::support::alias::holds(alias, ConditionType::Ready);
    fixture.champion.until_since(since, "Ready", PATIENCE, ready).await?;
    ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "the alias did not move");
    until_sizes(fixture, [("1", 2), ("2", 2)]).await?;
    fixture.until_quiet().await
}

/// A fault of the write itself; `done` is how many times it is performed in the end.
async fn while_written(fixture: &Fixture, violation: Violation, times: usize, done: usize) -> Result<()> {
    serving(fixture, 2).await?;
    let write = Rule::on(Method::POST, "registered-models/alias", violation);
    let cleaned = fixture.registry.place(write.times(times));
    let moved = traffic_moves(fixture).await?;
    cleaned.until_struck(times, PATIENCE).await?;
    arrives(fixture, moved).await?;
    ensure!(arrived(fixture) == done, "the alias was set {} times", arrived(fixture));
    Ok(())
}

pub(super) fn cases() -> Vec<RunningCase> {
    vec![
        // The new version's Deployment was applied, and then the registry becomes unreachable.
        case("reg-gone", async |fixture| away(fixture, Reason::RegistryUnreachable, None).await),
        case("reg-gone-hang", async |fixture| {
            away(fixture, Reason::RegistryUnreachable, Some(Violation::Hang)).await
        }),
        case("reg-gone-500", async |fixture| {
            away(fixture, Reason::RegistryFailing, Some(Violation::status(500))).await
        }),
        // The alias is being set. A performed write is not repeated.
        case("reg-lost", async |fixture| while_written(fixture, Violation::LoseAnswer, 1, 1).await),
        case("reg-no-answer", async |fixture| while_written(fixture, Violation::HangAnswer, 1, 1).await),
        case("reg-no-write", async |fixture| while_written(fixture, Violation::Hang, 1, 1).await),
        case("reg-write-500", refused),
        case("reg-stale", stale),
        case("reg-smoke", unproven),
    ]
}

/// The registry becomes unreachable after the new version was started: the rollout completes anyway, and the
/// alias follows later.
async fn away(fixture: &Fixture, reason: Reason, violation: Option<Violation>) -> Result<()> {
    let reported = serving(fixture, 2).await?;
    let registry = fixture.registry.clone();
    let go = Violation::after(move |_| {
        let (registry, violation) = (registry.clone(), violation.clone());
        async move {
            match violation {
                Some(violation) => drop(registry.place(Rule::always(violation))),
                None => registry.refuse(),
            }
        }
    });
    let applied = fixture.kubernetes.place(Rule::on(Method::PATCH, "/deployments/champion-v2", go).times(1));
    let began = Instant::now();
    traffic_moves(fixture).await?;
    ensure!(applied.hits() == 1, "the fault did not begin");
    reported.registry(began, "False", reason).await?;
    let text = condition_is(fixture, began, ConditionType::RegistrySynced, "Unknown", reason).await?;
    ensure!(text.contains(&fixture.registry.url()), "{text:?}");
    let text = condition_is(fixture, began, ConditionType::Ready, "False", reason).await?;
    ensure!(text.contains(&fixture.registry.url()), "{text:?}");
    ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "who moved the alias?");
    let lifted = Instant::now();
    fixture.registry.lift_all();
    fixture.registry.accept().await?;
    arrives(fixture, lifted).await?;
    reported.registry(lifted, "True", Reason::Connected).await.map(drop)
}

/// While every write is rejected, it is retried with backoff and reported; nothing else waits for it.
async fn refused(fixture: &Fixture) -> Result<()> {
    serving(fixture, 2).await?;
    let failing =
        Violation::json(500, &serde_json::json!({"error_code": "INTERNAL_ERROR", "message": "disk full"}));
    let failing = fixture.registry.place(Rule::on(Method::POST, "registered-models/alias", failing));
    let moved = traffic_moves(fixture).await?;
    let text = condition_is(fixture, moved, ConditionType::Ready, "False", Reason::RegistryFailing).await?;
    ensure!(text.contains("disk full") && text.contains(&fixture.registry.url()), "{text:?}");
    condition_is(fixture, moved, ConditionType::RegistrySynced, "False", Reason::RegistryPending).await?;
    failing.until_struck(2, PATIENCE).await?;
    ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "who moved the alias?");
    let lifted = Instant::now();
    fixture.registry.lift_all();
    arrives(fixture, lifted).await?;
    let tried = failing.hits();
    ensure!(tried <= 4, "it was tried {tried} times");
    Ok(())
}

/// A write whose response was lost is settled once the alias matches: later writes do not report it.
async fn stale(fixture: &Fixture) -> Result<()> {
    serving(fixture, 3).await?;
    fixture.registry.place(Rule::on(Method::POST, "registered-models/alias", Violation::LoseAnswer).times(1));
    let moved = traffic_moves(fixture).await?;
    arrives(fixture, moved).await?;
    let tries = alias_writes(fixture);
    let change = fixture.get("version: '3'").await?;
    let troubled = fixture.champion.seen().into_iter().find(|seen| {
        seen.at >= change.accepted && crate::support::alias::has(&seen.object, Reason::RegistryUnreachable)
    });
    ensure!(troubled.is_none(), "an old failure was reported again: {troubled:?}");
    ensure!(alias_writes(fixture) == tries + 1, "the alias was set {} times", alias_writes(fixture) - tries);
    fixture.until_named("champion", Some("3")).await.context("the next promotion")
}

/// The input example of a version is in the registry as well: while that is unreachable, the example is
/// unknown, and the version is not rejected.
async fn unproven(fixture: &Fixture) -> Result<()> {
    const LONGER_THAN_TRIED: Duration = Duration::from_secs(36);
    let spec =
        |version: u8| format!("{{version: '{version}', rollout: {{smokeTest: {{mode: InputExample}}}}}}");
    fixture.mlflow.create_model(&fixture.model).await?;
    // Neither version has an example, which the registry confirms.
    fixture.mlflow.register_logged(&fixture.model).await?;
    fixture.mlflow.register_logged(&fixture.model).await?;
    fixture.describe_model("").await?;
    fixture.get(&spec(1)).await?;
    let registry = fixture.registry.clone();
    let go = Violation::after(move |_| {
        let registry = registry.clone();
        async move { registry.refuse() }
    });
    fixture.kubernetes.place(Rule::on(Method::PATCH, "/deployments/champion-v2", go).times(1));
    let change = fixture.desired(&spec(2)).await?;
    fixture.champion.reason(change, Reason::SmokeTestUnavailable, PATIENCE).await?;
    tokio::time::sleep(LONGER_THAN_TRIED).await; // Time itself is the subject.
    let last = fixture.champion.last().context("it is there")?;
    ensure!(
        status(&last).rejected.is_empty(),
        "version 2 was rejected for an example that could not be read"
    );
    until_sizes(fixture, [("1", 2), ("2", 2)]).await?;
    ensure!(selected(fixture).await? == "1", "traffic moved to a version that is not proven");
    fixture.registry.accept().await?;
    fixture.champion.ready(change, PATIENCE).await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    fixture.until_named("champion", Some("2")).await
}
