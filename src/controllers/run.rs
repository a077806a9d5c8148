//! Starts all parts of the operator, and stops them in order.

use std::{
    any::Any,
    fmt::Debug,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt, Stream, StreamExt,
    channel::mpsc::UnboundedReceiver,
    future::{Shared, try_join_all},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        Controller, controller,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    AFTER_FAILURE, Error,
    farewell::leave,
    leadership::{Leadership, begin_to_act},
    model_alias, model_experiment, model_registry, registered_model,
    task::Task,
    webhook,
};
use crate::{
    api::{ClusterModelRegistry, ModelRegistry, http_route::HttpRoute},
    cluster::{
        Guarded,
        client::{self, ConnectError},
        watch::{BUDGETS, ROUTES, Scope, labelled_namespaces, own_kind, projections},
    },
    controllers::context::Context,
    options::RunOptions,
    telemetry::server,
};

/// How long running reconciles may take to finish after the stop signal.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(15);

/// How many objects of a kind are reconciled concurrently.
const CONCURRENCY: u16 = 32;

/// Why the operator exited.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no client for the cluster.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The client for pods cannot be created.
    #[error("cannot create the HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// A controller or a watch panicked, which is a bug.
    #[error("a task ended unexpectedly: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// Another operator acts from now on.
    #[error("{0}; this operator ends, and another one acts")]
    LeaseLost(String),
    /// The webhook endpoint cannot be started.
    #[error("webhooks: {0}")]
    Webhooks(String),
    /// `/metrics`, `/healthz` and `/readyz` cannot be served.
    #[error("--http-address: {0}")]
    Server(#[from] std::io::Error),
}

type Stop = Shared<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>;

/// Runs the operator until it receives SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or cannot serve its own endpoints.
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let (leadership, fence, campaign) = Leadership::new(&options).await?;
    let client = client::connect(fence.clone()).await?;
    let scope = Scope(options.namespace.clone());
    let (context, writers, requeue) = Context::new(client.clone(), &options, leadership.clone(), fence)?;
    let (aliases, models) = (context.aliases.clone(), context.models.clone());
    leadership.require(&context.readiness);
    let signal = stop_signal();
    let stop = farewell(signal.clone(), context.clone(), options.namespace.clone());
    // The endpoint must listen before a webhook is registered.
    webhook::listen(&context, &options, stop.clone()).await.map_err(RunError::Webhooks)?;

    let mut watches = watch_rendered(&context, &scope);
    tokio::spawn(begin_to_act(context.clone()));
    let watching = context.watching();
    let spawner = Spawner { context: context.clone(), stop: stop.clone() };
    let seen = model_alias::seen(&context);
    let objects = own_kind(scope.api(&client), writers.aliases, &watching, "ModelAliases", seen);
    let alias_controller =
        spawner.spawn_controller(objects, aliases, requeue.aliases, model_alias::reconcile);
    let seen = registered_model::seen(&context);
    let objects = own_kind(scope.api(&client), writers.models, &watching, "RegisteredModels", seen);
    let model_controller =
        spawner.spawn_controller(objects, models, requeue.models, registered_model::reconcile);
    let seen = model_registry::seen(&context);
    let objects = own_kind(scope.api(&client), writers.registries, &watching, "ModelRegistries", seen);
    let registry_controller = spawner.spawn_controller(
        objects,
        context.registry_objects.namespaced.clone(),
        requeue.registries,
        model_registry::reconcile::<ModelRegistry>,
    );
    let seen = model_experiment::seen(&context);
    let objects = own_kind(scope.api(&client), writers.experiments, &watching, "ModelExperiments", seen);
    // Where a role or a CRD of before this kind is still there, everything else goes on.
    context.readiness.expect_if_allowed("ModelExperiments");
    let experiment_controller = spawner.spawn_controller(
        objects,
        context.experiment_objects.clone(),
        requeue.experiments,
        model_experiment::reconcile,
    );
    let mut controllers =
        vec![alias_controller, model_controller, registry_controller, experiment_controller];
    if let Some(cluster) = &context.registry_objects.cluster {
        let seen = model_registry::seen(&context);
        let (api, writer) = (Api::all(client.clone()), writers.cluster_registries);
        let objects = own_kind(api, writer, &watching, "ClusterModelRegistries", seen);
        let reconcile = model_registry::reconcile::<ClusterModelRegistry>;
        let known = cluster.registries.clone();
        controllers.push(spawner.spawn_controller(objects, known, requeue.cluster_registries, reconcile));
        let seen = model_registry::namespace_seen(&context);
        watches.spawn(labelled_namespaces(client.clone(), writers.namespaces, watching.clone(), seen));
    }

    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace = options.namespace, "Laurel started");
    let endpoints = server::serve(context.reports(), options.http_address, stop.clone());
    // Only its failure counts: a client that does not end its request must not hold up the exit.
    let server = async move {
        match endpoints.await {
            Ok(()) => std::future::pending().await,
            Err(error) => Err(RunError::from(error)),
        }
    };
    // After the signal each controller finishes the reconciles that it has begun. If a task panics, the
    // operator exits and is restarted with all of them.
    tokio::select! {
        ended = try_join_all(controllers) => drop(ended?),
        failed = server => failed?,
        Some(ended) = watches.join_next() => ended?,
        cause = leadership.lost() => {
            // Of a namespace that ends, this process may be the last that can remove finalizers.
            if signal.now_or_never().is_some() {
                stop.await;
            }
            return Err(RunError::LeaseLost(cause));
        }
        () = grace_over(stop.clone()) => {
            tracing::warn!("a reconcile did not finish in time; the next operator continues its work");
        }
    }
    campaign.end().await;
    tracing::info!("Laurel stopped");
    Ok(())
}

