//! `/healthz`, `/readyz` and `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};

use super::{metrics::Metrics, progress::Progress};
use crate::cluster::Readiness;

/// What the endpoints report.
#[derive(Clone, Debug)]
pub struct Reports {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What has been read from the cluster.
    pub readiness: Arc<Readiness>,
    /// The reconciles in progress.
    pub progress: Arc<Progress>,
}

/// Serves until `shutdown` resolves.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    reports: Reports,
    address: SocketAddr,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(|State(reports): State<Reports>| async move { reports.metrics.text() }))
        .with_state(reports);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
}

async fn healthy(State(reports): State<Reports>) -> (StatusCode, String) {
    match reports.progress.hanging() {
        None => (StatusCode::OK, "ok".to_owned()),
        Some(hanging) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{hanging}\n")),
    }
}

async fn ready(State(reports): State<Reports>) -> (StatusCode, String) {
    let waiting = reports.readiness.waiting_for();
    if waiting.is_empty() {
        let missing = reports.readiness.missing().into_iter().map(|missing| format!("{missing}\n"));
        (StatusCode::OK, format!("ok\n{}", missing.collect::<String>()))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for the cluster: {}\n", waiting.join(", ")))
    }
}
