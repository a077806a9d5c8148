//! What a view that is out of date must not lead to.
//!
//! No controller can know that a pod dies at the very moment at which traffic moves to it. What holds is that
//! traffic is moved by what the API server says at that moment, not by what a watch said some time ago.

use std::time::Duration;

use anyhow::{Result, ensure};
use laurel::api::condition::{ConditionType, Reason};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, calm, case, pods::fate, run_all};
use crate::{
    fixture::Fixture,
    simulated::look::selected,
    support::alias::{holds, message},
    wire::{Rule, Violation},
};

/// So many of the two pods of the warm version are ready no more, and the watch of pods does not say so. Then
/// somebody rolls back to it.
async fn rolled_back_to_dead_pods(fixture: &Fixture, dead: usize) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    fixture.get("version: '2'").await?;
    fixture.until_named("champion", Some("2")).await?;
    let silence = fixture.kubernetes.place(Rule::watches("/pods?", Violation::Silence));
    fixture.kubernetes.drop_streams();
    silence.until_struck(1, PATIENCE).await?;
    fate(fixture, "1", Some("never-ready"), dead).await?;
    let began = Instant::now();
    let change = fixture.desired("version: '1'").await?;
    let refused = fixture.champion.reason(change, Reason::WaitingForPods, PATIENCE).await?.object;
    let seen = format!("{} and not 2 pods of version 1", 2 - dead);
    ensure!(message(&refused).contains(&seen), "{}", message(&refused));
    sleep(Duration::from_secs(3)).await; // Time itself is the subject: it is not tried again and again.
    calm(fixture, began, |exchange| !exchange.is_watch())?;
    ensure!(selected(fixture).await? == "2", "traffic moved to pods that are not ready");
    ensure!(holds(&fixture.champion.last().unwrap(), ConditionType::Serving), "what serves goes on");
    fixture.kubernetes.lift(&silence);
    fixture.kubernetes.drop_streams();
    fate(fixture, "1", None, dead).await?;
    fixture.champion.ready(change, PATIENCE).await?;
    ensure!(selected(fixture).await? == "1", "traffic did not move");
    fixture.until_quiet().await
}

/// The pods of a new version become ready and unready again, and the watch of pods falls silent in between.
async fn promoted_to_dead_pods(fixture: &Fixture) -> Result<()> {
    fixture.operator.start().await?;
    fixture.registered(2).await?;
    fixture.get("version: '1'").await?;
    // Traffic cannot move: so that the version is seen ready first.
    let held = fixture.kubernetes.place(Rule::on(
        hyper::Method::PATCH,
        "/services/champion?",
        Violation::kubernetes(500, "InternalError", "etcdserver: leader changed"),
    ));
    let change = fixture.desired("version: '2'").await?;
    held.until_struck(1, PATIENCE).await?;
    let silence = fixture.kubernetes.place(Rule::watches("/pods?", Violation::Silence));
    fixture.kubernetes.drop_streams();
    silence.until_struck(1, PATIENCE).await?;
    fate(fixture, "2", Some("never-ready"), 2).await?;
    fixture.kubernetes.lift(&held);
    let refused = fixture.champion.reason(change, Reason::WaitingForPods, PATIENCE).await?.object;
    ensure!(holds(&refused, ConditionType::Serving), "what serves goes on");
    sleep(Duration::from_secs(6)).await; // Time itself is the subject: it is tried again meanwhile.
    ensure!(selected(fixture).await? == "1", "traffic moved to pods that are not ready");
    fixture.kubernetes.lift(&silence);
    fixture.kubernetes.drop_streams();
    fate(fixture, "2", None, 2).await?;
    fixture.champion.ready(change, PATIENCE).await?;
    ensure!(selected(fixture).await? == "2", "traffic did not move");
    fixture.until_quiet().await
}

#[test]
fn promise_1_only_ready_versions_get_traffic_even_if_the_watch_is_stale() {
    let cases = [
        case("t-rollback", async |fixture| rolled_back_to_dead_pods(fixture, 2).await),
        case("t-half", async |fixture| rolled_back_to_dead_pods(fixture, 1).await),
        case("t-promotion", async |fixture| promoted_to_dead_pods(fixture).await),
    ];
    run_all(cases);
}
