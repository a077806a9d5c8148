//! A load client with a constant rate, over both kinds of connection.
//!
//! The schedule is open: a request is due at its time, whether or not earlier ones were answered, so a slow
//! server is seen as slow answers and not as fewer requests. Nothing is retried. What counts as lost is
//! defined at [`Loss`].

mod client;
mod report;

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

pub(crate) use client::{Client, Request, Target};
pub(crate) use report::{Connection, Loss, Outcome, Report, Sample, quantile};

/// How many requests, how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Requests per second that open a connection of their own.
    pub(crate) fresh_per_second: u32,
    /// Requests per second over connections that are kept open where the server lets them be.
    pub(crate) keep_alive_per_second: u32,
    /// An answer that takes longer is a lost request.
    pub(crate) timeout: Duration,
    /// More requests of one kind than this waiting for an answer, and the next ones are not sent.
    pub(crate) max_in_flight: u32,
    /// The load ends by itself after this time.
    pub(crate) at_most: Duration,
}

impl Plan {
    /// `per_second` requests of each kind, for at most `at_most`.
    pub(crate) fn both(per_second: u32, at_most: Duration) -> Self {
        Self {
            fresh_per_second: per_second,
            keep_alive_per_second: per_second,
            timeout: Duration::from_secs(10),
            max_in_flight: 1000,
            at_most,
        }
    }

    /// The same for a machine with too much to do: a slow answer is no lost request, and servers that cannot
    /// keep up get no queue that they never come to the end of.
    pub(crate) fn patient(self) -> Self {
        let per_second = self.fresh_per_second.max(self.keep_alive_per_second);
        Self { timeout: Duration::from_mins(1), max_in_flight: (8 * per_second).max(20), ..self }
    }
}

/// A request that is overdue by more than this is not sent: the machine stood still, and a burst to catch up
/// would no longer be a constant rate. It is recorded as [`Outcome::NotSent`].
const TOO_LATE: Duration = Duration::from_secs(1);

/// A load that runs until it is stopped or dropped.
pub(crate) struct Load {
    log: Arc<Log>,
    stop: watch::Sender<bool>,
    schedules: JoinSet<()>,
}

impl Load {
    /// Starts sending `request` to `target`.
    pub(crate) fn start(target: &Target, request: &Request, plan: Plan) -> Self {
        let log = Arc::new(Log::default());
        let (stop, _) = watch::channel(false);
        let mut schedules = JoinSet::new();
        for (connection, per_second) in
            [(Connection::Fresh, plan.fresh_per_second), (Connection::KeepAlive, plan.keep_alive_per_second)]
        {
            if per_second > 0 {
                let client = Client::new(target.clone(), request.clone(), connection, plan.timeout);
                let period = Duration::from_secs(1) / per_second;
                let schedule = Schedule { period, max_in_flight: plan.max_in_flight, at_most: plan.at_most };
                schedules.spawn(schedule.run(Arc::new(client), Arc::clone(&log), stop.subscribe()));
            }
        }
        Self { log, stop, schedules }
    }

    /// What was recorded so far.
    pub(crate) fn report(&self) -> Report {
        Report::new(self.log.samples().clone())
    }

