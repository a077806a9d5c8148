//! What a pod and the server in it agree on.

use k8s_openapi::api::core::v1::EnvVar;

/// Seconds for the server to finish its running requests after that. MLflow aborts a request after 60 s
/// (`MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT`), so none takes longer.
pub(super) const GRACEFUL_SHUTDOWN: i64 = 60;

/// Seconds after which the server closes an idle connection. A proxy that sends a request just then gets an
/// error for it, so the proxy has to close first: Envoy, for instance, does so after an hour.
pub(super) const KEEP_ALIVE: i64 = 3660;

/// Returns a variable with exactly this value: escapes `$(NAME)`, which Kubernetes would expand.
pub(super) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.replace('$', "$$")), value_from: None }
}
