//! Runtimes: the command, variables and probes of the model server.

use k8s_openapi::{
    api::core::v1::{EnvVar, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{HTTP, Rendering};
use crate::api::{
    model_alias::{KeepAlive, Runtime},
    names::{ModelUri, Version},
};

mod custom;
mod mlflow;
mod mlserver;

/// The parts of the pod that depend on the runtime.
#[derive(Default)]
pub(super) struct Server {
    /// The command; `None` for the image's own.
    pub(super) command: Option<Vec<String>>,
    pub(super) env: Vec<EnvVar>,
    pub(super) probes: Probes,
}

/// The startup, readiness and liveness probes.
#[derive(Default)]
pub(super) struct Probes {
    pub(super) startup: Option<Probe>,
    pub(super) readiness: Option<Probe>,
    pub(super) liveness: Option<Probe>,
}

/// Returns the server of `version`, which loads `model_uri`.
pub(super) fn server(r: &Rendering, version: Version, model_uri: &ModelUri) -> Server {
    match r.serving.runtime {
        Runtime::Mlflow => mlflow::server(r, version, model_uri),
        Runtime::Mlserver => mlserver::server(r, version, model_uri),
        Runtime::Custom => custom::server(),
    }
}

/// The variables that set a runtime's model and ports, and what it counts. Only Laurel may set them.
pub(super) fn reserved(runtime: Runtime) -> &'static [&'static str] {
    match runtime {
        Runtime::Mlflow => &mlflow::RESERVED,
        Runtime::Mlserver => &mlserver::RESERVED,
        Runtime::Custom => &[],
    }
}

/// Returns the headers of every response, each as `Name:value`.
///
/// `Model-Version` names the version. `Connection: close` makes every client follow a switch of traffic: a
/// Service sends only *new* connections to the version that it selects.
fn headers(r: &Rendering, version: Version) -> impl Iterator<Item = String> {
    let close = r.serving.keep_alive != Some(KeepAlive::Enabled);
    close.then(|| "Connection:close".to_owned()).into_iter().chain([format!("Model-Version:{version}")])
}

/// Seconds after which a starting server counts as stuck. For a new version, `rollout.progressDeadline` ends
/// earlier; this is for pods of a serving version that move to another node. For a model that takes longer,
/// set `startupProbe.failureThreshold` in its template.
const START_LIMIT: i32 = 3600;

/// Returns probes of `path`, which returns 200 once the model can answer.
fn probes(path: &str) -> Probes {
    let get = |period, timeout, failures| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(HTTP.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    Probes {
        // Every second, so that a loaded model is detected at once.
        startup: Some(get(1, 5, START_LIMIT)),
        // A server that is busy for a few seconds stays ready; one that is silent for six does not.
        readiness: Some(get(2, 5, 3)),
        // A restart reloads the model, so only a server that was silent for a minute or two is restarted.
        liveness: Some(get(10, 10, 6)),
    }
}
