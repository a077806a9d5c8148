//! The runtime `mlflow`: MLflow's scoring server.
//!
//! It is the ASGI application `mlflow.pyfunc.scoring_server.app:app`, run by uvicorn directly and not by
//! `mlflow models serve`: that command ignores SIGTERM as the first process of a container, so it never
//! drains, and it needs two processes. The application loads the model on import, so the port opens only once
//! the model can answer, and a model that cannot be loaded ends the process with the reason in its last log
//! lines. A few lines of Python ([`BOOTSTRAP`]) start the meter, where it is mounted, and then uvicorn's own
//! command.

use crate::{
    api::names::{ModelUri, Version},
    render::{
        Rendering, meter,
        runtime::{Server, headers, probes},
        server::{GRACEFUL_SHUTDOWN, KEEP_ALIVE, variable},
    },
};

const BOOTSTRAP: &str = concat!(include_str!("start_meter.py"), include_str!("mlflow.py"));

/// The variable with the model that the application loads (`scoring_server._SERVER_MODEL_PATH`).
const MODEL_PATH: &str = "__pyfunc_model_path__";

pub(super) const RESERVED: [&str; 3] = [MODEL_PATH, meter::PORT_VARIABLE, meter::PREDICTIONS_VARIABLE];

pub(super) fn server(r: &Rendering, version: Version, model_uri: &ModelUri) -> Server {
    Server {
        command: Some(command(r, version)),
        env: [vec![variable(MODEL_PATH, model_uri.as_str())], client_env(), meter::env(r.serving)].concat(),
        probes: probes("/ping"),
    }
}

fn command(r: &Rendering, version: Version) -> Vec<String> {
    let arguments = [
        // Not `python`, which Debian does not have.
        "python3".to_owned(),
        "-c".to_owned(),
        BOOTSTRAP.to_owned(),
        meter::digest(),
        "--host=0.0.0.0".to_owned(),
        format!("--port={}", r.serving.port),
        // Overrides WEB_CONCURRENCY and UVICORN_WORKERS: with more than one worker the port opens before the
        // model is loaded, and a model that cannot be loaded is retried forever instead of ending the
        // process.
        "--workers=1".to_owned(),
        format!("--timeout-graceful-shutdown={GRACEFUL_SHUTDOWN}"),
        format!("--timeout-keep-alive={KEEP_ALIVE}"),
    ];
    let headers = headers(r, version).map(|header| format!("--header={header}"));
    let application = "mlflow.pyfunc.scoring_server.app:app".to_owned();
    arguments.into_iter().chain(headers).chain([application]).collect()
}

/// Timeouts and retries of MLflow's client. By default it retries an unreachable registry for minutes; with
/// these the process exits with the reason, and Kubernetes restarts it.
pub(super) fn client_env() -> Vec<k8s_openapi::api::core::v1::EnvVar> {
    vec![
        variable("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        // The time until the next byte, not of the whole download. A server that proxies artifacts reads a
        // file from its store before it sends the first byte.
        variable("MLFLOW_HTTP_REQUEST_TIMEOUT", "120"),
    ]
}
