//! Whether this process acts: always if it is alone, otherwise while it holds the Lease.
//!
//! A standby watches the cluster and decides nothing, so that its caches are warm when it has to act.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use kube::{Client, Resource, ResourceExt};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{
        Guarded, Readiness,
        client::{self, ConnectError},
        lease::{Candidate, Election, Overlap, Role, SCOPE, Standing, WEBHOOK_ADDRESS},
    },
    controllers::context::Context,
    fence::Fence,
    options::RunOptions,
};

/// Whether this process acts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    started: Instant,
    /// `None` for a process that is alone.
    standing: Option<Standing>,
    lease: Option<OwnLease>,
}

/// The Lease, read and written without a permit.
#[derive(Clone)]
pub(super) struct OwnLease {
    pub(super) client: Client,
    pub(super) namespace: String,
    /// The name of this process in the election.
    pub(super) candidate: String,
}

impl std::fmt::Debug for OwnLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client: _, namespace, candidate } = self;
        f.debug_struct("OwnLease")
            .field("namespace", namespace)
            .field("candidate", candidate)
            .finish_non_exhaustive()
    }
}

/// The task that takes part in the election.
pub(super) struct Campaign {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Leadership {
    /// The standing of a process that acts alone.
    #[must_use]
    pub fn alone() -> Self {
        Self { started: Instant::now(), standing: None, lease: None }
    }

    /// The standing of a process that does not act any more.
    #[cfg(test)]
    pub(super) fn lost_by(lease: OwnLease) -> Self {
        let (_, role) = watch::channel(Role::Lost("somebody took it".to_owned()));
        let (_, holder) = watch::channel(std::collections::BTreeMap::new());
        let ((_, readable), (_, overlap)) = (watch::channel(None), watch::channel(None));
        let standing = Some(Standing { role, holder, readable, overlap });
        Self { started: Instant::now(), standing, lease: Some(lease) }
    }

    /// The Lease, unless this process is alone.
    pub(super) fn lease(&self) -> Option<&OwnLease> {
        self.lease.as_ref()
    }

    /// Takes part in the election, if there is one. Returns what permits writes, too.
    pub(super) async fn new(options: &RunOptions) -> Result<(Self, Fence, Campaign), ConnectError> {
        let alone = Self::alone();
        let stop = CancellationToken::new();
        let Some(namespace) = options.lease_namespace.clone() else {
            return Ok((alone, Fence::default(), Campaign { stop, task: None }));
        };
        let fence = Fence::closed();
        // Only this client writes without a permit: the Lease, and at the end of its namespace finalizers.
        let client = client::connect(Fence::default()).await?;
        let scope = if options.namespace.is_some() { "namespace" } else { "cluster" };
        let address =
            webhook_address(options).map(|address| (WEBHOOK_ADDRESS.to_owned(), address.to_string()));
        let annotations = [(SCOPE.to_owned(), scope.to_owned())].into_iter().chain(address).collect();
        let is_cluster_wide = options.namespace.is_none();
        let candidate = Candidate { namespace, name: candidate_name(), annotations, is_cluster_wide };
        let lease = OwnLease {
            client: client.clone(),
            namespace: candidate.namespace.clone(),
            candidate: candidate.name.clone(),
        };
        let (election, standing) = Election::new(client, candidate, fence.clone());
        let task = Some(tokio::spawn(election.run(stop.clone())));
        Ok((Self { standing: Some(standing), lease: Some(lease), ..alone }, fence, Campaign { stop, task }))
    }

    /// Since when this process acts; `None` if another one does.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        let Some(standing) = &self.standing else { return Some(self.started) };
        if let Role::Leader(since) = *standing.role.borrow() { Some(since) } else { None }
    }

    /// Where the operator that acts receives webhooks, if it is another one.
    #[must_use]
    pub fn webhook_address_of_leader(&self) -> Option<SocketAddr> {
        if self.since().is_some() {
            return None;
        }
        self.standing.as_ref()?.holder.borrow().get(WEBHOOK_ADDRESS)?.parse().ok()
    }

