//! Clients that come through the Gateway, and what the status says of shares.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use laurel::api::ModelAlias;
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, PATIENCE},
    support::{
        alias::{self, Change},
        load::{Load, Plan, Report, Request},
        service::through_gateway,
    },
};

/// Pings per second over each kind of connection: enough to count shares within a minute.
const PINGS: u32 = 90;

/// How many answers a share is counted over, and how far it may then be from the desired one, in points of
/// per cent: at 10 %, that is 3.5 standard deviations.
pub(crate) const CLOSELY: (usize, f64) = (5_000, 1.5);

/// The same for a shorter look: at 50 %, 4.2 standard deviations.
pub(crate) const ROUGHLY: (usize, f64) = (1_200, 6.0);

/// How soon after the status has a share every request follows it.
const IN_EFFECT: Duration = Duration::from_secs(1);

/// Clients of both kinds that go through the Gateway.
pub(crate) struct Outside {
    pub(crate) pings: Load,
    predictions: Load,
}

impl Outside {
    pub(crate) async fn begin(fixture: &Fixture, path: &str) -> Result<Self> {
        let way = through_gateway(&fixture.cluster, path).await?;
        let longest = Duration::from_mins(6);
        let ping = Request::get("/ping");
        let pings = Load::start(&way.target, &ping, Plan::both(PINGS, longest).patient());
        let prediction = Request::post_json("/invocations", fixture.example().await?);
        let predictions = Load::start(&way.target, &prediction, Plan::both(5, longest).patient());
        Ok(Self { pings, predictions })
    }

    pub(crate) fn since(&self, moment: Instant) -> Report {
        Report::of_all([&self.pings, &self.predictions].map(|load| load.since(moment)))
    }

    /// Waits until clients of both kinds have moved. Returns the time from the change to the last old
    /// response.
    pub(crate) async fn moved(&self, change: Change, from: &str, to: &str) -> Result<Duration> {
        let moved = self.pings.moved(change.accepted, (from, to), PATIENCE).await;
        moved.with_context(|| {
            format!("clients do not move from {from} to {to}: {}", self.since(change.accepted))
        })
    }

    /// Waits for `enough` responses, and asserts that a version gave its share of them in per cent, `within`
    /// so many points.
    pub(crate) async fn share(
        &self,
        from: Instant,
        (version, share): (&str, f64),
        (enough, within): (usize, f64),
    ) -> Result<()> {
        self.pings.until(from, PATIENCE, |seen| seen.sent() >= enough).await;
        let seen = self.pings.since(from);
        println!("  {share} % desired, {:.2} % measured: {seen}", seen.share(version));
        ensure!(seen.sent() >= enough, "too few requests to count: {seen}");
        ensure!((seen.share(version) - share).abs() < within, "the share is not {share} %: {seen}");
        Ok(())
    }

    /// Asserts that since a given time only one version has answered, many times.
    pub(crate) async fn stay_on(&self, moment: Instant, version: &str) -> Result<()> {
        self.pings.until(moment, PATIENCE, |report| report.sent() >= 500).await;
        let answered = self.since(moment).answered();
        ensure!(answered.keys().eq([version]), "requests did not stay on version {version}: {answered:?}");
        Ok(())
    }

    /// Ends the load, and fails if a request was lost.
    pub(crate) async fn leave(self) -> Result<()> {
        let report = Report::of_all([self.pings.stop().await, self.predictions.stop().await]);
        println!("  through the Gateway: {report}");
        ensure!(report.lost() == 0, "requests were lost: {report}");
        ensure!(report.sent() > 2 * report.not_sent(), "the clients could not keep their rate: {report}");
        Ok(())
    }
}

/// Waits for a status after a change. Returns since when requests follow it.
pub(crate) async fn in_effect(
    fixture: &Fixture,
    since: Instant,
    what: &str,
    wanted: impl Fn(&ModelAlias) -> bool,
) -> Result<Instant> {
    Ok(fixture.champion.until_since(since, what, PATIENCE, wanted).await?.at + IN_EFFECT)
}

/// Waits until the status gives a version its share, and until that is in effect.
pub(crate) async fn step(fixture: &Fixture, change: Change, version: &str, weight: u32) -> Result<Instant> {
    let what = format!("{weight} % for version {version}");
    let has = |malias: &ModelAlias| alias::share(malias, version) == Some(weight);
    in_effect(fixture, change.accepted, &what, has).await
}
