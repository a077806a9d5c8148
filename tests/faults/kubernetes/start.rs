//! The API server, or one of our kinds, is not there when the operator starts: it waits, says for what, and
//! goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::{LASTING, PATIENCE, RECOVERY, calm, case, forbidden, run_all};
use crate::{
    fixture::{Fixture, run_before_start},
    simulated::look::selected,
    wire::{Exchange, Rule, Violation},
};

/// Waits until `/readyz` says 503 and `said`.
async fn says(fixture: &Fixture, said: &[&str]) -> Result<()> {
    let began = Instant::now();
    loop {
        let reported = fixture.operator.readiness().await;
        if let Ok((503, reported)) = &reported
            && said.iter().all(|said| reported.contains(said))
        {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "/readyz says {reported:?}, and not {said:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Something is missing from the start. What was wished for meanwhile is done once it is there.
async fn missing(fixture: &Fixture, rule: Rule, said: &[&str]) -> Result<()> {
    fixture.registered(1).await?;
    let placed = fixture.kubernetes.place(rule);
    let began = Instant::now();
    fixture.operator.launch()?;
    says(fixture, said).await?;
    let change = fixture.desired("version: '1'").await?;
    sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
    // It is still so, and not only now and then.
    for _ in 0..20 {
        let reported = fixture.operator.readiness().await?;
        ensure!(
            reported.0 == 503 && said.iter().all(|said| reported.1.contains(said)),
            "/readyz says {reported:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
    let asked = calm(fixture, began, |exchange| placed_on(exchange, said[0]))?;
    ensure!(fixture.journal.count() == 0, "it wrote something:\n{}", fixture.journal.writes_since(began));
    fixture.kubernetes.lift(&placed);
    let over = Instant::now();
    fixture.champion.ready(change, RECOVERY).await?;
    println!("  without {}: {asked} requests, ready {:?} after it was there", said[0], over.elapsed());
    ensure!(fixture.operator.is_ready().await, "/readyz does not say that it is ready");
    ensure!(selected(fixture).await? == "1", "it does not serve");
    fixture.until_named("champion", Some("1")).await?;
    fixture.until_quiet().await
}

fn placed_on(exchange: &Exchange, what: &str) -> bool {
    exchange.path.contains(&format!("/{}?", what.to_lowercase()))
}

#[test]
fn an_operator_without_its_crds_waits_and_names_them() {
    let cases = ["ModelAliases", "ModelRegistries"].map(|kind| {
        let absent =
            Violation::kubernetes(404, "NotFound", "the server could not find the requested resource");
        let rule = Rule::when(move |exchange| placed_on(exchange, kind), absent);
        let said = [kind, "could not find the requested resource"];
        case(format!("s-{}", kind.to_lowercase()), async move |fixture| missing(fixture, rule, &said).await)
    });
    run_all(cases);
}

#[test]
fn an_operator_without_read_permissions_waits_and_names_them() {
    let cases = [("ModelAliases", "modelaliases.laurel.dev"), ("Pods", "pods")].map(|(kind, resource)| {
        let rule = Rule::when(move |exchange| placed_on(exchange, kind), forbidden("list", resource, ""));
        let said = [kind, "cannot list resource"];
        case(format!("s-403-{}", kind.to_lowercase()), async move |fixture| {
            missing(fixture, rule, &said).await
        })
    });
    run_all(cases);
}

#[test]
fn an_operator_that_starts_before_the_api_server_is_ready_waits_for_it() {
    let overloaded = Violation::kubernetes(503, "ServiceUnavailable", "the API server is starting");
    let violations = [("503", overloaded, "is starting"), ("reset", Violation::Reset, "Connection reset")];
    let cases = violations.map(|(code, violation, said)| {
        let said = ["ModelAliases", said];
        let story = async move |fixture: &Fixture| missing(fixture, Rule::always(violation), &said).await;
        case(format!("s-all-{code}"), story)
    });
    run_all(cases);
}

#[test]
fn an_operator_that_starts_without_an_api_server_waits_for_it() {
    run_before_start("s-refused", async |fixture| {
        fixture.registered(1).await?;
        let change = fixture.desired("version: '1'").await?;
        fixture.kubernetes.refuse();
        fixture.operator.launch()?;
        says(fixture, &["ModelAliases", "refused"]).await?;
        sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
        says(fixture, &["ModelAliases", "refused"]).await?;
        fixture.kubernetes.accept().await?;
        fixture.champion.ready(change, RECOVERY).await?;
        fixture.until_quiet().await
    });
}
