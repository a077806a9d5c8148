//! The client for the API server: it waits for no answer without end, and tries nothing again unseen.

use std::time::Duration;

use kube::{Client, Config};

/// How long one watch lasts, in seconds; then it is begun again where it was. The API server says something before it ends,
/// so a watch that is silent for longer is dead, and what it shows out of date.
pub(crate) const WATCH_LASTS: u32 = 30;

/// How long the API server may be silent while it owes an answer, a watch's next word included.
const SILENCE: Duration = Duration::from_secs(40);

/// Why there is no client for the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account.
    #[error("no cluster: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The settings of the cluster cannot be used.
    #[error("no client for the cluster: {0}")]
    Client(#[from] kube::Error),
}

/// Connects to the cluster of the kubeconfig or of the service account.
///
/// kube's own retries of 429, 503 and 504 are switched off. They would hold a pass, and a watch, for minutes, and let nobody
/// know: a pass that fails is told and tried again, and so is a watch.
pub(crate) async fn connect() -> Result<Client, ConnectError> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}
