//! Writes to the cluster: server-side apply under one field manager for whole objects, the smallest patch for the rest.
#![expect(clippy::disallowed_types, reason = "effects: writes to the cluster")]

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    api::{
        ModelAlias,
        condition::{Note, Reason},
        names::{ModelUri, Version, deployment_name},
    },
    cluster::{
        cache::Projected,
        error::refusal,
        pods::is_ready,
        server_side_apply::{self, patch_parameters},
    },
    controllers::context::Context,
    decide::Traffic,
    observe::model_alias::{Model, key, with_rendering},
    render::{self, Selection, labels},
};

type Done = Result<(), Note>;

fn api<K>(context: &Context, alias: &ModelAlias) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(context.client.clone(), &alias.namespace().unwrap_or_default())
}

/// Applies a whole object. One that is there already and belongs to somebody else is left alone.
async fn apply<K>(context: &Context, alias: &ModelAlias, object: &K, is_known: bool) -> Done
where
    K: Projected
        + Resource<Scope = kube::core::NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = api::<K>(context, alias);
    let name = object.name_any();
    let described = format!("the {} {name:?}", K::kind(&()));
    if !is_known {
        let there = api.get_metadata_opt(&name).await.map_err(|error| refusal(&error, "read", &described))?;
        let owner = there.map(|there| {
            there.owner_references().iter().any(|owner| Some(&owner.uid) == alias.uid().as_ref())
        });
        if owner == Some(false) {
            let message =
                format!("{described} belongs to somebody else; delete it, or rename this ModelAlias");
            return Err(Note::new(Reason::NameTaken, message));
        }
    }
    let namespace = alias.namespace().unwrap_or_default();
    let written: K = server_side_apply::apply(&context.client, &namespace, &name, object)
        .await
        .map_err(|error| refusal(&error, "apply", &described))?;
    written.insert(&context.cluster, &key(alias));
    Ok(())
}

fn rendered<T>(
    alias: &ModelAlias,
    model: &Model,
    render: impl FnOnce(&render::Rendering) -> T,
) -> Result<T, Note> {
    with_rendering(alias, model, render).ok_or_else(|| {
        Note::new(Reason::AsWished, "spec.serving was removed while its objects were being written")
    })
}

/// A version's start, or its start anew with other settings.
pub(super) struct Start<'a> {
    pub(super) version: Version,
    pub(super) model_uri: &'a ModelUri,
    pub(super) replicas: u32,
    pub(super) at: Timestamp,
}

pub(super) async fn apply_deployment(
    context: &Context,
    alias: &ModelAlias,
    model: &Model,
    Start { version, model_uri, replicas, at }: Start<'_>,
) -> Done {
    let deployment =
        rendered(alias, model, |rendering| render::deployment(rendering, version, model_uri, replicas, at))?
            .map_err(|fault| Note::new(Reason::InvalidTemplate, format!("spec.{fault}")))?;
    let is_known = context.cluster.has_deployment(&key(alias), version);
    apply(context, alias, &deployment, is_known).await
}

/// Points the Service. `counted_on` is the number of ready pods that the decision to do so was made with.
pub(super) async fn route(
    context: &Context,
    alias: &ModelAlias,
    model: &Model,
    traffic: Traffic,
    counted_on: u32,
) -> Done {
    let selection = match traffic {
        Traffic::One(version) => Selection::One(version),
        Traffic::Shared => Selection::Shared,
        Traffic::Nowhere => {
            return Err(Note::new(Reason::ApplyRefused, "a Service is never pointed at nothing"));
        }
    };
    let service = rendered(alias, model, |rendering| render::service(rendering, selection))?;
    enough_pods_are_ready(context, alias, traffic, counted_on).await?;
    let wished = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).and_then(|ports| ports.first());
    let known = context.cluster.service_port(&key(alias));
    if known.is_some() && known != wished.map(|port| port.port) {
        replace_ports(context, alias, &service).await?;
    }
    apply(context, alias, &service, context.cluster.has_service(&key(alias))).await
}

/// That as many pods are ready to get requests as the decision counted on, by what the API server says now: what a watch showed
/// last may be out of date.
async fn enough_pods_are_ready(
    context: &Context,
    alias: &ModelAlias,
    traffic: Traffic,
    counted_on: u32,
) -> Done {
    let version = if let Traffic::One(version) = traffic { Some(version) } else { None };
    let labels = labels::selector(&alias.name_any(), version);
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selected = ListParams::default().labels(&labels.join(",")).fields("status.phase=Running");
    let pods = api::<Pod>(context, alias).list(&selected).await;
    let pods = pods.map_err(|error| refusal(&error, "list", "the pods that are to get requests"))?;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    if u32::try_from(ready).is_ok_and(|ready| ready >= counted_on) {
        return Ok(());
    }
    let of_it = version.map_or_else(String::new, |version| format!(" of version {version}"));
    let message = format!(
        "traffic does not move: {ready} and not {counted_on} pods{of_it} are ready by now; looking again in a moment"
    );
    Err(Note::new(Reason::WaitingForPods, message))
}

/// Puts our ports in place of whatever is there: server-side apply alone cannot take away a port that somebody else set.
async fn replace_ports(context: &Context, alias: &ModelAlias, service: &Service) -> Done {
    let name = service.name_any();
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let patch = Patch::Merge(json!({ "spec": { "ports": ports } }));
    api::<Service>(context, alias)
        .patch(&name, &patch_parameters(), &patch)
        .await
        .map_err(|error| refusal(&error, "set the ports of", &format!("the Service {name:?}")))?;
    Ok(())
}

/// Changes the size, and the time of the start with it: the pod template stays as it was last applied, also across our own
/// releases.
pub(super) async fn scale(
    context: &Context,
    alias: &ModelAlias,
    version: Version,
    replicas: u32,
    now: Timestamp,
) -> Done {
    let name = deployment_name(&alias.name_any(), version);
    let mut patch = json!({ "spec": { "replicas": replicas } });
    if replicas > 0 {
        patch["metadata"] = json!({ "annotations": { labels::STARTED_AT: now.to_string() } });
    }
    let written = api::<Deployment>(context, alias)
        .patch(&name, &patch_parameters(), &Patch::Merge(patch))
        .await
        .map_err(|error| refusal(&error, "scale", &format!("the Deployment {name:?}")))?;
    written.insert(&context.cluster, &key(alias));
    Ok(())
}

pub(super) async fn delete_deployment(context: &Context, alias: &ModelAlias, version: Version) -> Done {
    delete::<Deployment>(context, alias, &deployment_name(&alias.name_any(), version)).await
}

pub(super) async fn delete_service(context: &Context, alias: &ModelAlias) -> Done {
    delete::<Service>(context, alias, &alias.name_any()).await
}

async fn delete<K>(context: &Context, alias: &ModelAlias, name: &str) -> Done
where
    K: Projected + Resource<Scope = kube::core::NamespaceResourceScope> + DeserializeOwned + std::fmt::Debug,
{
    let deleted = api::<K>(context, alias).delete(name, &DeleteParams::background()).await;
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(refusal(&error, "delete", &format!("the {} {name:?}", K::kind(&())))),
        Ok(_) => {}
    }
    K::remove(&context.cluster, &key(alias), name);
    Ok(())
}