    /// How many requests were sent so far, and how many of them were lost.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let samples = self.log.samples();
        let of = |kind: fn(&Outcome) -> bool| samples.iter().filter(|sample| kind(&sample.outcome)).count();
        (of(|outcome| *outcome != Outcome::NotSent), of(|outcome| matches!(outcome, Outcome::Lost(_))))
    }

    /// What was recorded so far of the requests that were due since `from`.
    pub(crate) fn since(&self, from: Instant) -> Report {
        self.ended_since(from).only(|sample| from <= sample.due)
    }

    /// What was recorded so far of the requests that ended since `from`, also of those that were under way
    /// then.
    pub(crate) fn ended_since(&self, from: Instant) -> Report {
        // From the end, so that a look costs the same after hours as after seconds.
        let samples = self.log.samples();
        let recent = samples.iter().rev().take_while(|sample| from <= sample.ended + DISORDER).count();
        let recent = Report::new(samples[samples.len() - recent..].to_vec());
        recent.only(|sample| from <= sample.ended)
    }

    /// Waits until `done` holds for the requests that were due since `from`, or until `deadline` has passed;
    /// whether it holds.
    pub(crate) async fn until(
        &self,
        from: Instant,
        deadline: Duration,
        done: impl Fn(&Report) -> bool,
    ) -> bool {
        let mut grown = self.log.grown.subscribe();
        let reached = async {
            while !done(&self.since(from)) {
                if grown.changed().await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(deadline, reached).await.is_ok()
    }

    /// Waits until clients of both kinds have been answered by the version `to` for a second, and by `from`
    /// no more. How long after `changed` the last answer of `from` came, or `None` when they do not move
    /// before `deadline`.
    pub(crate) async fn moved(
        &self,
        changed: Instant,
        (from, to): (&str, &str),
        deadline: Duration,
    ) -> Option<Duration> {
        let settled = |report: &Report| {
            let first = report.first_answer_by(to);
            first.is_some_and(|first| first.elapsed() > Duration::from_secs(1))
                && report.last_answer_by(from) < report.last_answer_by(to)
        };
        let both = |report: &Report| {
            settled(&report.over(Connection::Fresh)) && settled(&report.over(Connection::KeepAlive))
        };
        let moved = self.until(changed, deadline, both).await;
        // Also of requests that were under way when the change was made.
        let last = self.ended_since(changed).last_answer_by(from);
        moved.then(|| last.map_or(Duration::ZERO, |last| last.saturating_duration_since(changed)))
    }

    /// Sends nothing more, and waits for the answers that are due.
    pub(crate) async fn finish(&mut self) {
        self.stop.send_replace(true);
        while self.schedules.join_next().await.is_some() {}
    }

    /// Sends nothing more, waits for the answers that are due, and reports everything.
    pub(crate) async fn stop(mut self) -> Report {
        self.finish().await;
        self.report()
    }
}

/// How far records may stand out of order: two tasks that end at once write in any order.
const DISORDER: Duration = Duration::from_secs(1);

/// The records, nearly in the order in which the requests ended.
#[derive(Default)]
struct Log {
    samples: Mutex<Vec<Sample>>,
    grown: watch::Sender<()>,
}

impl Log {
    fn samples(&self) -> MutexGuard<'_, Vec<Sample>> {
        self.samples.lock()
    }

    fn push(&self, sample: Sample) {
        self.samples().push(sample);
        self.grown.send_replace(());
    }
}

struct Schedule {
    period: Duration,
    max_in_flight: u32,
    at_most: Duration,
}

impl Schedule {
    async fn run(self, client: Arc<Client>, log: Arc<Log>, mut stop: watch::Receiver<bool>) {
        let in_flight = Arc::new(Semaphore::new(self.max_in_flight as usize));
        let start = Instant::now();
        let ends = start + self.at_most;
        let mut due = start;
        while due < ends {
            tokio::select! {
                () = sleep_until(due) => (),
                _ = stop.wait_for(|stop| *stop) => break,
            }
            let permit = Arc::clone(&in_flight).try_acquire_owned();
            match permit {
                Ok(permit) if due.elapsed() <= TOO_LATE => {
                    let (client, log) = (Arc::clone(&client), Arc::clone(&log));
                    tokio::spawn(async move {
                        log.push(client.send(due).await);
                        drop(permit);
                    });
                }
                _ => log.push(Sample {
                    due,
                    ended: Instant::now(),
                    connection: client.connection(),
                    outcome: Outcome::NotSent,
                }),
            }
            due += self.period;
        }
        // Every permit back means that every request has ended, each within the client's timeout.
        let _all = in_flight.acquire_many(self.max_in_flight).await;
    }
}
