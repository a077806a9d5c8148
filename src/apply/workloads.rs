//! Writes to the cluster: server-side apply under one field manager for whole objects, minimal patches
//! otherwise.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{Effects, deletion::delete, place::Place};
use crate::{
    api::{
        ModelAlias,
        condition::{Reason, ReasonMessage},
        http_route::HttpRoute,
        names::{Version, deployment_name},
    },
    cluster::{
        cache::{Projected, ServiceView},
        error::error_message,
        pods::is_ready,
        server_side_apply::patch_parameters,
    },
    decide::{OwnObject, Traffic},
    render::{self, Selection, labels},
    resolve::Subject,
};

pub(super) type Done = Result<(), ReasonMessage>;

pub(super) fn api<K>(effects: &Effects<'_>, subject: &Subject<'_>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(effects.client.clone(), &subject.key.0)
}

/// Applies a whole object, unless one of that name exists with another owner.
pub(super) async fn apply<K>(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    name: &str,
    object: &(impl Serialize + std::fmt::Debug),
    is_known: bool,
) -> Result<K, ReasonMessage>
where
    K: Projected + Resource<Scope = kube::core::NamespaceResourceScope> + DeserializeOwned + std::fmt::Debug,
{
    let place = Place { client: effects.client, key: &subject.key, uid: &subject.uid, name };
    let taken: &str = Reason::NameTaken.into();
    let was_taken = subject.status.conditions.iter().any(|condition| condition.reason == taken);
    let written: K =
        if is_known { place.apply(object).await } else { place.create(object, was_taken).await }?;
    written.insert(effects.cluster, &subject.key);
    Ok(written)
}

pub(super) fn serving_was_removed() -> ReasonMessage {
    ReasonMessage::new(Reason::AsDesired, "spec.serving was removed while its objects were being written")
}

/// Points the Service at a version or at all versions. `counted_on` is the number of ready pods that the
/// decision was based on.
pub(super) async fn route(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    traffic: Traffic,
    counted_on: u32,
) -> Done {
    let nowhere = || {
        let message = "bug in Laurel, please report it: a Service without a selected version";
        ReasonMessage::new(Reason::ApplyRefused, message)
    };
    let selection = Selection::of(traffic).ok_or_else(nowhere)?;
    let rendering = subject.service_rendering().ok_or_else(serving_was_removed)?;
    let service = render::service(&rendering, selection);
    enough_pods_are_ready(effects, subject, traffic, counted_on).await?;
    let known = effects.cluster.service(&subject.key);
    if let Some(known) = &known {
        free_ports(effects, subject, known, &service).await?;
    }
    apply::<Service>(effects, subject, &service.name_any(), &service, known.is_some()).await.map(drop)
}

fn version_of(traffic: Traffic) -> Option<Version> {
    if let Traffic::One(version) = traffic { Some(version) } else { None }
}

/// The selector of the pods that requests are sent to, as text.
pub(super) fn selected_by(subject: &Subject<'_>, traffic: Traffic) -> String {
    let labels = labels::selector(&subject.key.1, version_of(traffic));
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Checks with the API server that as many pods are ready as the decision counted on: the watch cache may be
/// stale.
pub(super) async fn enough_pods_are_ready(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    traffic: Traffic,
    counted_on: u32,
) -> Done {
    let version = version_of(traffic);
    let selected =
        ListParams::default().labels(&selected_by(subject, traffic)).fields("status.phase=Running");
    let pods = api::<Pod>(effects, subject).list(&selected).await;
    let pods = pods.map_err(|error| error_message(&error, "list", "the pods that should get traffic"))?;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    if u32::try_from(ready).is_ok_and(|ready| ready >= counted_on) {
        return Ok(());
    }
    let of_it = version.map_or_else(String::new, |version| format!(" of version {version}"));
    let message = format!("traffic not switched: {ready} of {counted_on} pods{of_it} are ready; retrying");
    Err(ReasonMessage::new(Reason::WaitingForPods, message))
}

/// Removes ports that conflict with the rendered ones: server-side apply cannot remove a port that another
/// client set.
pub(super) async fn free_ports(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    known: &ServiceView,
    service: &Service,
) -> Done {
    let rendered = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let Some((revision, ports)) = known.freed_ports(rendered) else { return Ok(()) };
    let name = service.name_any();
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": revision.to_string() },
        "spec": { "ports": ports },
    }));
    api::<Service>(effects, subject)
        .patch(&name, &patch_parameters(), &patch)
        .await
        .map_err(|error| error_message(&error, "set the ports of", &format!("the Service {name:?}")))?;
    Ok(())
}

