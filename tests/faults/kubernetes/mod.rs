//! Faults on the cluster's side: the API server refuses, is silent or is not there, watches break or go
//! stale, objects and nodes vanish. What serves goes on, a person is told what to do, and it goes on by
//! itself when the fault is over.
//!
//! ```text
//! writes      one kind of write fails for a while
//! reads       so does one kind of read
//! rights      one right is taken away
//! start       the API server, or one of our kinds, is not there when the operator starts
//! watches     watches break, hang, or end with 410 Gone
//! stale       what a view that is out of date must not lead to
//! unreadable  an object that this release cannot read
//! admission   an admission policy, or somebody else, changes what Laurel writes
//! pods        pods of the version that serves become unready, crash, or are refused
//! node        a node goes with its pods
//! namespace   a namespace goes with everything in it
//! ```

mod admission;
mod namespace;
mod node;
mod pods;
mod reads;
mod rights;
mod stale;
mod start;
mod unreadable;
mod watches;
mod writes;

pub(crate) use pods::fate;

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    fixture::{Fixture, run_case},
    simulated::machine::RUNTIME,
    wire::{Exchange, Server, Violation},
};

/// How long a fault lasts that is to count as lasting: longer than anything is left alone after a failure.
pub(crate) const LASTING: Duration = Duration::from_secs(9);

/// How long anything may take for which a fault is no excuse: many cases are result at the same time, on a
/// busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// How soon it goes on by itself when a fault is over, on a busy machine.
pub(crate) const RECOVERY: Duration = Duration::from_secs(30);

/// How many cases are result at the same time.
const SIDE_BY_SIDE: usize = 12;

/// A fixture to be result beside others.
pub(crate) fn case<'a>(
    name: impl Into<String>,
    story: impl AsyncFnOnce(&Fixture) -> Result<()> + 'a,
) -> LocalBoxFuture<'a, Result<()>> {
    let name = name.into();
    async move { run_case(&name, story).await }.boxed_local()
}

/// Plays cases, several at the same time, and says of each that fails why.
pub(crate) fn run_all<'a>(cases: impl IntoIterator<Item = LocalBoxFuture<'a, Result<()>>>) {
    let result = stream::iter(cases).buffer_unordered(SIDE_BY_SIDE).collect::<Vec<_>>();
    let result = RUNTIME.block_on(result);
    let failed: Vec<String> =
        result.into_iter().filter_map(|result| Some(format!("{:#}", result.err()?))).collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// No storm: of what `counted` holds for, the operator asked the API server at most twice a second since a
/// moment, and some more in the first second. How often it did.
pub(crate) fn calm(fixture: &Fixture, since: Instant, counted: impl Fn(&Exchange) -> bool) -> Result<usize> {
    const FIRST: f64 = 10.0;
    let asked: Vec<Exchange> = fixture.journal.exchanges();
    let of_these = |exchange: &&Exchange| {
        exchange.server == Server::Kubernetes && exchange.arrived >= since && counted(exchange)
    };
    let asked: Vec<&Exchange> = asked.iter().filter(of_these).collect();
    let seconds = since.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "there are not that many requests")]
    let is_calm = asked.len() as f64 <= FIRST + 2.0 * seconds;
    let reported = || asked.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    ensure!(is_calm, "a storm: {} requests in {seconds:.1} s:\n{}", asked.len(), reported());
    Ok(asked.len())
}

/// What the API server says to somebody who lacks a right; `what` is the resource with its API group, `name`
/// the object's.
fn forbidden(verb: &str, what: &str, name: &str) -> Violation {
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let name = if name.is_empty() { String::new() } else { format!(" {name:?}") };
    let message = format!(
        "{what}{name} is forbidden: User \"system:serviceaccount:laurel-system:laurel\" cannot {verb} \
         resource {resource:?} in API group {group:?} in the namespace \"risk\""
    );
    Violation::kubernetes(403, "Forbidden", &message)
}

/// How the API server ends a watch whose place it does not know any more: what was missed has to be listed.
fn expired() -> Violation {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version: 1 (2)", "reason": "Expired", "code": 410,
    });
    Violation::json(200, &json!({ "type": "ERROR", "object": status }))
}
