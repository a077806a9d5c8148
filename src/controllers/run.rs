//! Wires everything together, and takes it apart in order.
#![expect(clippy::disallowed_types, reason = "effects: makes the clients")]

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::Shared};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Client, Config,
    runtime::{
        Controller, controller,
        reflector::{self},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    model_alias, model_registry, registered_model,
    watch::{Scope, own_kind, projections},
};
use crate::{
    api::{ModelAlias, ModelRegistry, RegisteredModel},
    apply::{registry::AliasWrites, smoke::SmokeTests},
    cli::RunOptions,
    context::{Context, Guarded, Memory, Readiness, WakeupStreams, Wakeups},
    observe::registries::Hub,
    telemetry::{metrics::Metrics, server},
};

/// How many objects of a kind are worked on at the same time.
const CONCURRENCY: u16 = 32;

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither a kubeconfig nor a service account.
    #[error("no cluster: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The client for the cluster cannot be made.
    #[error("no client for the cluster: {0}")]
    Client(#[from] kube::Error),
    /// The client for pods cannot be made.
    #[error("no HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// The default registry's URL cannot be used.
    #[error("--registry-url: {0}")]
    Registry(String),
    /// `/metrics` and its neighbours cannot be served.
    #[error("--http-address: {0}")]
    Server(#[from] std::io::Error),
}

type Stop = Shared<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>;

/// Runs the operator until it is told to end.
///
/// # Errors
/// When it cannot begin, or cannot serve its own endpoints.
pub async fn run(options: RunOptions) -> Result<(), RunError> {
    let client = Client::try_from(Config::infer().await?)?;
    let scope = Scope(options.namespace.clone());
    let (aliases, alias_writer) = reflector::store();
    let (models, model_writer) = reflector::store();
    let (model_registries, registry_writer) = reflector::store();
    let (wakeups, streams) = Wakeups::new();
    let context = Arc::new(Context {
        cluster: Arc::default(),
        registries: Hub::default(),
        aliases: aliases.clone(),
        models: models.clone(),
        model_registries: model_registries.clone(),
        wakeups,
        smoke: SmokeTests::default(),
        alias_writes: AliasWrites::default(),
        pod_http: pod_client()?,
        metrics: Metrics::default(),
        readiness: Readiness::default(),
        recorder: Context::recorder(&client),
        memory: Memory::default(),
        client: client.clone(),
    });
    model_registry::install_default(&context, &options).map_err(RunError::Registry)?;

    let stop = stop_signal();
    for what in ["Deployments", "Services", "EndpointSlices", "Pods"] {
        context.readiness.expect(what);
    }
    tokio::spawn(projections::<Deployment>(context.clone(), scope.clone(), "Deployments"));
    tokio::spawn(projections::<Service>(context.clone(), scope.clone(), "Services"));
    tokio::spawn(projections::<EndpointSlice>(context.clone(), scope.clone(), "EndpointSlices"));
    tokio::spawn(projections::<Pod>(context.clone(), scope.clone(), "Pods"));

    let WakeupStreams { aliases: alias_wakeups, models: model_wakeups, registries: registry_wakeups } =
        streams;
    let settings = || controller::Config::default().concurrency(CONCURRENCY);
    let alias_stream = own_kind::<ModelAlias>(scope.api(&client), alias_writer, &context, "ModelAliases");
    let alias_controller = Controller::for_stream(model_alias::forgetting(alias_stream, &context), aliases)
        .with_config(settings())
        .reconcile_on(alias_wakeups)
        .graceful_shutdown_on(stop.clone())
        .run(measured::alias, retry, context.clone())
        .for_each(|_| std::future::ready(()));
    let model_stream =
        own_kind::<RegisteredModel>(scope.api(&client), model_writer, &context, "RegisteredModels");
    let model_controller = Controller::for_stream(registered_model::waking(model_stream, &context), models)
        .with_config(settings())
        .reconcile_on(model_wakeups)
        .graceful_shutdown_on(stop.clone())
        .run(measured::model, retry, context.clone())
        .for_each(|_| std::future::ready(()));
    let registry_stream =
        own_kind::<ModelRegistry>(scope.api(&client), registry_writer, &context, "ModelRegistries");
    let registry_controller = Controller::for_stream(registry_stream, model_registries)
        .with_config(settings())
        .reconcile_on(registry_wakeups)
        .graceful_shutdown_on(stop.clone())
        .run(measured::registry, retry, context.clone())
        .for_each(|_| std::future::ready(()));

    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace = options.namespace, "laurel runs");
    let endpoints = server::serve(context.clone(), options.http_address, stop.clone());
    let (ended, (), (), ()) =
        tokio::join!(endpoints, alias_controller, model_controller, registry_controller);
    tracing::info!("laurel ends");
    Ok(ended?)
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
                    tracing::warn!(%error, "SIGTERM cannot be waited for");
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

/// Pods answer directly: no proxy, no redirect, no connection kept.
fn pod_client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(Duration::from_secs(5))
        .build()
}

fn retry<K>(_: Arc<Guarded<K>>, _: &super::Error, _: Arc<Context>) -> controller::Action {
    controller::Action::requeue(super::AFTER_FAILURE)
}

/// Each shell with its metrics, its log line and its span: what has nothing to do with the work itself.
mod measured {
    use std::time::Instant;

    use kube::ResourceExt;
    use tracing::Instrument;

    use super::{Arc, Context, Guarded, ModelAlias, ModelRegistry, RegisteredModel, controller, model_alias};

    type Result = std::result::Result<controller::Action, crate::controllers::Error>;

    async fn measure<K>(
        kind: &'static str,
        object: &Guarded<K>,
        context: &Context,
        work: impl Future<Output = Result>,
    ) -> Result
    where
        Guarded<K>: ResourceExt,
    {
        let span =
            tracing::info_span!("reconcile", kind, namespace = object.namespace(), name = object.name_any());
        let began = Instant::now();
        let result = work.instrument(span.clone()).await;
        let outcome = if result.is_ok() { "done" } else { "failed" };
        context.metrics.reconcile(kind, outcome, began.elapsed());
        if let Err(error) = &result {
            span.in_scope(|| tracing::warn!(%error, "the pass failed and is tried again"));
        }
        result
    }

    pub(super) async fn alias(object: Arc<Guarded<ModelAlias>>, context: Arc<Context>) -> Result {
        measure("ModelAlias", &object, &context, model_alias::reconcile(object.clone(), context.clone()))
            .await
    }

    pub(super) async fn model(object: Arc<Guarded<RegisteredModel>>, context: Arc<Context>) -> Result {
        measure(
            "RegisteredModel",
            &object,
            &context,
            super::registered_model::reconcile(object.clone(), context.clone()),
        )
        .await
    }

    pub(super) async fn registry(object: Arc<Guarded<ModelRegistry>>, context: Arc<Context>) -> Result {
        measure(
            "ModelRegistry",
            &object,
            &context,
            super::model_registry::reconcile(object.clone(), context.clone()),
        )
        .await
    }
}
