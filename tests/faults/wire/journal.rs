//! Every request through a proxy, in one order for both.

use std::{fmt, time::Duration};

use anyhow::{Result, anyhow, ensure};
use hyper::Method;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// The server of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The API server.
    Kubernetes,
    /// MLflow.
    Registry,
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in progress.
    Open,
    /// The server responded with this status.
    Answered(u16),
    /// A rule responded with this status instead of the server.
    Invented(u16),
    /// It did not reach the server.
    Kept,
    /// The server could not be reached, or the connection broke.
    Failed(String),
}

/// A request, and its outcome.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// The number among the requests of both proxies, from 1.
    pub(crate) number: usize,
    /// The number among the writes of both proxies, from 1; `None` if not a write. Events and leases do not
    /// count: no decision depends on them.
    pub(crate) write: Option<usize>,
    pub(crate) server: Server,
    /// The port of the proxy that it took.
    pub(super) port: u16,
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) body: String,
    pub(crate) arrived: Instant,
    /// When the outcome was known.
    pub(crate) ended: Option<Instant>,
    pub(crate) outcome: Outcome,
}

impl Exchange {
    /// Whether it opens a watch.
    pub(crate) fn is_watch(&self) -> bool {
        self.server == Server::Kubernetes
            && (self.path.contains("watch=true") || self.path.contains("watch=1"))
    }

    /// Whether it changes something on the server.
    fn is_write(&self) -> bool {
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&self.method);
        let path = self.path.split('?').next().unwrap_or_default();
        let courtesy = path.split('/').any(|part| part == "events" || part == "leases");
        !reads
            && match self.server {
                Server::Kubernetes => !courtesy,
                // Some of MLflow's searches use POST.
                Server::Registry => !path.ends_with("/search"),
            }
    }

    /// Whether the server performed it.
    pub(crate) fn succeeded(&self) -> bool {
        matches!(self.outcome, Outcome::Answered(status) if (200..300).contains(&status))
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, server, method, path, outcome, body, .. } = self;
        write!(f, "#{number} ")?;
        if let Some(write) = self.write {
            write!(f, "(write {write}) ")?;
        }
        write!(f, "{server:?} {method} {path} → {outcome:?}")?;
        if self.write.is_some() {
            write!(f, " {}", body.chars().take(400).collect::<String>())?;
        }
        Ok(())
    }
}

/// Every request of an operator, since its fixture was created.
#[derive(Default)]
pub(crate) struct Journal {
    exchanges: Mutex<Vec<Exchange>>,
    grown: watch::Sender<()>,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Vec<Exchange>> {
        self.exchanges.lock()
    }

    /// Adds a request that arrived.
    pub(super) fn begin(
        &self,
        (server, port): (Server, u16),
        method: Method,
        path: String,
        body: String,
    ) -> Exchange {
        let arrived = Instant::now();
        let outcome = Outcome::Open;
        let mut exchanges = self.lock();
        let number = exchanges.len() + 1;
        let mut exchange =
            Exchange { number, write: None, server, port, method, path, body, arrived, ended: None, outcome };
        if exchange.is_write() {
            let before = exchanges.iter().rev().find_map(|exchange| exchange.write);
            exchange.write = Some(before.unwrap_or_default() + 1);
        }
        exchanges.push(exchange.clone());
        drop(exchanges);
        self.grown.send_replace(());
        exchange
    }

    /// Sets the outcome of a request.
    pub(super) fn end(&self, exchange: &mut Exchange, outcome: Outcome) {
        exchange.outcome = outcome;
        exchange.ended = Some(Instant::now());
        if let Some(entry) = self.lock().get_mut(exchange.number - 1) {
            entry.clone_from(exchange);
        }
        self.grown.send_replace(());
    }

    /// Returns every request so far, oldest first.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.lock().clone()
    }

    /// Returns every write so far, oldest first.
    pub(crate) fn writes(&self) -> Vec<Exchange> {
        self.lock().iter().filter(|exchange| exchange.write.is_some()).cloned().collect()
    }

    /// Returns the number of writes so far.
    pub(crate) fn count(&self) -> usize {
        self.lock().iter().rev().find_map(|exchange| exchange.write).unwrap_or_default()
    }

    /// Waits for a request that matches `wanted`. Fails with an error that names `what` after the deadline.
    pub(crate) async fn until(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Exchange) -> bool,
    ) -> Result<Exchange> {
        let mut grown = self.grown.subscribe();
        let found = async {
            loop {
                let found = self.lock().iter().find(|exchange| wanted(exchange)).cloned();
                if let Some(found) = found {
                    return Ok(found);
                }
                grown.changed().await?;
            }
        };
        timeout(deadline, found).await.map_err(|_| anyhow!("not within {deadline:?}: {what}"))?
    }

    /// Waits until nothing was written for a while. Fails after the deadline.
    pub(crate) async fn until_quiet(&self, quiet: Duration, deadline: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let last = self.writes().last().map_or(began, |write| write.arrived.max(began));
            let left = quiet.saturating_sub(last.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            ensure!(
                began.elapsed() + left < deadline,
                "it is not quiet within {deadline:?}:\n{}",
                self.writes_since(began)
            );
            sleep(left).await;
        }
    }

    /// Formats the writes since a given time.
    pub(crate) fn writes_since(&self, moment: Instant) -> String {
        let writes = self.writes().into_iter().filter(|write| write.arrived >= moment);
        let line =
            |write: Exchange| format!("{:8.3} s {write}", write.arrived.duration_since(moment).as_secs_f64());
        writes.map(line).collect::<Vec<_>>().join("\n")
    }
}
