//! Faults of the cluster: the API server rejects requests, is silent or down, watches break or go stale,
//! objects and nodes vanish. Serving continues, the condition names the next step, and work continues by
//! itself when the fault is over.
//!
//! ```text
//! writes      one kind of write fails for a while
//! reads       one kind of read fails for a while
//! rights      one permission is revoked
//! start       the API server, or one of our kinds, is missing when the operator starts
//! watches     watches break, hang, or end with 410 Gone
//! stale       what a stale view must not lead to
//! unreadable  an object that this release cannot parse
//! admission   an admission policy, or somebody else, changes what Laurel writes
//! pods        pods of the serving version become unready, crash, or are rejected
//! node        a node is lost with its pods
//! namespace   a namespace is deleted with everything in it
//! lease       of two operators one acts, also when it is killed, paused or cut off
//! ```

mod admission;
mod lease;
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

pub(crate) use crate::fixture::PATIENCE;

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

/// Duration of a lasting fault: longer than any backoff.
pub(crate) const LASTING: Duration = Duration::from_secs(9);

/// Time limit for recovery after a fault, on a busy machine.
pub(crate) const RECOVERY: Duration = Duration::from_secs(30);

/// Maximum number of cases at a time.
const SIDE_BY_SIDE: usize = 12;

/// A case to run beside others.
pub(crate) fn case<'a>(
    name: impl Into<String>,
    story: impl AsyncFnOnce(&Fixture) -> Result<()> + 'a,
) -> LocalBoxFuture<'a, Result<()>> {
    let name = name.into();
    async move { run_case(&name, story).await }.boxed_local()
}

/// Runs cases, several at a time, and reports each that fails.
pub(crate) fn run_all<'a>(cases: impl IntoIterator<Item = LocalBoxFuture<'a, Result<()>>>) {
    let result = stream::iter(cases).buffer_unordered(SIDE_BY_SIDE).collect::<Vec<_>>();
    let result = RUNTIME.block_on(result);
    let failed: Vec<String> =
        result.into_iter().filter_map(|result| Some(format!("{:#}", result.err()?))).collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// Asserts that there was no storm: since a given time, the operator sent the API server at most two requests
/// a second that match `counted`, and a few more in the first second. Returns their number.
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

/// The API server's response for a missing permission; `what` is the resource with its API group, `name` the
/// object's.
fn forbidden(verb: &str, what: &str, name: &str) -> Violation {
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let name = if name.is_empty() { String::new() } else { format!(" {name:?}") };
    let message = format!(
        "{what}{name} is forbidden: User \"system:serviceaccount:laurel-system:laurel\" cannot {verb} \
         resource {resource:?} in API group {group:?} in the namespace \"risk\""
    );
    Violation::kubernetes(403, "Forbidden", &message)
}

/// How the API server ends a watch whose resource version has expired: the client has to list again.
fn expired() -> Violation {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version: 1 (2)", "reason": "Expired", "code": 410,
    });
    Violation::json(200, &json!({ "type": "ERROR", "object": status }))
}
