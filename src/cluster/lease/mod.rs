//! Of several operators one acts: the one that holds the Lease.
//!
//! ```text
//! election   what a candidate does next (pure)
//! overlap    other installations, which must not act on the same objects
//! ```
//!
//! The holder renews the Lease and, with each renewal, the permission of its [`Fence`]. The others watch:
//! they take a Lease that is released at once, and one that is not renewed when it expires. Every write names
//! the version of the Lease that it replaces, so of two that take it at the same time one fails.
//!
//! The crates for this write without that precondition, believe the other machine's clock, wait until a
//! Lease expires also if it was released, and do not say when a holder that is cut off has to stop.

pub(crate) mod election;
mod overlap;

pub use overlap::Overlap;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, TryStreamExt, future::OptionFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher::watch_object},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::election::{Seen, Step, Timing};
use super::{backoff::WatchBackoff, error::cause};
use crate::fence::Fence;

/// The name of the Lease.
pub const NAME: &str = "laurel";

/// The annotation with the address of the holder's webhook endpoint, to which the others forward connections.
pub const WEBHOOK_ADDRESS: &str = "laurel.dev/webhook-address";

/// The annotation that says which namespaces the holder watches: `cluster` or `namespace`. The chart reads
/// it.
pub const SCOPE: &str = "laurel.dev/scope";

/// What a candidate is.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name in the Lease: unique, and the same only for processes of which the earlier one has ended.
    pub name: String,
    /// What the Lease says of its holder, as annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether it acts in the whole cluster.
    pub is_cluster_wide: bool,
}

/// Whether this process acts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Another one acts, whose annotations these are.
    #[default]
    Standby,
    /// This one acts, since then.
    Leader(Instant),
    /// This one acted, and has to end: it could not renew the Lease in time, or somebody else took it.
    Lost(String),
}

/// The Lease as last read.
struct Current {
    /// As the API server returned it; `None` if there is none.
    lease: Option<Lease>,
    seen: Seen,
}

/// Takes part in the election.
pub struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    timing: Timing,
    fence: Fence,
    role: watch::Sender<Role>,
    holder: watch::Sender<BTreeMap<String, String>>,
    readable: watch::Sender<Option<Result<(), String>>>,
    overlap: watch::Sender<Option<Overlap>>,
    current: Current,
    renewed: Option<Instant>,
}

/// What others may know of an election.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Whether this process acts.
    pub role: watch::Receiver<Role>,
    /// The annotations of the Lease, by which its holder is reached.
    pub holder: watch::Receiver<BTreeMap<String, String>>,
    /// Whether the Lease can be read, or why not; `None` until that is known.
    pub readable: watch::Receiver<Option<Result<(), String>>>,
    /// Whether other installations act on the same objects; `None` until that is known.
    pub overlap: watch::Receiver<Option<Overlap>>,
}

impl Election {
    /// Takes part in the election for the Lease of the candidate's namespace. `client` must not be fenced.
    #[must_use]
    pub fn new(client: Client, candidate: Candidate, fence: Fence) -> (Self, Standing) {
        let (role, holder, readable) =
            (watch::Sender::default(), watch::Sender::default(), watch::Sender::default());
        let overlap = watch::Sender::new((!candidate.is_cluster_wide).then_some(Overlap::None));
        let standing = Standing {
            role: role.subscribe(),
            holder: holder.subscribe(),
            readable: readable.subscribe(),
            overlap: overlap.subscribe(),
        };
        let api = Api::namespaced(client, &candidate.namespace);
        let current = Current { lease: None, seen: Seen::nobody(Instant::now()) };
        let timing = Timing::default();
        (
            Self { api, candidate, timing, fence, role, holder, readable, overlap, current, renewed: None },
            standing,
        )
    }

