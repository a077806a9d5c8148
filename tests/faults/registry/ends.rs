//! Deletions: they wait for the registry, but not for long, and not by anybody else's clock.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use kube::api::DeleteParams;
use laurel::api::{ModelAlias, RegisteredModel};
use tokio::time::Instant;

use super::{Played, clocks::timed, scene, serving};
use crate::{
    scene::Scene,
    wire::{Exchange, Rule, Server, Violation},
};

/// The deadline for the registry is 60 s; two requests may hang for 10 s each when it passes.
const DEADLINE: Duration = Duration::from_secs(100);

/// Deletes the ModelAlias and waits until it is gone; how long that took.
async fn delete(scene: &Scene) -> Result<Duration> {
    let aliases = scene.api::<ModelAlias>();
    let (began, champion) = (Instant::now(), aliases.get("champion").await?);
    aliases.delete("champion", &DeleteParams::default()).await?;
    scene.gone(&aliases, &champion, DEADLINE).await?;
    println!("  gone after {:.1} s", began.elapsed().as_secs_f64());
    Ok(began.elapsed())
}

async fn left_behind(scene: &Scene, violation: Rule) -> Result<()> {
    serving(scene, 1).await?;
    scene.registry.place(violation);
    let took = delete(scene).await?;
    ensure!(took > Duration::from_secs(50), "it did not wait for the registry");
    ensure!(scene.named("champion").await?.as_deref() == Some("1"), "who removed the alias?");
    Ok(())
}

/// The API server's clock is another one than the operator's: to it, what is deleted was so at this time.
fn deleted_at(scene: &Scene, time: &'static str) {
    let shown = |asked: &Exchange| {
        asked.server == Server::Kubernetes
            && asked.method == Method::GET
            && asked.path.contains("/modelaliases")
    };
    let altered = Violation::alter(move |status, body| (status, timed(&body, "deletionTimestamp", time)));
    scene.kubernetes.place(Rule::when(shown, altered));
}

/// Deletes the ModelAlias while no operator runs, and starts one to which it was deleted at another time.
async fn delete_by_another_clock(scene: &Scene, time: &'static str) -> Result<Duration> {
    scene.operator.terminate().await?;
    let aliases = scene.api::<ModelAlias>();
    let champion = aliases.get("champion").await?;
    aliases.delete("champion", &DeleteParams::default()).await?;
    deleted_at(scene, time);
    let began = Instant::now();
    scene.operator.start().await?;
    scene.gone(&aliases, &champion, DEADLINE).await?;
    println!("  gone after {:.1} s", began.elapsed().as_secs_f64());
    scene.kubernetes.lift_all();
    Ok(began.elapsed())
}

pub(super) fn scenes() -> Vec<Played> {
    vec![
        scene("reg-end-hang", async |scene| left_behind(scene, Rule::always(Violation::Hang)).await),
        scene("reg-end-500", async |scene| left_behind(scene, Rule::always(Violation::status(500))).await),
        scene("reg-end-write", async |scene| {
            left_behind(scene, Rule::on(Method::DELETE, "registered-models/alias", Violation::Hang)).await
        }),
        scene("reg-end-model", model),
        // Deleted long ago, for instance while no operator ran: it is tried all the same.
        scene("reg-end-past", async |scene| {
            serving(scene, 1).await?;
            delete_by_another_clock(scene, "2020-01-01T00:00:00Z").await?;
            ensure!(
                scene.named("champion").await?.is_none(),
                "the alias is left, though the registry is there"
            );
            Ok(())
        }),
        // Deleted in the future, and the registry is away.
        scene("reg-end-future", async |scene| {
            serving(scene, 1).await?;
            scene.registry.place(Rule::always(Violation::status(503)));
            let took = delete_by_another_clock(scene, "2199-01-01T00:00:00Z").await?;
            ensure!(took > Duration::from_secs(50), "it did not wait for the registry");
            Ok(())
        }),
    ]
}

/// A model that is to go from the registry, which hangs, goes from here.
async fn model(scene: &Scene) -> Result<()> {
    scene.mlflow.create_model(&scene.model).await?;
    scene.describe_model("deletionPolicy: Delete").await?;
    let models = scene.api::<RegisteredModel>();
    let began = Instant::now();
    while models.get("model").await?.metadata.finalizers.is_none() {
        ensure!(began.elapsed() < crate::scene::PATIENCE, "no finalizer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    scene.registry.place(Rule::always(Violation::Hang));
    let (began, model) = (Instant::now(), models.get("model").await?);
    models.delete("model", &DeleteParams::default()).await?;
    scene.gone(&models, &model, DEADLINE).await?;
    println!("  gone after {:.1} s", began.elapsed().as_secs_f64());
    ensure!(scene.mlflow.model(&scene.model).await?.is_some(), "who deleted the model?");
    Ok(())
}
