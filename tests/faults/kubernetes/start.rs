//! The API server, or one of our kinds, is missing when the operator starts: it waits, reports for what, and
//! continues.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::time::{Instant, sleep};

use super::{LASTING, PATIENCE, RECOVERY, calm, case, forbidden, run_all};
use crate::{
    fixture::{Fixture, run_before_start},
    simulated::look::selected,
    wire::{Exchange, Rule, Violation},
};

/// Waits until `/readyz` returns 503 and `said`.
async fn not_ready(fixture: &Fixture, text: &[&str]) -> Result<()> {
    let began = Instant::now();
    loop {
        let reported = fixture.operator.readiness().await;
        if let Ok((503, reported)) = &reported
            && text.iter().all(|text| reported.contains(text))
        {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "/readyz returns {reported:?}, not {text:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Something is missing from the start. What was requested in the meantime is done once it is available.
async fn missing(fixture: &Fixture, rule: Rule, text: &[&str]) -> Result<()> {
    fixture.registered(1).await?;
    let placed = fixture.kubernetes.place(rule);
    let began = Instant::now();
    fixture.operator.launch()?;
    not_ready(fixture, text).await?;
    let change = fixture.desired("version: '1'").await?;
    sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
    // It stays that way.
    for _ in 0..20 {
        let reported = fixture.operator.readiness().await?;
        ensure!(
            reported.0 == 503 && text.iter().all(|text| reported.1.contains(text)),
            "/readyz returns {reported:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
    let asked = calm(fixture, began, |exchange| placed_on(exchange, text[0]))?;
    ensure!(fixture.journal.count() == 0, "it wrote something:\n{}", fixture.journal.writes_since(began));
    fixture.kubernetes.lift(&placed);
    let over = Instant::now();
    fixture.champion.ready(change, RECOVERY).await?;
    println!("  without {}: {asked} requests, ready {:?} after it was available", text[0], over.elapsed());
    ensure!(fixture.operator.is_ready().await, "/readyz does not report that it is ready");
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
        let text = [kind, "could not find the requested resource"];
        case(format!("s-{}", kind.to_lowercase()), async move |fixture| missing(fixture, rule, &text).await)
    });
    run_all(cases);
}

#[test]
fn an_operator_without_read_permissions_waits_and_names_them() {
    let cases = [("ModelAliases", "modelaliases.laurel.dev"), ("Pods", "pods")].map(|(kind, resource)| {
        let rule = Rule::when(move |exchange| placed_on(exchange, kind), forbidden("list", resource, ""));
        let text = [kind, "cannot list resource"];
        case(format!("s-403-{}", kind.to_lowercase()), async move |fixture| {
            missing(fixture, rule, &text).await
        })
    });
    run_all(cases);
}

/// Waits until `/readyz` returns 200 and `text`.
async fn ready(fixture: &Fixture, text: &[&str]) -> Result<()> {
    let began = Instant::now();
    loop {
        let reported = fixture.operator.readiness().await;
        if let Ok((200, reported)) = &reported
            && text.iter().all(|text| reported.contains(text))
        {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "/readyz returns {reported:?}, not {text:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// An older role, before an upgrade of the chart: nothing depends on `PodDisruptionBudgets`.
#[test]
fn an_operator_that_may_not_read_disruption_budgets_promotes_anyway_and_says_so() {
    const BUDGETS: &str = "PodDisruptionBudgets";
    run_before_start("s-403-budgets", async |fixture| {
        fixture.registered(2).await?;
        let rule = Rule::when(
            |exchange| placed_on(exchange, BUDGETS),
            forbidden("list", "poddisruptionbudgets.policy", ""),
        );
        let placed = fixture.kubernetes.place(rule);
        let began = Instant::now();
        fixture.operator.launch()?;
        ready(fixture, &[BUDGETS, "cannot list resource", "list, watch"]).await?;
        for version in ["1", "2"] {
            let change = fixture.desired(&format!("version: '{version}'")).await?;
            fixture.champion.ready(change, RECOVERY).await?;
            ensure!(selected(fixture).await? == version, "it does not serve version {version}");
            fixture.until_named("champion", Some(version)).await?;
        }
        sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
        ready(fixture, &[BUDGETS, "cannot list resource", "list, watch"]).await?;
        calm(fixture, began, |exchange| placed_on(exchange, BUDGETS))?;
        let budgets = fixture.api::<PodDisruptionBudget>();
        ensure!(budgets.get_opt("champion").await?.is_none(), "it wrote what it cannot read");
        fixture.until_quiet().await?;

        // Granted.
        fixture.kubernetes.lift(&placed);
        let granted = Instant::now();
        while budgets.get_opt("champion").await?.is_none() {
            ensure!(granted.elapsed() < PATIENCE, "what serves is not protected");
            sleep(Duration::from_millis(50)).await;
        }
        let reported = fixture.operator.readiness().await?;
        ensure!(reported == (200, "ok\n".to_owned()), "/readyz returns {reported:?}");
        fixture.until_quiet().await
    });
}

#[test]
fn an_operator_that_starts_before_the_api_server_is_ready_waits_for_it() {
    let overloaded = Violation::kubernetes(503, "ServiceUnavailable", "the API server is starting");
    let violations = [("503", overloaded, "is starting"), ("reset", Violation::Reset, "Connection reset")];
    let cases = violations.map(|(code, violation, text)| {
        let text = ["ModelAliases", text];
        let story = async move |fixture: &Fixture| missing(fixture, Rule::always(violation), &text).await;
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
        not_ready(fixture, &["ModelAliases", "refused"]).await?;
        sleep(LASTING).await; // Time itself is the subject: a fault that lasts.
        not_ready(fixture, &["ModelAliases", "refused"]).await?;
        fixture.kubernetes.accept().await?;
        fixture.champion.ready(change, RECOVERY).await?;
        fixture.until_quiet().await
    });
}