    /// Lets a process that cannot take part in the election never become ready, for lack of a permission, or
    /// because another installation acts on the same objects: a rollout stops then, and the operators of
    /// before go on.
    pub(super) fn require(&self, readiness: &Arc<Readiness>) {
        let Some(standing) = &self.standing else { return };
        expect(readiness, "the Lease \"laurel\"", standing.readable.clone(), |known| {
            known.as_ref().err().map(String::as_str)
        });
        expect(readiness, "the only Laurel in the cluster", standing.overlap.clone(), Overlap::blocker);
    }

    /// Resolves when this process begins to act.
    pub(super) async fn gained(&self) {
        if self.standing.is_none() {
            return;
        }
        if self.role(|role| matches!(role, Role::Leader(_))).await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when this process may not act any more, with the cause.
    pub(super) async fn lost(&self) -> String {
        match self.role(|role| matches!(role, Role::Lost(_))).await {
            Some(Role::Lost(cause)) => cause,
            Some(Role::Standby | Role::Leader(_)) => std::future::pending().await,
            None => "the election ended unexpectedly".to_owned(),
        }
    }

    /// Resolves when the role is a wanted one, or with `None` when the election has ended.
    async fn role(&self, is_wanted: impl FnMut(&Role) -> bool) -> Option<Role> {
        let Some(standing) = &self.standing else { return std::future::pending().await };
        let mut role = standing.role.clone();
        role.wait_for(is_wanted).await.ok().map(|role| role.clone())
    }
}

impl Campaign {
    /// Releases the Lease, once the last writes have ended.
    pub(super) async fn end(self) {
        self.stop.cancel();
        if let Some(Err(error)) = async { Some(self.task?.await) }.await {
            tracing::warn!(%error, "the election ended unexpectedly");
        }
    }
}

/// Requires that something is known and in order before anything is decided.
fn expect<T: Clone + Send + Sync + 'static>(
    readiness: &Arc<Readiness>,
    what: &'static str,
    mut known: watch::Receiver<Option<T>>,
    error: impl Fn(&T) -> Option<&str> + Send + 'static,
) {
    readiness.expect(what);
    let readiness = readiness.clone();
    tokio::spawn(async move {
        while let Ok(Some(now)) = known.wait_for(Option::is_some).await.map(|known| known.clone()) {
            let Some(error) = error(&now) else {
                readiness.read(what);
                return;
            };
            readiness.failed(what, error.to_owned(), false);
            if known.changed().await.is_err() {
                return;
            }
        }
    });
}

/// The name of this process in the election. A restarted container takes over from the process before it,
/// which has ended; without a pod every process has a name of its own.
fn candidate_name() -> String {
    std::env::var("POD_NAME").unwrap_or_else(|_| {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "laurel".to_owned());
        format!("{host}_{}_{}", std::process::id(), jiff::Timestamp::now().as_nanosecond())
    })
}

/// Where the other operators reach the webhook endpoint of this one.
fn webhook_address(options: &RunOptions) -> Option<SocketAddr> {
    let address = options.webhook_address?;
    let pod: Option<IpAddr> = std::env::var("POD_IP").ok().and_then(|address| address.parse().ok());
    Some(SocketAddr::new(pod.unwrap_or_else(|| address.ip()), address.port()))
}

/// Reconciles every object once this process acts and has read the cluster. Reconciles requested before that
/// do nothing.
pub(super) async fn begin_to_act(context: Arc<Context>) {
    context.leadership.gained().await;
    context.readiness.reached().await;
    let requeue = &context.requeue;
    for alias in context.aliases.state() {
        requeue.alias(&key_of(&*alias));
    }
    for model in context.models.state() {
        let (namespace, name) = key_of(&*model);
        requeue.model(&namespace, &name);
    }
    for experiment in context.experiment_objects.state() {
        requeue.experiment(&key_of(&*experiment));
    }
    for registry in context.registry_objects.namespaced.state() {
        let (namespace, name) = key_of(&*registry);
        requeue.registry(&namespace, &name);
    }
    for registry in context.registry_objects.cluster.iter().flat_map(|cluster| cluster.registries.state()) {
        requeue.cluster_registry(&registry.name_any());
    }
}

fn key_of<K: Resource>(object: &Guarded<K>) -> (String, String)
where
    Guarded<K>: ResourceExt,
{
    (object.namespace().unwrap_or_default(), object.name_any())
}