    /// Takes part until the Lease is lost, or until `stop`; then it is released, once the last writes have
    /// ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changes = changes(&self.api);
        // Its end is that of this future.
        let others: OptionFuture<_> = self
            .candidate
            .is_cluster_wide
            .then(|| {
                let (client, own) = (self.api.clone().into_client(), self.candidate.namespace.clone());
                overlap::watch_installations(client, own, self.overlap.clone())
            })
            .into();
        tokio::pin!(others);
        let mut overlap = self.overlap.subscribe();
        // Read before the first step: to take a Lease, its version must be known.
        let mut is_known = false;
        loop {
            let now = Instant::now();
            let next = if is_known && self.may_act() {
                election::next(now, &self.candidate.name, &self.current.seen, self.renewed, &self.timing)
            } else {
                Step::Wait(self.timing.retry)
            };
            let wait = match next {
                Step::Take => self.take().await.unwrap_or(self.timing.retry),
                Step::Wait(wait) => wait,
            };
            if let Some(lost) = self.lost() {
                self.fence.close();
                self.role.send_replace(Role::Lost(lost));
                return;
            }
            let wait = wait.min(self.until_fenced());
            tokio::select! {
                () = stop.cancelled() => return self.release().await,
                Some(change) = changes.next() => match change {
                    Ok(lease) => {
                        is_known = true;
                        self.readable.send_if_modified(|known| known.replace(Ok(())) != Some(Ok(())));
                        self.see(lease);
                    }
                    Err(error) if !is_known => drop(self.readable.send_replace(Some(Err(error)))),
                    Err(_) => {}
                },
                Some(()) = &mut others => {}
                _ = overlap.changed() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Whether no older installation acts on the same objects.
    fn may_act(&self) -> bool {
        self.overlap.borrow().as_ref().is_some_and(|overlap| overlap.blocker().is_none())
    }

    fn is_leader(&self) -> bool {
        matches!(*self.role.borrow(), Role::Leader(_))
    }

    /// How long it may still write.
    fn until_fenced(&self) -> Duration {
        let until = self.renewed.filter(|_| self.is_leader()).map(|renewed| renewed + self.timing.writes);
        until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Why this process, which acted, may not act any more.
    fn lost(&self) -> Option<String> {
        let holder = self.current.seen.holder.as_deref();
        if !self.is_leader() {
            return None;
        }
        if holder != Some(&self.candidate.name) {
            return Some(format!("the Lease belongs to {}", holder.unwrap_or("nobody")));
        }
        if let Some(blocker) = self.overlap.borrow().as_ref().and_then(Overlap::blocker) {
            return Some(blocker.to_owned());
        }
        let limit = self.timing.writes;
        (self.until_fenced() == Duration::ZERO)
            .then(|| format!("the Lease could not be renewed within {} s", limit.as_secs()))
    }

    /// Takes or renews the Lease. Returns when to go on.
    async fn take(&mut self) -> Option<Duration> {
        let sent = Instant::now();
        let desired = self.desired();
        let written = match &self.current.lease {
            Some(_) => self.within(self.api.replace(NAME, &PostParams::default(), &desired)).await,
            None => self.within(self.api.create(&PostParams::default(), &desired)).await,
        }?;
        let was_leader = self.is_leader();
        self.see(Some(written));
        self.renewed = Some(sent);
        self.fence.allow(sent + self.timing.writes, sent + self.timing.ends);
        if !was_leader {
            tracing::info!(lease = %format!("{}/{NAME}", self.candidate.namespace), "this operator acts");
            self.role.send_replace(Role::Leader(Instant::now()));
        }
        Some(Duration::ZERO)
    }

    /// Returns the answer to a request, if there is one in time; logs why not.
    async fn within(&self, request: impl Future<Output = kube::Result<Lease>>) -> Option<Lease> {
        let error = match timeout(self.timing.renew, request).await {
            Ok(Ok(lease)) => return Some(lease),
            // Another one was faster; the watch shows it.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return None,
            Ok(Err(error)) => cause(&error),
            Err(_) => format!("no answer within {} s", self.timing.renew.as_secs()),
        };
        tracing::warn!(
            namespace = self.candidate.namespace,
            error,
            "cannot write the Lease {NAME:?}, trying again"
        );
        None
    }

    /// The Lease with this candidate as its holder.
    fn desired(&self) -> Lease {
        let now = MicroTime(Timestamp::now());
        let known = self.current.lease.clone().unwrap_or_default();
        let spec = known.spec.unwrap_or_default();
        let is_renewal = spec.holder_identity.as_deref() == Some(&self.candidate.name);
        let transitions = spec.lease_transitions.unwrap_or_default();
        let mut annotations = known.metadata.annotations.unwrap_or_default();
        annotations.remove(WEBHOOK_ADDRESS);
        annotations.extend(self.candidate.annotations.clone());
        Lease {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                annotations: Some(annotations),
                ..known.metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.candidate.name.clone()),
                lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
                acquire_time: spec.acquire_time.filter(|_| is_renewal).or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(if is_renewal { transitions } else { transitions.saturating_add(1) }),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Remembers the Lease as it is now.
    fn see(&mut self, lease: Option<Lease>) {
        // The watch may be behind our own writes.
        if lease.is_some() && version(lease.as_ref()) <= version(self.current.lease.as_ref()) {
            return;
        }
        let seen = lease.as_ref().map_or_else(|| Seen::nobody(Instant::now()), seen);
        let annotations = lease.as_ref().and_then(|lease| lease.metadata.annotations.clone());
        let annotations = annotations.filter(|_| seen.holder.is_some()).unwrap_or_default();
        self.holder.send_if_modified(|known| {
            *known != annotations && {
                *known = annotations;
                true
            }
        });
        if seen.holder != self.current.seen.holder && !self.is_leader() {
            let holder = seen.holder.as_deref().unwrap_or("nobody");
            tracing::info!(holder, "the Lease has changed hands");
        }
        self.current = Current { lease, seen };
    }

    /// Gives the Lease back, so that another one takes it at once. Nothing is written after that.
    async fn release(mut self) {
        self.fence.close();
        if !self.is_leader() {
            return;
        }
        // Those in progress must have ended; what has not by then, the Lease's expiry waits for.
        if timeout(self.until_fenced(), self.fence.idle()).await.is_err() {
            return;
        }
        let Some(mut lease) = self.current.lease.take() else { return };
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        if self.within(self.api.replace(NAME, &PostParams::default(), &lease)).await.is_some() {
            tracing::info!("the Lease is released");
        }
    }
}

/// What a Lease that has just been read says.
fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Seen {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: seconds.map_or_else(|| Timing::default().lease, Duration::from_secs),
        since: Instant::now(),
    }
}

/// Versions of an object are numbers that grow (Kubernetes, since 1.35 as a part of its API).
fn version(lease: Option<&Lease>) -> Option<u128> {
    lease?.metadata.resource_version.as_deref()?.parse().ok()
}

/// The Lease whenever it changes, `None` if there is none, or why it cannot be watched.
fn changes(api: &Api<Lease>) -> impl Stream<Item = Result<Option<Lease>, String>> + Unpin + use<> {
    watch_object(api.clone(), NAME)
        .backoff(WatchBackoff::new())
        .map_err(|error| {
            let error = error.to_string();
            tracing::warn!(error, "cannot watch the Lease {NAME:?}, trying again");
            error
        })
        .boxed()
}
