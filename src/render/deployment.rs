//! The Deployment that runs one version.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use jiff::Timestamp;

use super::{Applicable, InvalidTemplate, Rendering, labels, owned_fields, pod, template};
use crate::api::names::{ModelUri, Version, deployment_name};

/// Kubernetes reads the largest value as "no deadline". Laurel watches progress itself, from
/// `rollout.progressDeadline`.
const NO_PROGRESS_DEADLINE: i32 = i32::MAX;

/// Returns the Deployment that runs `replicas` pods of `version`, which load `model_uri`, started at
/// `started_at`.
///
/// # Errors
/// When `serving` cannot be rendered; [`validate`] returns the same for every version.
pub fn deployment(
    r: &Rendering,
    version: Version,
    model_uri: &ModelUri,
    replicas: u32,
    started_at: Timestamp,
) -> Result<Applicable<Deployment>, InvalidTemplate> {
    let (template, as_json) = template::checked(r, &pod::template(r, version, model_uri))?;
    let mut annotations = labels::version_annotations(r, model_uri);
    annotations.insert(labels::STARTED_AT.to_owned(), started_at.to_string());
    annotations.insert(labels::OWNS_TEMPLATE.to_owned(), "true".to_owned());
    let spec = DeploymentSpec {
        replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)),
        selector: LabelSelector {
            match_labels: Some(labels::selector(r.name, Some(version))),
            match_expressions: None,
        },
        template,
        strategy: Some(one_more_never_one_less()),
        min_ready_seconds: Some(0),
        progress_deadline_seconds: Some(NO_PROGRESS_DEADLINE),
        // Laurel rolls back by applying what it renders; one old ReplicaSet is kept for people.
        revision_history_limit: Some(1),
        paused: None,
    };
    let spec = Applicable::new(spec, &["template"], as_json);
    annotations.insert(labels::OWNED_FIELDS.to_owned(), owned_fields::rendered(spec.whole()));
    let object = Deployment {
        metadata: ObjectMeta {
            name: Some(deployment_name(r.name, version)),
            namespace: Some(r.namespace.to_owned()),
            labels: Some(labels::version_labels(r, version)),
            annotations: Some(annotations),
            owner_references: Some(vec![r.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(spec.object.clone()),
        status: None,
    };
    Ok(Applicable::new(object, &["spec"], spec.into_whole()))
}

/// Checks that `serving` can be rendered: its variables and its template fit what Laurel renders.
///
/// # Errors
/// Every field that does not fit, with the next step for each.
pub fn validate(r: &Rendering) -> Result<(), InvalidTemplate> {
    template::checked(r, &pod::any_version(r)).map(drop)
}

/// New settings of the same version: a new pod is ready before an old one is stopped.
fn one_more_never_one_less() -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}
