//! Writes to Deployments.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{ResourceExt, api::Patch};
use serde_json::json;

use super::{
    Effects,
    deletion::delete,
    meter,
    workloads::{Done, api, apply, serving_was_removed},
};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{ModelUri, Version, deployment_name},
    },
    cluster::{cache::Projected, error::error_message, field_owners, server_side_apply::patch_parameters},
    render::{self, Rendering, labels},
    resolve::Subject,
};

fn rendering<'a>(subject: &'a Subject<'_>) -> Result<Rendering<'a>, ReasonMessage> {
    subject.known_model()?;
    subject.rendering().ok_or_else(serving_was_removed)
}

/// Starts a version, or updates it to new settings.
pub(super) struct Start<'a> {
    pub(super) version: Version,
    pub(super) model_uri: &'a ModelUri,
    pub(super) replicas: u32,
    pub(super) at: Timestamp,
}

pub(super) async fn apply_deployment(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    Start { version, model_uri, replicas, at }: Start<'_>,
) -> Done {
    let deployment = render::deployment(&rendering(subject)?, version, model_uri, replicas, at)
        .map_err(|error| ReasonMessage::new(Reason::InvalidTemplate, format!("spec.{error}")))?;
    meter::ensure(effects, subject, &deployment.object).await;
    let name = deployment.object.name_any();
    let known = effects.cluster.deployment(&subject.key, version);
    if known.as_ref().is_some_and(|known| known.shared) {
        take_back_fields(effects, subject, &name).await?;
    }
    let applied = apply::<Deployment>(effects, subject, &name, &deployment, known.is_some()).await;
    let applied = applied.map_err(|cause| match cause.reason {
        Reason::ApplyRefused => ReasonMessage {
            message: format!("{}; correct spec.serving, or the policy that rejects it", cause.message),
            ..cause
        },
        _ => cause,
    })?;
    settle_fields(effects, subject, &deployment.object, &applied).await
}

/// Makes Laurel the owner of all fields that are Laurel's, so that applying them removes what others added.
async fn take_back_fields(effects: &Effects<'_>, subject: &Subject<'_>, name: &str) -> Done {
    let api = api::<Deployment>(effects, subject);
    let described = format!("the Deployment {name:?}");
    let there =
        api.get_metadata_opt(name).await.map_err(|error| error_message(&error, "read", &described))?;
    let Some(patch) = there.and_then(|there| field_owners::take_back(&there.metadata)) else { return Ok(()) };
    let taken = api.patch_metadata(name, &patch_parameters(), &Patch::Merge(patch)).await;
    taken.map_err(|error| error_message(&error, "take back the fields of", &described))?;
    Ok(())
}

/// Corrects the digest of the applied fields where this API server lists others than it was rendered for.
/// Otherwise the difference would be taken for a change that somebody else made, again and again.
async fn settle_fields(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    rendered: &Deployment,
    applied: &Deployment,
) -> Done {
    let managers = applied.metadata.managed_fields.as_deref().unwrap_or_default();
    let due = rendered.annotations().get(labels::OWNED_FIELDS);
    let Some(listed) = field_owners::applied(managers).filter(|listed| Some(listed) != due) else {
        return Ok(());
    };
    let name = rendered.name_any();
    tracing::info!(deployment = name, due, listed, "the API server lists other fields than were expected");
    let patch = json!({ "metadata": { "annotations": { labels::OWNED_FIELDS: listed } } });
    let written = api::<Deployment>(effects, subject)
        .patch(&name, &patch_parameters(), &Patch::Merge(patch))
        .await
        .map_err(|error| error_message(&error, "annotate", &format!("the Deployment {name:?}")))?;
    written.insert(effects.cluster, &subject.key);
    Ok(())
}

/// Changes the size and, if that begins a start, the start time. The pod template stays as last applied, even
/// if another release of Laurel applied it.
pub(super) async fn scale(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    version: Version,
    replicas: u32,
    begins: Option<Timestamp>,
) -> Done {
    let name = deployment_name(&subject.key.1, version);
    let mut patch = json!({ "spec": { "replicas": replicas } });
    if let Some(begins) = begins {
        patch["metadata"] = json!({ "annotations": { labels::STARTED_AT: begins.to_string() } });
    }
    let written = api::<Deployment>(effects, subject)
        .patch(&name, &patch_parameters(), &Patch::Merge(patch))
        .await
        .map_err(|error| error_message(&error, "scale", &format!("the Deployment {name:?}")))?;
    written.insert(effects.cluster, &subject.key);
    Ok(())
}

pub(super) async fn delete_deployment(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    version: Version,
) -> Done {
    let known = effects.cluster.deployment(&subject.key, version).and_then(|known| known.uid);
    let name = deployment_name(&subject.key.1, version);
    delete::<Deployment>(effects.client, effects.cluster, &subject.key, &name, known).await
}
