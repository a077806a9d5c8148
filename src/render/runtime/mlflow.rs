//! MLflow's own scoring server.
//!
//! It is the ASGI application `mlflow.pyfunc.scoring_server.app:app`, run by uvicorn directly and not by
//! `mlflow models serve`: that command does not end on SIGTERM as the first process of a container, so it
//! never drains, and it needs two processes. The application loads the model while it is imported, so the
//! port opens only once the model answers, and a model that cannot be loaded ends the process with the reason
//! in its last lines.

use crate::{
    api::names::{ModelUri, Version},
    render::{
        Rendering,
        pod::{GRACEFUL_SHUTDOWN, variable},
        runtime::{Server, headers, probes},
    },
};

/// The variable from which the application reads what to load (`scoring_server._SERVER_MODEL_PATH`).
const MODEL_PATH: &str = "__pyfunc_model_path__";

pub(super) const RESERVED: [&str; 1] = [MODEL_PATH];

pub(super) fn server(r: &Rendering, version: Version, model_uri: &ModelUri) -> Server {
    Server {
        command: Some(command(r, version)),
        env: [vec![variable(MODEL_PATH, model_uri.as_str())], client_env()].concat(),
        probes: probes("/ping"),
    }
}

fn command(r: &Rendering, version: Version) -> Vec<String> {
    let arguments = [
        "uvicorn".to_owned(),
        "--host=0.0.0.0".to_owned(),
        format!("--port={}", r.serving.port),
        // Also against WEB_CONCURRENCY and UVICORN_WORKERS: with more than one worker the port opens before
        // the model is loaded, and a model that cannot be loaded is tried for ever instead of ending the
        // process.
        "--workers=1".to_owned(),
        format!("--timeout-graceful-shutdown={GRACEFUL_SHUTDOWN}"),
    ];
    let headers = headers(r, version).map(|header| format!("--header={header}"));
    let application = "mlflow.pyfunc.scoring_server.app:app".to_owned();
    arguments.into_iter().chain(headers).chain([application]).collect()
}

/// How long MLflow's client waits for the registry. By its own defaults it tries for minutes when the
/// registry is away; the pod ends instead, says why, and Kubernetes starts it again.
pub(super) fn client_env() -> Vec<k8s_openapi::api::core::v1::EnvVar> {
    vec![
        variable("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        // The time to the next byte, not of the whole download. A server that passes artifacts on reads a
        // file from its store before it sends the first byte.
        variable("MLFLOW_HTTP_REQUEST_TIMEOUT", "120"),
    ]
}
