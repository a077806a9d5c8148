//! What runs in the serving image: its command, its variables and when it is ready.

use k8s_openapi::{
    api::core::v1::{EnvVar, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Rendering, pod::HTTP};
use crate::api::{
    model_alias::{KeepAlive, Runtime},
    names::{ModelUri, Version},
};

mod custom;
mod mlflow;
mod mlserver;

/// The model server, as far as it depends on the runtime.
#[derive(Default)]
pub(super) struct Server {
    /// `None` for what the image itself starts.
    pub(super) command: Option<Vec<String>>,
    pub(super) env: Vec<EnvVar>,
    pub(super) probes: Probes,
}

/// When a pod has started, answers, and hangs.
#[derive(Default)]
pub(super) struct Probes {
    pub(super) startup: Option<Probe>,
    pub(super) readiness: Option<Probe>,
    pub(super) liveness: Option<Probe>,
}

/// The server of `version`, which loads `model_uri`.
pub(super) fn server(r: &Rendering, version: Version, model_uri: &ModelUri) -> Server {
    match r.serving.runtime {
        Runtime::Mlflow => mlflow::server(r, version, model_uri),
        Runtime::Mlserver => mlserver::server(r, version, model_uri),
        Runtime::Custom => custom::server(),
    }
}

/// The variables by which a runtime is told what to load and where to answer. Nobody else may set them.
pub(super) fn reserved(runtime: Runtime) -> &'static [&'static str] {
    match runtime {
        Runtime::Mlflow => &mlflow::RESERVED,
        Runtime::Mlserver => &mlserver::RESERVED,
        Runtime::Custom => &[],
    }
}

/// The headers of every answer, each as `Name:value`.
///
/// `Model-Version` says which version answered. `Connection: close` makes every client follow when traffic
/// moves: a Service sends only *new* connections to the version that it selects.
fn headers(r: &Rendering, version: Version) -> impl Iterator<Item = String> {
    let close = r.serving.keep_alive != Some(KeepAlive::Enabled);
    close.then(|| "Connection:close".to_owned()).into_iter().chain([format!("Model-Version:{version}")])
}

/// Seconds that a server may take to start before it is taken for stuck. While a version is new,
/// `rollout.progressDeadline` gives up long before; this is for the pod of a serving version that was moved
/// to another node. A model that takes longer sets `startupProbe.failureThreshold` in its template.
const START_LIMIT: i32 = 3600;

/// Probes that get `path`, which answers 200 when the model does.
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
        // Every second, so that a loaded model is seen at once.
        startup: Some(get(1, 5, START_LIMIT)),
        // A server that is busy for some seconds stays in; one that is gone for six is out.
        readiness: Some(get(2, 5, 3)),
        // A restart costs a load of the model: only a server that was silent for a minute or two is worth it.
        liveness: Some(get(10, 10, 6)),
    }
}
