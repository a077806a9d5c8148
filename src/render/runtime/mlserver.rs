//! The runtime `mlserver`: Seldon MLServer with its MLflow runtime (`pip install mlserver mlserver-mlflow`;
//! verified with 1.7.1).
//!
//! MLServer reads the settings of one model from the environment when its folder has none, so the image needs
//! no files. It has no settings for three things, so a few lines of Python ([`BOOTSTRAP`]) set them, start the
//! meter where it is mounted, and then call its own command:
//! - headers for uvicorn, without which connections stay open and no answer says which version it came from,
//! - how long an idle connection stays open,
//! - that a model which cannot be loaded is a failure. MLServer exits with 0 then, and Kubernetes keeps the
//!   last lines only of a container that failed.

use crate::{
    api::names::{ModelUri, Version},
    render::{
        Rendering, meter,
        runtime::{Server, headers, mlflow, probes},
        server::{GRACEFUL_SHUTDOWN, KEEP_ALIVE, variable},
    },
};

const BOOTSTRAP: &str = concat!(include_str!("start_meter.py"), include_str!("mlserver.py"));

/// The model's name inside the server, also in URLs (`/v2/models/model/infer`). It is constant: registry
/// names are not valid URL segments, and clients need no other path for another model.
const NAME: &str = "model";

pub(super) const RESERVED: [&str; 6] = [
    "MLSERVER_MODEL_NAME",
    "MLSERVER_MODEL_URI",
    "MLSERVER_MODEL_VERSION",
    "MLSERVER_HTTP_PORT",
    meter::PORT_VARIABLE,
    meter::PREDICTIONS_VARIABLE,
];

pub(super) fn server(r: &Rendering, version: Version, model_uri: &ModelUri) -> Server {
    let env = vec![
        variable("MLSERVER_MODEL_NAME", NAME),
        variable("MLSERVER_MODEL_URI", model_uri.as_str()),
        variable("MLSERVER_MODEL_VERSION", &version.to_string()),
        variable("MLSERVER_MODEL_IMPLEMENTATION", "mlserver_mlflow.MLflowRuntime"),
        variable("MLSERVER_HTTP_PORT", &r.serving.port.to_string()),
        // MLServer's default is debug, which logs each probe and returns stack traces to clients.
        variable("MLSERVER_DEBUG", "false"),
        // No worker processes: each costs the memory of another model, and those of 1.7.1 do not start with
        // uvloop 0.23.
        variable("MLSERVER_PARALLEL_WORKERS", "0"),
        // For users who set more workers: the default directories are in the working directory, which is
        // read-only.
        variable("MLSERVER_METRICS_DIR", "/tmp/mlserver-metrics"),
        variable("MLSERVER_ENVIRONMENTS_DIR", "/tmp/mlserver-environments"),
    ];
    Server {
        command: Some(command(r, version)),
        env: [env, mlflow::client_env(), meter::env(r.serving)].concat(),
        // Not `/v2/health/ready`: that returns 200 before the model is loaded.
        probes: probes(&format!("/v2/models/{NAME}/ready")),
    }
}

fn command(r: &Rendering, version: Version) -> Vec<String> {
    ["python", "-c", BOOTSTRAP]
        .map(str::to_owned)
        .into_iter()
        .chain([meter::digest()])
        .chain([GRACEFUL_SHUTDOWN, KEEP_ALIVE].map(|seconds| seconds.to_string()))
        .chain(headers(r, version))
        .collect()
}
