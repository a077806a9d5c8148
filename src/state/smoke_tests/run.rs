//! One smoke test, from its start until it has a result or is ended.
#![expect(
    clippy::disallowed_methods,
    reason = "effects: waits between attempts, and reports since when it is unavailable"
)]

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Request, Shared,
    reply::{self, Reply},
};
use crate::{
    decide::SmokeReport,
    registry::{InputExample, limiter::Priority},
    state::PodAccess,
};

/// Examples up to this size are read and sent without waiting; larger ones wait for each other.
pub(super) const SMALL: usize = 1 << 20;
/// The pause before the second attempt. It doubles with each attempt.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How many times in a row a server may report that it is busy: half a minute, with the pauses.
const BUSY_MAX: u32 = 6;

/// One test.
pub(super) struct Test {
    pub(super) request: Request,
    /// Weak, so that the tests end with the operator that owns them.
    pub(super) shared: Weak<Shared>,
}

/// The result of one attempt.
enum Try {
    Ended(SmokeReport),
    /// The server is busy.
    Busy(String),
    /// It proves nothing about the version.
    Unavailable(String),
}

/// Consecutive attempts without a result.
#[derive(Default)]
pub(super) struct Failures {
    since: Option<Timestamp>,
    tries: u32,
    busy: u32,
}

impl Failures {
    /// Counts one attempt and returns its report. The first one may be a coincidence.
    pub(super) fn count(&mut self, why: String, is_busy: bool) -> SmokeReport {
        let since = *self.since.get_or_insert_with(Timestamp::now);
        self.tries += 1;
        self.busy = if is_busy { self.busy + 1 } else { 0 };
        match (self.tries, self.busy) {
            (_, BUSY_MAX..) => SmokeReport::Failed(why),
            (1, _) | (_, 1..) => SmokeReport::Running(Some(why)),
            _ => SmokeReport::Unavailable { since, why },
        }
    }

    pub(super) fn pause(&self) -> Duration {
        PAUSE.saturating_mul(1 << (self.tries - 1).min(8)).min(PAUSE_MAX)
    }
}

/// An example in memory, with its memory permit. Dropped once it is sent.
struct Example {
    body: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Example {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Test {
    pub(super) async fn run(self) {
        let mut failures = Failures::default();
        while let Some(shared) = self.shared.upgrade() {
            let report = match self.once(&shared).await {
                Try::Ended(report) => report,
                Try::Busy(why) => failures.count(why, true),
                Try::Unavailable(why) => failures.count(why, false),
            };
            // It was replaced by another registry, or by the same one with other settings.
            if self.request.registry.is_retired() {
                return shared.begin_again(&self.request);
            }
            let goes_on = matches!(report, SmokeReport::Running(_) | SmokeReport::Unavailable { .. });
            shared.update(&self.request, report);
            drop(shared);
            if !goes_on {
                return;
            }
            tokio::time::sleep(failures.pause()).await;
        }
    }

    async fn once(&self, shared: &Arc<Shared>) -> Try {
        let Request { alias, version, .. } = &self.request;
        if shared.pods.cluster.ready_pod(alias, *version).is_none() {
            return self.no_pod();
        }
        match self.example(shared).await {
            Ok(Some(example)) => self.send(shared, example).await,
            Ok(None) => Try::Ended(SmokeReport::NoInputExample),
            Err(other) => other,
        }
    }

    fn no_pod(&self) -> Try {
        Try::Unavailable(format!("version {} has no ready pod at the moment", self.request.version))
    }

    /// Returns the example; `None` if there is none.
    async fn example(&self, shared: &Arc<Shared>) -> Result<Option<Example>, Try> {
        let first = self.read(shared.example_max.min(SMALL)).await?;
        let (example, room) = match first {
            Some(InputExample::TooLarge) if shared.example_max > SMALL => {
                let room = shared.large.clone().acquire_owned().await.ok();
                (self.read(shared.example_max).await?, room)
            }
            small => (small, None),
        };
        match example {
            None => Ok(None),
            Some(InputExample::Body(body)) => Ok(Some(Example { body, _room: room })),
            Some(InputExample::TooLarge) => Err(Try::Ended(SmokeReport::Skipped(format!(
                "its input example is larger than {} bytes, which is the limit that Laurel runs with \
                 (--input-example-max-bytes)",
                shared.example_max
            )))),
        }
    }

    async fn read(&self, limit: usize) -> Result<Option<InputExample>, Try> {
        let Request { registry, model, version, .. } = &self.request;
        let unread = |why: &str| Try::Unavailable(format!("its input example cannot be read: {why}"));
        let client = registry.client(Priority::Decision).map_err(|cause| unread(&cause.message))?;
        let read = client.input_example(model, *version, limit).await;
        read.map_err(|error| unread(&registry.explain(Some(model), &error).message))
    }

    async fn send(&self, shared: &Shared, example: Example) -> Try {
        let Request { alias, version, port, timeout, .. } = &self.request;
        let Some(address) = shared.pods.cluster.ready_pod(alias, *version) else {
            return self.no_pod();
        };
        // Not a retryable body, which would be kept in memory until the response.
        let body = reqwest::Body::wrap(Full::new(Bytes::from_owner(example)));
        let sent = shared
            .pods
            .http
            .post(PodAccess::url(&address, *port, "/invocations"))
            .header("content-type", "application/json")
            .body(body)
            .timeout(*timeout)
            .send()
            .await;
        let reply = match sent {
            Ok(response) => reply::read(response).await,
            Err(error) if error.is_timeout() && !error.is_connect() => Reply::Failed(format!(
                "POST /invocations was not answered within {}s; if a prediction may take longer, raise \
                 spec.rollout.smokeTest.timeout, and MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT in \
                 spec.serving.env",
                timeout.as_secs_f64()
            )),
            Err(error) => return Try::Unavailable(unreachable(*version, *port, &error)),
        };
        match reply {
            Reply::Passed => Try::Ended(SmokeReport::Passed),
            Reply::Busy(why) => Try::Busy(why),
            Reply::Foreign(why) => Try::Unavailable(why),
            // A terminating pod, or one that lost its node, may return anything.
            Reply::Failed(_) if !shared.pods.cluster.is_ready_pod(alias, *version, &address) => {
                Try::Unavailable("the pod under test is no longer ready".to_owned())
            }
            Reply::Failed(why) => Try::Ended(SmokeReport::Failed(why)),
        }
    }
}

/// Reports that no response came; without the pod's address, which differs between attempts.
fn unreachable(version: crate::api::names::Version, port: u16, error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let cause = innermost.to_string();
    let cause = cause.split(" (os error").next().unwrap_or_default();
    format!(
        "the pods of version {version} do not answer Laurel on port {port}: {cause}; let Laurel's pod in: \
         with a NetworkPolicy by a rule for its namespace, with a mesh that demands mutual TLS by an \
         exception for this port or by taking Laurel into the mesh"
    )
}
