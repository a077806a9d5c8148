//! The client for the API server: every wait has a limit, and nothing is retried silently.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Method, Request};
use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::KubeConfigOptions,
};
use tower::{BoxError, Layer, Service};

use crate::fence::Fence;

/// Duration of one watch in seconds; then it is resumed where it was. The API server sends something before a
/// watch ends, so a watch that is silent for longer is dead, and its data out of date.
pub(crate) const WATCH_LASTS: u32 = 30;

/// How long the API server may send nothing while a response or the next event of a watch is due.
const READ_TIMEOUT: Duration = Duration::from_secs(40);

/// Why there is no client for the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account.
    #[error("no cluster configured: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The kubeconfig has no such context.
    #[error("cannot use the context {0:?} of the kubeconfig: {1}")]
    Context(String, kube::config::KubeconfigError),
    /// The settings of the cluster are not valid.
    #[error("cannot create a client for the cluster: {0}")]
    Client(#[from] kube::Error),
}

/// Connects to the cluster of the kubeconfig or of the service account. The client writes only while `fence`
/// permits it.
///
/// kube's own retries of 429, 503 and 504 are disabled. They would block a reconcile or a watch for minutes
/// without reporting it; a reconcile or watch that fails is reported and retried.
pub(crate) async fn connect(fence: Fence) -> Result<Client, ConnectError> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?.with_layer(&FenceLayer(fence)).build())
}

/// Connects to the cluster of a context of the kubeconfig, to read from it; without a context, like
/// [`connect`].
pub(crate) async fn connect_to(context: Option<&str>) -> Result<Client, ConnectError> {
    let mut config = match context {
        None => Config::infer().await?,
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context.to_owned()), ..Default::default() };
            let config = Config::from_kubeconfig(&options).await;
            config.map_err(|error| ConnectError::Context(context.to_owned(), error))?
        }
    };
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    Ok(Client::try_from(config)?)
}

struct FenceLayer(Fence);

impl<S> Layer<S> for FenceLayer {
    type Service = Fenced<S>;

    fn layer(&self, service: S) -> Self::Service {
        Fenced { service, fence: self.0.clone() }
    }
}

/// Passes writes on only with a permit, which is kept until the response is there.
#[derive(Clone)]
struct Fenced<S> {
    service: S,
    fence: Fence,
}

impl<S, R> Service<Request<Body>> for Fenced<S>
where
    S: Service<Request<Body>, Response = R>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
    R: Send + 'static,
{
    type Response = R;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<R, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return self.service.call(request).map_err(Into::into).boxed();
        }
        match self.fence.permit() {
            Ok(permit) => {
                let response = self.service.call(request).map_err(Into::into);
                async move { permit.within(response).await? }.boxed()
            }
            Err(fenced) => std::future::ready(Err(fenced.into())).boxed(),
        }
    }
}
