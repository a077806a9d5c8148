//! Watches break, hang before their first event, go silent, or end with 410 Gone; the operator catches up.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::api::DeleteParams;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{PATIENCE, case, expired, run_all};
use crate::{
    fixture::{Fixture, run},
    simulated::look::{selected, sizes},
    wire::{Exchange, Rule, Violation},
};

/// Maximum time for which a watch may be stale undetected, on a busy machine.
const NOTICED: Duration = Duration::from_mins(2);

/// Breaks all watches, so that each is reopened.
async fn reopen(fixture: &Fixture) -> Result<()> {
    let before = fixture.journal.exchanges().len();
    fixture.kubernetes.drop_streams();
    for kind in [
        "/deployments?",
        "/services?",
        "/pods?",
        "/endpointslices?",
        "/poddisruptionbudgets?",
        "/modelaliases?",
    ] {
        let again = |it: &Exchange| {
            it.number > before && it.is_watch() && it.path.contains(kind) && it.ended.is_some()
        };
        fixture.journal.until(&format!("the watch {kind} again"), PATIENCE, again).await?;
    }
    Ok(())
}

#[test]
fn promise_7_watches_that_break_repeatedly_during_a_promotion_lose_nothing() {
    run("v-break", async |fixture| {
        fixture.registered(3).await?;
        fixture.get("version: '1'").await?;
        for version in ["2", "3", "1"] {
            let change = fixture.desired(&format!("version: '{version}'")).await?;
            for _ in 0..8 {
                fixture.kubernetes.drop_streams();
                // Time itself is the subject: another moment each time.
                sleep(Duration::from_millis(120)).await;
            }
            fixture.champion.ready(change, PATIENCE).await?;
            ensure!(selected(fixture).await? == version, "the Service is not on version {version}");
        }
        fixture.until_named("champion", Some("1")).await?;
        fixture.until_quiet().await
    });
}

/// The cluster changes while watches are silent; then they end with 410 Gone.
async fn gone(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(3).await?;
    fixture.get("version: '1'").await?;
    fixture.get("version: '2'").await?;
    fixture.until_named("champion", Some("2")).await?;
    let silence = fixture.kubernetes.place(Rule::when(Exchange::is_watch, Violation::Silence));
    reopen(fixture).await?;
    let unseen = Instant::now();
    fixture.api::<Service>().delete("champion", &DeleteParams::default()).await?;
    fixture.api::<Deployment>().delete("champion-v1", &DeleteParams::background()).await?;
    fixture.edit::<Deployment>("champion-v2", json!({ "spec": { "replicas": 3 } })).await?;
    let change = fixture.desired("version: '3'").await?;
    sleep(Duration::from_secs(2)).await; // Time itself is the subject: nothing is heard.
    ensure!(selected(fixture).await.is_err(), "the Service is restored: the watches were not silent");

    fixture.kubernetes.lift(&silence);
    fixture.kubernetes.place(Rule::when(Exchange::is_watch, expired()).times(7));
    fixture.kubernetes.drop_streams();
    fixture.audit.service_since(unseen, "the Service again", |_| true).await?;
    fixture.champion.ready(change, PATIENCE).await?;
    ensure!(selected(fixture).await? == "3", "traffic did not move");
    // Version 1 is gone for good. Version 2 is warm at the size that it had when traffic left it: the manual
    // size, or the desired one if the manual change was seen before the new spec.
    let sizes = sizes(fixture).await?;
    ensure!(sizes.keys().eq(["2", "3"]) && sizes["3"] == 2 && matches!(sizes["2"], 2 | 3), "{sizes:?}");
    fixture.until_named("champion", Some("3")).await?;
    fixture.until_quiet().await
}

/// The watch of one kind hangs before its first event, or goes silent. A promotion needs it and waits only
/// until that is detected.
async fn deaf(fixture: &Fixture, kind: &'static str, violation: Violation) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.until_named("champion", Some("1")).await?;
    let once = fixture.kubernetes.place(Rule::watches(kind, violation).times(1));
    fixture.kubernetes.drop_streams();
    once.until_struck(1, PATIENCE).await?;
    let began = Instant::now();
    let change = fixture.desired("{version: '2', rollout: {progressDeadline: 120s}}").await?;
    fixture.champion.ready(change, NOTICED).await?;
    println!("  {kind} silent: ready after {:?}", began.elapsed());
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    fixture.until_named("champion", Some("2")).await?;
    fixture.until_quiet().await
}

/// A starting operator gets no response to its first lists, or no events from its watches.
async fn deaf_from_the_start(fixture: &Fixture, rule: Rule, times: usize) -> Result<()> {
    fixture.registered(1).await?;
    let placed = fixture.kubernetes.place(rule);
    fixture.operator.launch()?;
    placed.until_struck(times, PATIENCE).await?;
    fixture.kubernetes.lift(&placed);
    let change = fixture.desired("{version: '1', rollout: {progressDeadline: 120s}}").await?;
    fixture.champion.ready(change, NOTICED).await?;
    fixture.until_quiet().await
}

#[test]
fn promise_7_a_silent_watch_is_detected_and_catches_up() {
    let deaf_ones = [
        ("silent", "/pods?", Violation::Silence),
        ("silent", "/modelaliases?", Violation::Silence),
        ("hang", "/deployments?", Violation::HangAnswer),
    ];
    let mut cases = vec![
        case("v-gone", async |fixture| gone(fixture).await),
        case("v-start-lists", async |fixture| {
            let lists = |exchange: &Exchange| !exchange.is_watch() && exchange.path.contains("limit=");
            deaf_from_the_start(fixture, Rule::when(lists, Violation::HangAnswer), 7).await
        }),
        case("v-start-watches", async |fixture| {
            deaf_from_the_start(fixture, Rule::when(Exchange::is_watch, Violation::Silence), 7).await
        }),
    ];
    for (how, kind, violation) in deaf_ones {
        let name = format!("v-{how}-{}", kind.trim_matches(['/', '?']));
        cases.push(case(name, async move |fixture| deaf(fixture, kind, violation).await));
    }
    run_all(cases);
}
