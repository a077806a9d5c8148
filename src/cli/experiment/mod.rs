//! `laurel experiment`: what an experiment shows so far, as text, as JSON, and as a picture.
//!
//! ```text
//! cluster ─► ModelExperiment ─┬─ text  for a terminal, with the interval over time
//!                             ├─ svg   the same picture as a file
//!                             └─ JSON
//! ```

use std::{io::Write, path::PathBuf};

use clap::Args;
use kube::{Api, ResourceExt, api::ListParams};
use regex::Regex;
use serde::Serialize;

use super::{CliError, ExitStatus, Output, table::terminal_width};
use crate::{
    api::{
        ModelExperiment, ModelExperimentSpec, ModelExperimentStatus, NAME_PATTERN,
        model_experiment::{ExperimentMetric, MetricGoal, MetricRole},
    },
    cluster::{client::connect_to, error::cause},
};

mod axis;
mod svg;
#[cfg(test)]
mod tests;
mod text;

pub use self::svg::svg;
use self::text::text;

/// Show what an experiment found so far: the difference of each challenger to the champion, where it lies for
/// certain, and how that has changed since the experiment began.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The cluster and the namespace are those of the kubeconfig, as for kubectl. It takes the \
                  permission to get modelexperiments.laurel.dev.\n\nExit codes: 0 the experiment was printed, \
                  whatever it found; 2 the query failed: no such ModelExperiment, an unreachable cluster."
)]
pub struct ExperimentOptions {
    /// The name of the experiment.
    #[arg(value_name = "NAME", value_parser = object_name)]
    pub name: String,

    /// Its namespace. The default is that of the kubeconfig's context.
    #[arg(long, short, value_name = "NAMESPACE", value_parser = object_name)]
    pub namespace: Option<String>,

    /// The context of the kubeconfig. The default is the current one.
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,

    /// Also write the picture to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// The output format.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// The output as JSON.
#[derive(Debug, Serialize)]
struct ExperimentReport<'a> {
    namespace: &'a str,
    name: &'a str,
    spec: &'a ModelExperimentSpec,
    status: ModelExperimentStatus,
}

impl ExperimentOptions {
    /// Reads the experiment and prints it.
    ///
    /// # Errors
    /// When the query failed.
    pub async fn run(&self, out: impl Write) -> Result<ExitStatus, CliError> {
        let client = connect_to(self.context.as_deref()).await.map_err(CliError::because)?;
        let namespace = self.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let experiment = read(Api::namespaced(client, &namespace), &namespace, &self.name).await?;
        self.print(&experiment, terminal_width(), out)?;
        Ok(ExitStatus::Good)
    }

    fn print(&self, experiment: &ModelExperiment, width: usize, mut out: impl Write) -> Result<(), CliError> {
        let printed = match self.output {
            Output::Text => text(experiment, width),
            Output::Json => json(experiment).map_err(CliError::because)?,
        };
        if let Some(path) = &self.svg {
            std::fs::write(path, svg(experiment))
                .map_err(|error| CliError(format!("cannot write {}: {error}", path.display())))?;
        }
        out.write_all(printed.as_bytes()).map_err(CliError::because)
    }
}

/// Reads a name that may stand in a URL.
fn object_name(text: &str) -> Result<String, String> {
    let is_name = Regex::new(NAME_PATTERN).is_ok_and(|pattern| pattern.is_match(text));
    if is_name && text.len() <= 253 {
        Ok(text.to_owned())
    } else {
        Err("not a valid name of a Kubernetes object".to_owned())
    }
}

async fn read(api: Api<ModelExperiment>, namespace: &str, name: &str) -> Result<ModelExperiment, CliError> {
    let error = match api.get(name).await {
        Ok(experiment) => return Ok(experiment),
        Err(error) => error,
    };
    Err(CliError(match &error {
        kube::Error::Api(status) if status.code == 404 => missing(&api, namespace, name).await,
        kube::Error::Api(status) if status.is_forbidden() => format!(
            "not allowed to read ModelExperiment {namespace}/{name}: ask for a role that may get \
             modelexperiments.laurel.dev in the namespace {namespace:?}"
        ),
        error => format!("cannot read ModelExperiment {namespace}/{name}: {}", cause(error)),
    }))
}

/// Why there is no such object: its kind, its name or its namespace.
async fn missing(api: &Api<ModelExperiment>, namespace: &str, name: &str) -> String {
    const MAX: u32 = 20;
    match api.list(&ListParams::default().limit(MAX)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            "this cluster has no kind ModelExperiment: install or upgrade Laurel's CRDs, for instance with \
             `laurel crds | kubectl apply --server-side -f -`"
                .to_owned()
        }
        Err(_) => format!("no ModelExperiment {namespace}/{name}: check the name and the namespace (-n)"),
        Ok(others) if others.items.is_empty() => format!(
            "no ModelExperiment {namespace}/{name}: the namespace {namespace:?} has none; name another one \
             with -n"
        ),
        Ok(others) => {
            let names: Vec<String> = others.iter().map(ResourceExt::name_any).collect();
            format!(
                "no ModelExperiment {namespace}/{name}: the namespace {namespace:?} has {}",
                names.join(", ")
            )
        }
    }
}

fn json(experiment: &ModelExperiment) -> serde_json::Result<String> {
    let mut status = experiment.status.clone().unwrap_or_default();
    for arm in &mut status.arms {
        arm.evidence = None;
    }
    let (namespace, name) = place(experiment);
    let report = ExperimentReport { namespace, name, spec: &experiment.spec, status };
    Ok(format!("{}\n", serde_json::to_string_pretty(&report)?))
}

/// The namespace and the name.
fn place(experiment: &ModelExperiment) -> (&str, &str) {
    let metadata = &experiment.metadata;
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// The metric that decides.
fn primary(spec: &ModelExperimentSpec) -> Option<&ExperimentMetric> {
    spec.metrics.iter().find(|metric| metric.role == MetricRole::Primary)
}

/// What a metric measures.
fn measured(metric: &ExperimentMetric) -> String {
    if let Some(predictions) = &metric.predictions {
        match &predictions.class {
            Some(class) => format!("share of \"{class}\" among the predictions"),
            None => "mean of the predictions".to_owned(),
        }
    } else if let Some(slow) = &metric.slow {
        format!("share of the requests that took longer than {} ms", slow.over.milliseconds())
    } else if metric.missing.is_some() {
        "share of the answers with a missing prediction".to_owned()
    } else {
        "share of the requests that were not answered with 2xx".to_owned()
    }
}

/// Which direction is better.
fn better(metric: &ExperimentMetric) -> &'static str {
    if metric.goal == Some(MetricGoal::Maximize) { "larger is better" } else { "smaller is better" }
}
