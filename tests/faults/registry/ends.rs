//! Deletions: they wait for the registry, but not for long, and not by anybody else's clock.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use kube::api::DeleteParams;
use laurel::api::{ModelAlias, RegisteredModel};
use tokio::time::Instant;

use super::{RunningCase, case, clocks::timed, serving};
use crate::{
    fixture::Fixture,
    wire::{Exchange, Rule, Server, Violation},
};

/// The deadline for the registry is 60 s; two requests may hang for 10 s each when it passes.
const DEADLINE: Duration = Duration::from_secs(100);

/// Deletes the ModelAlias and waits until it is gone; how long that took.
async fn delete(fixture: &Fixture) -> Result<Duration> {
    let aliases = fixture.api::<ModelAlias>();
    let (began, champion) = (Instant::now(), aliases.get("champion").await?);
    aliases.delete("champion", &DeleteParams::default()).await?;
    fixture.gone(&aliases, &champion, DEADLINE).await?;
    println!("  gone after {:.1} s", began.elapsed().as_secs_f64());
    Ok(began.elapsed())
}

async fn left_behind(fixture: &Fixture, violation: Rule) -> Result<()> {
    serving(fixture, 1).await?;
    fixture.registry.place(violation);
    let took = delete(fixture).await?;
    ensure!(took > Duration::from_secs(50), "it did not wait for the registry");
    ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "who removed the alias?");
    Ok(())
}

/// The API server's clock is another one than the operator's: to it, what is deleted was so at this time.
fn deleted_at(fixture: &Fixture, time: &'static str) {
    let shown = |asked: &Exchange| {
        asked.server == Server::Kubernetes
            && asked.method == Method::GET
            && asked.path.contains("/modelaliases")
    };
    let altered = Violation::alter(move |status, body| (status, timed(&body, "deletionTimestamp", time)));
    fixture.kubernetes.place(Rule::when(shown, altered));
}

/// Deletes the ModelAlias while no operator runs, and starts one to which it was deleted at another time.
async fn delete_by_another_clock(fixture: &Fixture, time: &'static str) -> Result<Duration> {
    fixture.operator.terminate().await?;
    let aliases = fixture.api::<ModelAlias>();
    let champion = aliases.get("champion").await?;
    aliases.delete("champion", &DeleteParams::default()).await?;
    deleted_at(fixture, time);
    let began = Instant::now();
    fixture.operator.start().await?;
    fixture.gone(&aliases, &champion, DEADLINE).await?;
    println!("  gone after {:.1} s", began.elapsed().as_secs_f64());
    fixture.kubernetes.lift_all();
    Ok(began.elapsed())
}

pub(super) fn cases() -> Vec<RunningCase> {
    vec![
        case("reg-end-hang", async |fixture| left_behind(fixture, Rule::always(Violation::Hang)).await),
        case("reg-end-500", async |fixture| left_behind(fixture, Rule::always(Violation::status(500))).await),
        case("reg-end-write", async |fixture| {
            left_behind(fixture, Rule::on(Method::DELETE, "registered-models/alias", Violation::Hang)).await
        }),
        case("reg-end-model", model),
        // Deleted long ago, for instance while no operator ran: it is tried all the same.
        case("reg-end-past", async |fixture| {
            serving(fixture, 1).await?;
            delete_by_another_clock(fixture, "2020-01-01T00:00:00Z").await?;
            ensure!(
                fixture.named("champion").await?.is_none(),
                "the alias is left, though the registry is there"
            );
            Ok(())
        }),
        // Deleted in the future, and the registry is away.
        case("reg-end-future", async |fixture| {
            serving(fixture, 1).await?;
            fixture.registry.place(Rule::always(Violation::status(503)));
            let took = delete_by_another_clock(fixture, "2199-01-01T00:00:00Z").await?;
            ensure!(took > Duration::from_secs(50), "it did not wait for the registry");
            Ok(())
        }),
    ]
}

/// A model that is to go from the registry, which hangs, goes from here.
async fn model(fixture: &Fixture) -> Result<()> {
    fixture.mlflow.create_model(&fixture.model).await?;
    fixture.describe_model("deletionPolicy: Delete").await?;
    let models = fixture.api::<RegisteredModel>();
    let began = Instant::now();
    while models.get("model").await?.metadata.finalizers.is_none() {
        ensure!(began.elapsed() < crate::fixture::PATIENCE, "no finalizer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fixture.registry.place(Rule::always(Violation::Hang));
    let (began, model) = (Instant::now(), models.get("model").await?);
    models.delete("model", &DeleteParams::default()).await?;
    fixture.gone(&models, &model, DEADLINE).await?;
    println!("  gone after {:.1} s", began.elapsed().as_secs_f64());
    ensure!(fixture.mlflow.model(&fixture.model).await?.is_some(), "who deleted the model?");
    Ok(())
}
