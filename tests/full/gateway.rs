//! Behind a Gateway, under load: shares, canaries, promotions and rollbacks.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use laurel::api::ModelAlias;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    fixture::{ALL_PODS, Fixture, PATIENCE, run},
    support::{
        alias::{self, Change},
        load::{Load, Plan, Report, Request},
        service::{gateway_traffic, through_gateway},
    },
};

/// Pings per second over each kind of connection: enough to count shares within a minute.
const PINGS: u32 = 90;

/// How many answers a share is counted over.
const ENOUGH: usize = 5_000;

/// How far a measured share may be from the desired one, in points of per cent. With [`ENOUGH`] answers at 10 %
/// that is 3.5 standard deviations.
const TOLERANCE: f64 = 1.5;

/// Time limit from the accepted rollback to the last response of the other version.
const IMMEDIATELY: Duration = Duration::from_secs(2);

/// Clients of both kinds that go through the Gateway.
struct Outside {
    pings: Load,
    predictions: Load,
}

impl Outside {
    async fn begin(fixture: &Fixture, path: &str) -> Result<Self> {
        let way = through_gateway(&fixture.cluster, path).await?;
        let longest = Duration::from_mins(6);
        let ping = Request::get("/ping");
        let pings = Load::start(&way.target, &ping, Plan::both(PINGS, longest).patient());
        let prediction = Request::post_json("/invocations", fixture.example().await?);
        let predictions = Load::start(&way.target, &prediction, Plan::both(5, longest).patient());
        Ok(Self { pings, predictions })
    }

    fn since(&self, moment: Instant) -> Report {
        Report::of_all([&self.pings, &self.predictions].map(|load| load.since(moment)))
    }

    /// Waits until clients of both kinds have moved. Returns the time from the change to the last old response.
    async fn moved(&self, change: Change, from: &str, to: &str) -> Result<Duration> {
        let moved = self.pings.moved(change.accepted, (from, to), PATIENCE).await;
        moved.with_context(|| {
            format!("clients do not move from {from} to {to}: {}", self.since(change.accepted))
        })
    }

    async fn end(self) -> Report {
        Report::of_all([self.pings.stop().await, self.predictions.stop().await])
    }
}

fn desired(path: &str, version: &str, rollout: &Value) -> Value {
    json!({
        "version": version,
        "traffic": gateway_traffic(path),
        "rollout": rollout,
    })
}

/// The share of a version in the status, in per cent.
fn share(malias: &ModelAlias, version: &str) -> Option<u32> {
    let status = alias::status(malias);
    status.traffic.iter().find(|share| share.version.to_string() == version).map(|share| share.weight)
}

/// Waits until the status gives a version its share, and until that is in effect.
async fn step(fixture: &Fixture, change: Change, version: &str, weight: u32) -> Result<Instant> {
    let what = format!("{weight} % for version {version}");
    let has = |malias: &ModelAlias| share(malias, version) == Some(weight);
    let seen = fixture.champion.until_since(change.accepted, &what, PATIENCE, has).await?;
    Ok(seen.at + Duration::from_secs(1))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a test are far below 2^52")]
fn measured(report: &Report, version: &str) -> f64 {
    let answered = report.answered();
    let all: usize = answered.values().sum();
    100.0 * answered.get(version).copied().unwrap_or_default() as f64 / all.max(1) as f64
}

#[test]
fn promises_2_and_5_behind_a_gateway_shares_are_as_desired_and_nothing_is_lost() {
    run("gateway", ALL_PODS, async |fixture| {
        let path = "/laurel-test-gateway";
        let blue_green = json!({ "strategy": "BlueGreen" });
        let steps = json!([{ "weight": 10, "atLeast": "45s" }, { "weight": 50, "atLeast": "30s" }]);
        let canary = json!({ "strategy": "Canary", "steps": steps });
        fixture.good_versions(2).await?;
        fixture.get(desired(path, "1", &canary)).await?;
        let outside = Outside::begin(fixture, path).await?;
        let inside = fixture.clients().await?;

        let promoted = fixture.desired(desired(path, "2", &canary)).await?;
        let begun = step(fixture, promoted, "2", 10).await?;
        outside.pings.until(begun, Duration::from_secs(43), |seen| seen.sent() >= ENOUGH).await;
        let seen = outside.pings.since(begun);
        println!("  10 % desired, {:.2} % measured: {seen}", measured(&seen, "2"));
        ensure!(seen.sent() >= ENOUGH / 2, "too few requests to count: {seen}");
        ensure!((measured(&seen, "2") - 10.0).abs() < TOLERANCE, "the share is not 10 %: {seen}");
        inside.stay_on(begun, "1").await?;
        ensure!(inside.end().await.lost() == 0, "requests to the Service were lost");

        let half = step(fixture, promoted, "2", 50).await?;
        outside.pings.until(half, Duration::from_secs(8), |seen| seen.sent() >= ENOUGH / 5).await;
        let seen = outside.pings.since(half);
        println!("  50 % desired, {:.2} % measured: {seen}", measured(&seen, "2"));
        ensure!((measured(&seen, "2") - 50.0).abs() < 4.0 * TOLERANCE, "the share is not 50 %: {seen}");

        let back = fixture.get(desired(path, "1", &canary)).await?;
        let moved = outside.moved(back, "2", "1").await?;
        println!("  reverted at 50 %: last response of version 2 {moved:?} after it was accepted");
        ensure!(moved < IMMEDIATELY, "the revert took {moved:?}");

        let change = fixture.get(desired(path, "2", &blue_green)).await?;
        outside.moved(change, "1", "2").await?;
        let before = Instant::now();
        let change = fixture.get(desired(path, "1", &blue_green)).await?;
        let moved = outside.moved(change, "2", "1").await?;
        println!("  warm rollback: last response of version 2 {moved:?} after it was accepted");
        ensure!(moved < IMMEDIATELY, "the rollback took {moved:?}");
        ensure!(fixture.pods.started_since(before).is_empty(), "a warm rollback started a pod");

        let report = outside.end().await;
        println!("  through the Gateway: {report}");
        ensure!(report.lost() == 0, "requests were lost: {report}");
        ensure!(report.sent() > 2 * report.not_sent(), "the clients could not keep their rate: {report}");
        Ok(())
    });
}