/// Sets `spec.serving.replicas` if it is not set. On a conflict somebody may have set it in the meantime;
/// that value wins.
pub(super) async fn fill_in_replicas(effects: &Effects<'_>, subject: &Subject<'_>, replicas: u32) -> Done {
    let name = &subject.key.1;
    let patch = json!({
        "metadata": { "resourceVersion": subject.metadata().resource_version },
        "spec": { "replicas": replicas },
    });
    let api = api::<ModelAlias>(effects, subject);
    match api.patch_scale(name, &patch_parameters(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
        Err(error) => Err(error_message(&error, "fill in the size of", &format!("the ModelAlias {name:?}"))),
        Ok(_) => Ok(()),
    }
}

/// Makes the ModelAlias the owner of an object that was restored from a backup.
pub(super) async fn adopt(effects: &Effects<'_>, subject: &Subject<'_>, object: OwnObject) -> Done {
    let rendering = subject.service_rendering().ok_or_else(serving_was_removed)?;
    match object {
        OwnObject::Service => {
            let known = effects.cluster.service(&subject.key);
            let patch = known.map(|known| known.owner.replaced_by(&rendering.owner, known.resource_version));
            set_owner::<Service>(effects, subject, rendering.name, patch.map(Patch::Strategic)).await
        }
        OwnObject::Budget => {
            let known = effects.cluster.budget(&subject.key);
            let patch = known.map(|known| known.owner.replaced_by(&rendering.owner, known.resource_version));
            set_owner::<PodDisruptionBudget>(effects, subject, rendering.name, patch.map(Patch::Strategic))
                .await
        }
        OwnObject::Route => {
            let patch = effects.cluster.route(&subject.key).map(|known| known.with_owner(&rendering.owner));
            set_owner::<HttpRoute>(effects, subject, rendering.name, patch.map(Patch::Merge)).await
        }
        OwnObject::VersionService(version) => {
            let known = effects.cluster.version_service(&subject.key, version);
            let patch = known.map(|known| known.owner.replaced_by(&rendering.owner, known.resource_version));
            set_owner::<Service>(
                effects,
                subject,
                &deployment_name(rendering.name, version),
                patch.map(Patch::Strategic),
            )
            .await
        }
        OwnObject::Deployment(version) => {
            let known = effects.cluster.deployment(&subject.key, version);
            let patch = known.map(|known| known.owner.replaced_by(&rendering.owner, known.resource_version));
            set_owner::<Deployment>(
                effects,
                subject,
                &deployment_name(rendering.name, version),
                patch.map(Patch::Strategic),
            )
            .await
        }
    }
}

async fn set_owner<K>(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    name: &str,
    patch: Option<Patch<serde_json::Value>>,
) -> Done
where
    K: Projected + Resource<Scope = kube::core::NamespaceResourceScope> + DeserializeOwned + std::fmt::Debug,
{
    let Some(patch) = patch else { return Ok(()) };
    let described = format!("the {} {name:?}", K::kind(&()));
    let written = api::<K>(effects, subject)
        .patch(name, &patch_parameters(), &patch)
        .await
        .map_err(|error| error_message(&error, "adopt", &described))?;
    written.insert(effects.cluster, &subject.key);
    Ok(())
}

pub(super) async fn delete_service(effects: &Effects<'_>, subject: &Subject<'_>) -> Done {
    let known = effects.cluster.service(&subject.key).and_then(|known| known.uid);
    delete::<Service>(effects.client, effects.cluster, &subject.key, &subject.key.1, known).await
}
