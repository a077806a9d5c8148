//! A rollback to the warm version is one write of the Service; it waits for no registry.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use laurel::api::condition::{ConditionType, Reason};
use tokio::time::Instant;

use super::{Played, scene, serving, told::says};
use crate::{
    scene::{PATIENCE, Scene},
    simulated::look::{selected, until_sizes},
    wire::{Exchange, Rule, Server, Violation},
};

/// Less than the ten seconds after which a request to the registry is given up.
const PROMPT: Duration = Duration::from_secs(8);

/// Whether the trouble is known before somebody rolls back.
#[derive(Clone, Copy, PartialEq)]
enum News {
    /// The poll has failed.
    Known,
    /// Nothing was asked since.
    Unknown,
}

async fn rolls_back(scene: &Scene, violation: Rule, events: News, reason: Reason) -> Result<()> {
    let reported = serving(scene, 2).await?;
    scene.get("version: '2'").await?;
    scene.until_named("champion", Some("2")).await?;
    scene.journal.until_quiet(Duration::from_secs(1), PATIENCE).await?;
    let (began, before) = (Instant::now(), scene.journal.exchanges().len());
    scene.registry.place(violation);
    if events == News::Known {
        reported.registry(began, "False", reason).await?;
    }
    let change = scene.desired("version: '1'").await?;
    let is_it = |exchange: &Exchange| {
        exchange.number > before && exchange.write.is_some() && exchange.path.contains("/services/champion")
    };
    let moved = scene.journal.until("the Service is written", PATIENCE, is_it).await?;
    let took = moved.arrived.saturating_duration_since(change.accepted);
    println!("  traffic moved after {took:?}");
    ensure!(took < PROMPT, "traffic waited {took:?} for the registry");
    until_selected(scene, "1").await?;
    let said = says(scene, change.accepted, ConditionType::Ready, "False", reason).await?;
    ensure!(said.contains(&scene.registry.url()), "{said:?}");
    let started: Vec<Exchange> = scene.journal.writes();
    let deployments = |write: &&Exchange| {
        write.number > before && write.server == Server::Kubernetes && write.path.contains("/deployments/")
    };
    ensure!(started.iter().find(deployments).is_none(), "a Deployment was written");
    ensure!(scene.named("champion").await?.as_deref() == Some("2"), "who moved the alias?");
    let lifted = Instant::now();
    scene.registry.lift_all();
    says(scene, lifted, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    ensure!(scene.named("champion").await?.as_deref() == Some("1"), "the alias did not follow");
    until_sizes(scene, [("1", 2), ("2", 2)]).await?;
    scene.until_quiet().await
}

async fn until_selected(scene: &Scene, version: &str) -> Result<()> {
    let began = Instant::now();
    while selected(scene).await? != version {
        ensure!(began.elapsed() < PATIENCE, "traffic did not move");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub(super) fn scenes() -> Vec<Played> {
    use Reason::{RegistryFailing, RegistryUnreachable};
    vec![
        scene("reg-back-hang", async |scene| {
            rolls_back(scene, Rule::always(Violation::Hang), News::Known, RegistryUnreachable).await
        }),
        scene("reg-back-hung", async |scene| {
            rolls_back(scene, Rule::always(Violation::Hang), News::Unknown, RegistryUnreachable).await
        }),
        scene("reg-back-500", async |scene| {
            rolls_back(scene, Rule::always(Violation::status(503)), News::Unknown, RegistryFailing).await
        }),
        scene("reg-back-write", async |scene| {
            let write = Rule::on(Method::POST, "registered-models/alias", Violation::Hang);
            rolls_back(scene, write, News::Unknown, RegistryUnreachable).await
        }),
        scene("reg-back-twice", twice),
    ]
}

/// Back and forth while the write of the alias hangs: each time at once, and the alias is where traffic is in
/// the end.
async fn twice(scene: &Scene) -> Result<()> {
    serving(scene, 2).await?;
    scene.get("version: '2'").await?;
    scene.until_named("champion", Some("2")).await?;
    let hangs = scene.registry.place(Rule::on(Method::POST, "registered-models/alias", Violation::Hang));
    for wanted in ["1", "2", "1"] {
        let change = scene.desired(&format!("version: '{wanted}'")).await?;
        until_selected(scene, wanted).await?;
        let took = change.accepted.elapsed();
        ensure!(took < PROMPT, "traffic waited {took:?}");
        hangs.until_struck(1, PATIENCE).await?;
    }
    let lifted = Instant::now();
    scene.registry.lift_all();
    says(scene, lifted, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    scene.until_named("champion", Some("1")).await?;
    ensure!(selected(scene).await? == "1", "traffic moved");
    scene.until_quiet().await
}
