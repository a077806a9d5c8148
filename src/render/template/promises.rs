//! What no setting may change: the version that a pod serves, its name in variables and headers, the
//! variables of the meter, and the labels that the Service selects.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvVar, PodTemplateSpec};
use serde_json::Value;

use super::{TemplateError, path::Path};
use crate::{
    api::model_alias::{Runtime, Serving},
    render::{HTTP, labels, meter, pod, runtime},
};

/// Whether Laurel alone sets this variable of the container `model`.
fn reserved(runtime: Runtime, variable: &str) -> bool {
    pod::IDENTITY.contains(&variable) || runtime::reserved(runtime).contains(&variable)
}

/// Reports errors in `serving.env`.
pub(super) fn variables(serving: &Serving) -> Vec<TemplateError> {
    let mut seen = BTreeSet::new();
    let problem = |variable: &EnvVar| {
        let name = variable.name.as_str();
        match () {
            () if reserved(serving.runtime, name) => Some(owned(name)),
            () if !seen.insert(name.to_owned()) => Some(format!("{name} is set twice; keep one of them")),
            () => None,
        }
    };
    let problems: Vec<_> = serving.env.iter().map(problem).collect();
    let at = Path::of("serving.env");
    problems
        .into_iter()
        .enumerate()
        .filter_map(|(index, problem)| Some(TemplateError::new(&at.item(index).field("name"), problem?)))
        .collect()
}

fn owned(name: &str) -> String {
    if meter::is_variable(name) {
        return format!("{name} is set by Laurel, from serving.port and serving.metrics; remove it here");
    }
    format!("{name} names the version of a pod and is set by Laurel; remove it here")
}

/// Returns the fields of `serving` that are set and have an effect only through the rendered command.
fn of_the_command(serving: &Serving) -> impl Iterator<Item = &'static str> {
    let predictions = serving.metrics.as_ref().and_then(|metrics| metrics.predictions);
    let fields =
        [("keepAlive", serving.keep_alive.is_some()), ("metrics.predictions", predictions.is_some())];
    fields.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field)
}

/// Reports fields of `template` that would replace something of Laurel's.
pub(super) fn overrides(serving: &Serving, template: &Value) -> Vec<TemplateError> {
    let root = Path::root();
    let mut errors = metadata(&root.field("metadata"), &template["metadata"]);
    let spec = root.field("spec");
    let containers = spec.field("containers");
    for (index, container) in items(&template["spec"]["containers"]) {
        if container["name"] == pod::MODEL {
            errors.extend(model_container(serving, &containers.item(index), container));
        }
    }
    errors
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

fn fields(object: &Value) -> impl Iterator<Item = &String> {
    object.as_object().into_iter().flatten().map(|(field, _)| field)
}

fn metadata(path: &Path, metadata: &Value) -> Vec<TemplateError> {
    let mut errors = Vec::new();
    for field in fields(metadata) {
        let path = path.field(field);
        if field != "labels" && field != "annotations" && !metadata[field].is_null() {
            errors.push(TemplateError::new(
                &path,
                "Kubernetes takes only labels and annotations from a template; remove it",
            ));
        }
        for key in fields(&metadata[field]).filter(|key| key.starts_with(labels::PREFIX)) {
            let problem = format!("{} is Laurel's own; use another prefix", labels::PREFIX);
            errors.push(TemplateError::new(&path.field(key), problem));
        }
    }
    errors
}

fn model_container(serving: &Serving, path: &Path, container: &Value) -> Vec<TemplateError> {
    let mut errors = Vec::new();
    let env = path.field("env");
    for (index, variable) in items(&container["env"]) {
        if let Some(name) = variable["name"].as_str().filter(|name| reserved(serving.runtime, name)) {
            errors.push(TemplateError::new(&env.item(index).field("name"), owned(name)));
        }
    }
    if !container["envFrom"].is_null() {
        let problem = "would replace the whole list, including the registry's serving.envFrom; add to \
                       serving.envFrom instead";
        errors.push(TemplateError::new(&path.field("envFrom"), problem));
    }
    if !container["command"].is_null() {
        errors.extend(of_the_command(serving).map(|field| {
            let problem =
                format!("{field} needs the command that Laurel renders; remove serving.{field} or this");
            TemplateError::new(&path.field("command"), problem)
        }));
    }
    errors
}

/// Reports parts of `rendered` that must still be in `merged`, but are not.
pub(super) fn kept(
    serving: &Serving,
    rendered: &PodTemplateSpec,
    merged: &PodTemplateSpec,
) -> Vec<TemplateError> {
    let root = Path::root();
    let spec = root.field("spec");
    let containers = spec.field("containers");
    let mut errors = Vec::new();
    let mut error = |path: &Path, problem: &str| errors.push(TemplateError::new(path, problem));

    if !marks(rendered).is_subset(&marks(merged)) {
        error(&root.field("metadata"), "removes labels or annotations of Laurel's; keep them");
    }
    if merged
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .is_some_and(|policy| policy != "Always")
    {
        error(&spec.field("restartPolicy"), "a Deployment's pods always restart; remove it");
    }
    let (Some(ours), Some(model)) = (model(rendered), model(merged)) else {
        error(&containers, "removes the container model; keep it");
        return errors;
    };
    if !pinned(serving, ours).is_subset(&pinned(serving, model)) {
        error(
            &containers,
            "removes variables that only Laurel sets, as those that name the version; keep them",
        );
    }
    if http_ports(model) != [i32::from(serving.port)] {
        let problem = format!(
            "the container model has one port called http, and it is serving.port ({}); change serving.port \
             instead",
            serving.port
        );
        error(&containers, &problem);
    }
    if model.command != ours.command {
        for field in of_the_command(serving) {
            let problem =
                format!("removes the command that serving.{field} needs; keep it, or remove serving.{field}");
            error(&containers, &problem);
        }
    }
    if model.readiness_probe.is_none() {
        let problem = match serving.runtime {
            Runtime::Custom => {
                "runtime custom needs a readinessProbe on the container model, so that traffic reaches only \
                 a server that can answer; add it"
            }
            Runtime::Mlflow | Runtime::Mlserver => {
                "removes the readinessProbe of the container model, so that traffic would reach a server \
                 that does not answer yet; keep it, or set another one"
            }
        };
        error(&containers, problem);
    }
    errors
}

/// Returns the labels and annotations under Laurel's prefix, as pairs.
fn marks(template: &PodTemplateSpec) -> BTreeSet<(&String, &String)> {
    let metadata = template.metadata.iter();
    metadata
        .flat_map(|metadata| [&metadata.labels, &metadata.annotations])
        .flatten()
        .flatten()
        .filter(|(key, _)| key.starts_with(labels::PREFIX))
        .collect()
}

fn model(template: &PodTemplateSpec) -> Option<&Container> {
    template.spec.as_ref()?.containers.iter().find(|container| container.name == pod::MODEL)
}

/// Returns the reserved variables, as pairs.
fn pinned<'a>(serving: &Serving, container: &'a Container) -> BTreeSet<(&'a str, Option<&'a str>)> {
    let env = container.env.iter().flatten();
    env.filter(|variable| reserved(serving.runtime, &variable.name))
        .map(|variable| (variable.name.as_str(), variable.value.as_deref()))
        .collect()
}

fn http_ports(container: &Container) -> Vec<i32> {
    let ports = container.ports.iter().flatten();
    ports.filter(|port| port.name.as_deref() == Some(HTTP)).map(|port| port.container_port).collect()
}
