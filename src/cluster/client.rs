//! The client for the API server: every wait has a limit, and nothing is retried silently.

use std::time::Duration;

use kube::{Client, Config};

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
    /// The settings of the cluster are not valid.
    #[error("cannot create a client for the cluster: {0}")]
    Client(#[from] kube::Error),
}

/// Connects to the cluster of the kubeconfig or of the service account.
///
/// kube's own retries of 429, 503 and 504 are disabled. They would block a reconcile or a watch for minutes
/// without reporting it; a reconcile or watch that fails is reported and retried.
pub(crate) async fn connect() -> Result<Client, ConnectError> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}
