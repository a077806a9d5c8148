//! `/healthz`, `/readyz` and `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};

use super::metrics::Metrics;
use crate::cluster::Readiness;

/// Serves until `shutdown` resolves.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    address: SocketAddr,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready).with_state(readiness))
        .route(
            "/metrics",
            get(|State(metrics): State<Arc<Metrics>>| async move { metrics.text() }).with_state(metrics),
        );
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> (StatusCode, String) {
    let waiting = readiness.waiting_for();
    if waiting.is_empty() {
        let missing = readiness.missing().into_iter().map(|missing| format!("{missing}\n"));
        (StatusCode::OK, format!("ok\n{}", missing.collect::<String>()))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for the cluster: {}\n", waiting.join(", ")))
    }
}
