//! A rollback to the warm version is one write of the Service; it waits for no registry.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::Method;
use laurel::api::condition::{ConditionType, Reason};
use tokio::time::Instant;

use super::{RunningCase, case, reports::says, serving};
use crate::{
    fixture::{Fixture, PATIENCE},
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

async fn rolls_back(fixture: &Fixture, violation: Rule, events: News, reason: Reason) -> Result<()> {
    let reported = serving(fixture, 2).await?;
    fixture.get("version: '2'").await?;
    fixture.until_named("champion", Some("2")).await?;
    fixture.journal.until_quiet(Duration::from_secs(1), PATIENCE).await?;
    let (began, before) = (Instant::now(), fixture.journal.exchanges().len());
    fixture.registry.place(violation);
    if events == News::Known {
        reported.registry(began, "False", reason).await?;
    }
    let change = fixture.desired("version: '1'").await?;
    let is_it = |exchange: &Exchange| {
        exchange.number > before && exchange.write.is_some() && exchange.path.contains("/services/champion")
    };
    let moved = fixture.journal.until("the Service is written", PATIENCE, is_it).await?;
    let took = moved.arrived.saturating_duration_since(change.accepted);
    println!("  traffic moved after {took:?}");
    ensure!(took < PROMPT, "traffic waited {took:?} for the registry");
    until_selected(fixture, "1").await?;
    let said = says(fixture, change.accepted, ConditionType::Ready, "False", reason).await?;
    ensure!(said.contains(&fixture.registry.url()), "{said:?}");
    let started: Vec<Exchange> = fixture.journal.writes();
    let deployments = |write: &&Exchange| {
        write.number > before && write.server == Server::Kubernetes && write.path.contains("/deployments/")
    };
    ensure!(started.iter().find(deployments).is_none(), "a Deployment was written");
    ensure!(fixture.named("champion").await?.as_deref() == Some("2"), "who moved the alias?");
    let lifted = Instant::now();
    fixture.registry.lift_all();
    says(fixture, lifted, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    ensure!(fixture.named("champion").await?.as_deref() == Some("1"), "the alias did not follow");
    until_sizes(fixture, [("1", 2), ("2", 2)]).await?;
    fixture.until_quiet().await
}

async fn until_selected(fixture: &Fixture, version: &str) -> Result<()> {
    let began = Instant::now();
    while selected(fixture).await? != version {
        ensure!(began.elapsed() < PATIENCE, "traffic did not move");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub(super) fn cases() -> Vec<RunningCase> {
    use Reason::{RegistryFailing, RegistryUnreachable};
    vec![
        case("reg-back-hang", async |fixture| {
            rolls_back(fixture, Rule::always(Violation::Hang), News::Known, RegistryUnreachable).await
        }),
        case("reg-back-hung", async |fixture| {
            rolls_back(fixture, Rule::always(Violation::Hang), News::Unknown, RegistryUnreachable).await
        }),
        case("reg-back-500", async |fixture| {
            rolls_back(fixture, Rule::always(Violation::status(503)), News::Unknown, RegistryFailing).await
        }),
        case("reg-back-write", async |fixture| {
            let write = Rule::on(Method::POST, "registered-models/alias", Violation::Hang);
            rolls_back(fixture, write, News::Unknown, RegistryUnreachable).await
        }),
        case("reg-back-twice", twice),
    ]
}

/// Back and forth while the write of the alias hangs: each time at once, and the alias is where traffic is in
/// the end.
async fn twice(fixture: &Fixture) -> Result<()> {
    serving(fixture, 2).await?;
    fixture.get("version: '2'").await?;
    fixture.until_named("champion", Some("2")).await?;
    let hangs = fixture.registry.place(Rule::on(Method::POST, "registered-models/alias", Violation::Hang));
    for wanted in ["1", "2", "1"] {
        let change = fixture.desired(&format!("version: '{wanted}'")).await?;
        until_selected(fixture, wanted).await?;
        let took = change.accepted.elapsed();
        ensure!(took < PROMPT, "traffic waited {took:?}");
        hangs.until_struck(1, PATIENCE).await?;
    }
    let lifted = Instant::now();
    fixture.registry.lift_all();
    says(fixture, lifted, ConditionType::RegistrySynced, "True", Reason::Synced).await?;
    fixture.until_named("champion", Some("1")).await?;
    ensure!(selected(fixture).await? == "1", "traffic moved");
    fixture.until_quiet().await
}
