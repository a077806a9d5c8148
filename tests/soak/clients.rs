//! A ModelAlias's clients, and which version may answer them at which time.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::plan::Plan;
use crate::support::{
    load::{Connection, Load, Outcome, Plan as LoadPlan, Report, Request, Sample},
    service::Way,
};

/// Requests per second over each kind of connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// A prediction of the model's own input example.
    pub(super) predictions: u32,
    /// `GET /ping`, which costs the server next to nothing.
    pub(super) pings: u32,
}

/// Clients that send at a constant rate, over new and over kept connections.
pub(super) struct Clients {
    loads: Vec<Load>,
    allowed: Mutex<Allowed>,
    /// The versions of the challenger, which may answer at any time.
    challenger: Vec<&'static str>,
    _way: Way,
}

impl Clients {
    /// Starts them; the first version of the plan serves.
    pub(super) fn start(way: Way, prediction: &Request, plan: &Plan) -> Self {
        let rate = plan.rate;
        let challenger = plan.challenger().map(|challenger| challenger.versions.to_vec());
        let began = Instant::now();
        let both = |per_second| LoadPlan::both(per_second, Duration::from_hours(24)).patient();
        let loads = vec![
            Load::start(&way.target, prediction, both(rate.predictions)),
            Load::start(&way.target, &Request::get("/ping"), both(rate.pings)),
        ];
        let mut allowed = Allowed::default();
        allowed.from(began, [plan.versions[0]]);
        Self { loads, allowed: Mutex::new(allowed), challenger: challenger.unwrap_or_default(), _way: way }
    }

    /// Stops sending, and waits for outstanding responses.
    pub(super) async fn finish(&mut self) {
        for load in &mut self.loads {
            load.finish().await;
        }
    }

    /// Returns how many requests were sent so far, and how many of them were lost.
    pub(super) fn counts(&self) -> (usize, usize) {
        let counts = self.loads.iter().map(Load::counts);
        counts.fold((0, 0), |(sent, lost), (more_sent, more_lost)| (sent + more_sent, lost + more_lost))
    }

    /// Everything so far.
    pub(super) fn report(&self) -> Report {
        Report::of_all(self.loads.iter().map(Load::report))
    }

    /// Returns the requests that ended since a given time.
    pub(super) fn ended_since(&self, moment: Instant) -> Report {
        Report::of_all(self.loads.iter().map(|load| load.ended_since(moment)))
    }

    /// From now on any of these versions may answer.
    pub(super) fn may_be_answered_by<const N: usize>(&self, versions: [&str; N]) -> Instant {
        let now = Instant::now();
        self.allowed.lock().from(now, versions);
        now
    }

    /// Waits until each kind of client has been answered only by `version` for `this_long`, and asserts that
    /// since `changed` no disallowed version answered.
    ///
    /// With `at_once`, traffic has moved with the first response of `version`: no later request may be
    /// answered by another version. Otherwise it has moved when the last client has.
    pub(super) async fn stay_on(
        &self,
        changed: Instant,
        version: &str,
        (this_long, at_once): (Duration, bool),
        deadline: Duration,
    ) -> Result<()> {
        let began = Instant::now();
        let settled = loop {
            let reports = self.loads.iter().map(|load| self.own(&load.since(changed)));
            let kinds =
                reports.flat_map(|it| [Connection::Fresh, Connection::KeepAlive].map(|kind| it.over(kind)));
            let settled: Option<Vec<Instant>> = kinds.map(|kind| answered_alone(&kind, version)).collect();
            match settled.and_then(|all| all.into_iter().max()) {
                Some(settled) if settled.elapsed() >= this_long => break settled,
                _ => sleep(Duration::from_millis(50)).await,
            }
            let seen = || Report::of_all(self.loads.iter().map(|load| load.since(changed)));
            ensure!(began.elapsed() < deadline, "clients are not answered by {version} alone: {}", seen());
        };
        let report = Report::of_all(self.loads.iter().map(|load| load.since(changed)));
        let first = report.first_answer_by(version).filter(|_| at_once);
        self.allowed.lock().from(first.unwrap_or(settled), [version]);
        Ok(())
    }

    /// Returns the responses in `report` from versions that were not allowed.
    pub(super) fn strays(&self, report: &Report) -> Vec<Sample> {
        let allowed = self.allowed.lock();
        let own = self.own(report);
        own.samples().iter().filter(|sample| !allowed.allows(sample)).cloned().collect()
    }

    /// Returns the requests that the challenger did not answer.
    fn own(&self, report: &Report) -> Report {
        report.only(|sample| sample.version().is_none_or(|version| !self.challenger.contains(&version)))
    }
}

/// Returns since when only `version` has answered.
fn answered_alone(report: &Report, version: &str) -> Option<Instant> {
    let by_it = |sample: &&Sample| sample.version() == Some(version);
    let other = report.samples().iter().filter(|sample| sample.is_answered() && !by_it(sample));
    let last_other = other.map(|sample| sample.ended).max();
    let alone = report.samples().iter().filter(by_it).filter(|sample| Some(sample.due) > last_other);
    alone.map(|sample| sample.ended).min()
}

/// Which versions may answer, from which time on.
#[derive(Default)]
struct Allowed(Vec<(Instant, BTreeSet<String>)>);

impl Allowed {
    fn from<const N: usize>(&mut self, moment: Instant, versions: [&str; N]) {
        self.0.push((moment, versions.map(str::to_owned).into()));
    }

    /// Whether the responding version was allowed at some time between request and response.
    fn allows(&self, sample: &Sample) -> bool {
        let Outcome::Answered { version: Some(version) } = &sample.outcome else {
            return !sample.is_answered();
        };
        let begun = self.0.partition_point(|(from, _)| *from <= sample.ended);
        let over = self.0.partition_point(|(from, _)| *from <= sample.due).saturating_sub(1);
        self.0[over..begun].iter().any(|(_, versions)| versions.contains(version))
    }
}