/// Watches what Laurel renders. Nothing is decided before all of it has been read.
fn watch_rendered(context: &Context, scope: &Scope) -> JoinSet<()> {
    for what in ["Deployments", "Services", "EndpointSlices", "Pods"] {
        context.readiness.expect(what);
    }
    context.readiness.expect_if_allowed(BUDGETS);
    let parts = || (context.watching(), context.client.clone(), scope.clone());
    let mut watches = JoinSet::new();
    let (watching, client, scope) = parts();
    watches.spawn(projections::<Deployment>(watching, client, scope, "Deployments"));
    let (watching, client, scope) = parts();
    watches.spawn(projections::<Service>(watching, client, scope, "Services"));
    let (watching, client, scope) = parts();
    watches.spawn(projections::<PodDisruptionBudget>(watching, client, scope, BUDGETS));
    let (watching, client, scope) = parts();
    watches.spawn(projections::<EndpointSlice>(watching, client, scope, "EndpointSlices"));
    let (watching, client, scope) = parts();
    watches.spawn(projections::<Pod>(watching, client, scope, "Pods"));
    if context.manages_routes {
        context.readiness.expect_if_allowed(ROUTES);
        let (watching, client, scope) = parts();
        watches.spawn(projections::<HttpRoute>(watching, client, scope, ROUTES));
    }
    watches
}

/// Resolves a while after `stop`, before the pod would be killed: a server that does not answer must not
/// block the exit.
async fn grace_over(stop: Stop) {
    stop.await;
    tokio::time::sleep(SHUTDOWN_GRACE).await;
}

/// Resolves after `stop`, and, where the one namespace that is watched ends, after everything in it.
fn farewell(stop: Stop, context: Arc<Context>, namespace: Option<String>) -> Stop {
    let farewell = async move {
        stop.await;
        if let Some(namespace) = namespace {
            leave(&context, &namespace).await;
        }
    };
    // Begun once, whoever waits for it.
    let farewell = tokio::spawn(farewell);
    async move { drop(farewell.await) }.boxed().shared()
}

/// Resolves at SIGTERM or SIGINT.
fn stop_signal() -> Stop {
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let terminated = async {
            match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                Ok(mut signal) => drop(signal.recv().await),
                Err(error) => {
                    tracing::warn!(%error, "cannot listen for SIGTERM");
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = terminated => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        token.cancel();
    });
    async move { stop.cancelled().await }.boxed().shared()
}

/// Shared by the controllers.
struct Spawner {
    context: Arc<Context>,
    stop: Stop,
}

impl Spawner {
    /// Runs the controller of one kind in its own task, and each of its reconciles in another one.
    fn spawn_controller<K, R>(
        &self,
        objects: impl Stream<Item = Result<Guarded<K>, watcher::Error>> + Send + 'static,
        known: Store<Guarded<K>>,
        requeue: UnboundedReceiver<ObjectRef<Guarded<K>>>,
        reconcile: impl Fn(Arc<Guarded<K>>, Arc<Context>) -> R + Clone + Send + 'static,
    ) -> JoinHandle<()>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
        R: Future<Output = Result<controller::Action, Error>> + Send + 'static,
    {
        let reconcile = move |object: Arc<Guarded<K>>, context: Arc<Context>| {
            let work = reconcile(object.clone(), context.clone());
            let task = Task::spawn(measured(object, context, work));
            task.map(|ended| ended.unwrap_or_else(|error| Err(Error::Defect(error.to_string()))))
        };
        let error_policy =
            |_: Arc<Guarded<K>>, _: &Error, _: Arc<Context>| controller::Action::requeue(AFTER_FAILURE);
        let controller = Controller::for_stream(objects, known)
            .with_config(controller::Config::default().concurrency(CONCURRENCY))
            .reconcile_on(requeue)
            .graceful_shutdown_on(self.stop.clone())
            .run(reconcile, error_policy, self.context.clone())
            .for_each(|_| std::future::ready(()));
        tokio::spawn(controller)
    }
}

/// Runs a reconcile with its metrics, log line and span. A panic fails this reconcile only.
async fn measured<K>(
    object: Arc<Guarded<K>>,
    context: Arc<Context>,
    work: impl Future<Output = Result<controller::Action, Error>>,
) -> Result<controller::Action, Error>
where
    K: Resource<DynamicType = ()>,
{
    // Otherwise nothing is decided. All objects are reconciled when this process begins to act.
    if context.leadership.since().is_none() || !context.readiness.is_reached() {
        return Ok(controller::Action::await_change());
    }
    let kind = K::kind(&());
    let _progress = context.progress.begin(|| {
        format!("{kind} {:?} in namespace {:?}", object.name_any(), object.namespace().unwrap_or_default())
    });
    let span =
        tracing::info_span!("reconcile", %kind, namespace = object.namespace(), name = object.name_any());
    let began = Instant::now();
    let work = AssertUnwindSafe(work).catch_unwind().instrument(span.clone());
    let result = work.await.unwrap_or_else(|panic| Err(Error::Defect(panic_message(panic.as_ref()))));
    context.metrics.reconcile(kind, result.is_ok(), began.elapsed());
    if let Err(error) = &result {
        span.in_scope(|| tracing::warn!(%error, "reconcile failed, retrying"));
    }
    result
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
