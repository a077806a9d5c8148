//! Seldon MLServer with its MLflow runtime.

use crate::{
    api::names::{ModelUri, Version},
    render::{
        Rendering,
        pod::{GRACEFUL_SHUTDOWN, variable},
        runtime::{Server, headers, mlflow, probes},
    },
};

/// The model's name inside the server, so also in URLs (`/v2/models/model/infer`). It is always this one: the
/// registry's names are not URL segments, and a client needs no other path for another model.
const NAME: &str = "model";

pub(super) const RESERVED: [&str; 4] =
    ["MLSERVER_MODEL_NAME", "MLSERVER_MODEL_URI", "MLSERVER_MODEL_VERSION", "MLSERVER_HTTP_PORT"];

pub(super) fn server(r: &Rendering, version: Version, model_uri: &ModelUri) -> Server {
    let env = vec![
        variable("MLSERVER_MODEL_NAME", NAME),
        variable("MLSERVER_MODEL_URI", model_uri.as_str()),
        variable("MLSERVER_MODEL_VERSION", &version.to_string()),
        variable("MLSERVER_HTTP_PORT", &r.serving.port.to_string()),
        variable("MLSERVER_MODEL_IMPLEMENTATION", "mlserver_mlflow.MLflowRuntime"),
        variable("MLSERVER_PARALLEL_WORKERS", "0"),
    ];
    Server {
        command: Some(command(r, version)),
        env: [env, mlflow::client_env()].concat(),
        probes: probes(&format!("/v2/models/{NAME}/ready")),
    }
}

fn command(r: &Rendering, version: Version) -> Vec<String> {
    let bootstrap = format!("{GRACEFUL_SHUTDOWN}");
    ["python".to_owned(), "-c".to_owned(), bootstrap].into_iter().chain(headers(r, version)).collect()
}
