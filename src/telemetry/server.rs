//! `/healthz`, `/readyz` and `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};

use crate::controllers::context::Context;

/// Answers until `shutdown` resolves.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    context: Arc<Context>,
    address: SocketAddr,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(|State(context): State<Arc<Context>>| async move { context.metrics.text() }))
        .with_state(context);
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, routes).with_graceful_shutdown(shutdown).await
}

async fn ready(State(context): State<Arc<Context>>) -> (StatusCode, String) {
    let waiting = context.readiness.waiting_for();
    if waiting.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not read from the cluster yet: {}\n", waiting.join(", ")))
    }
}
