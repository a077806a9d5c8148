//! Writes to the cluster: server-side apply under one field manager for whole objects, minimal patches
//! otherwise.

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch},
    core::{Selector, SelectorExt},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::Effects;
use crate::{
    api::{
        ModelAlias,
        condition::{Reason, ReasonMessage},
        names::{ModelUri, Version, deployment_name},
    },
    cluster::{
        cache::{Projected, ServiceView},
        error::error_message,
        field_owners,
        pods::is_ready,
        server_side_apply::{self, patch_parameters},
    },
    decide::{OwnObject, Traffic},
    render::{self, Rendering, Selection, labels},
    resolve::Subject,
    state::Effect,
};

type Done = Result<(), ReasonMessage>;

fn api<K>(effects: &Effects<'_>, subject: &Subject<'_>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(effects.client.clone(), &subject.key.0)
}

/// Applies a whole object, unless one of that name exists with another owner.
async fn apply<K>(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    name: &str,
    object: &(impl Serialize + std::fmt::Debug),
    is_known: bool,
) -> Done
where
    K: Projected + Resource<Scope = kube::core::NamespaceResourceScope> + DeserializeOwned + std::fmt::Debug,
{
    let api = api::<K>(effects, subject);
    let described = format!("the {} {name:?}", K::kind(&()));
    if !is_known {
        let there =
            api.get_metadata_opt(name).await.map_err(|error| error_message(&error, "read", &described))?;
        let owner = there.map(|there| there.owner_references().iter().any(|owner| owner.uid == subject.uid));
        if owner == Some(false) {
            let message = format!("{described} has another owner; delete it, or rename this ModelAlias");
            return Err(ReasonMessage::new(Reason::NameTaken, message));
        }
    }
    let written: K = server_side_apply::apply(effects.client, &subject.key.0, name, object)
        .await
        .map_err(|error| error_message(&error, "apply", &described))?;
    written.insert(effects.cluster, &subject.key);
    Ok(())
}

fn rendering<'a>(subject: &'a Subject<'_>) -> Result<Rendering<'a>, ReasonMessage> {
    subject.known_model()?;
    subject.rendering().ok_or_else(serving_was_removed)
}

fn serving_was_removed() -> ReasonMessage {
    ReasonMessage::new(Reason::AsDesired, "spec.serving was removed while its objects were being written")
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
    let name = deployment.object.name_any();
    let known = effects.cluster.deployment(&subject.key, version);
    if known.as_ref().is_some_and(|known| known.shared) {
        take_back_fields(effects, subject, &name).await?;
    }
    let applied = apply::<Deployment>(effects, subject, &name, &deployment, known.is_some()).await;
    applied.map_err(|cause| match cause.reason {
        Reason::ApplyRefused => ReasonMessage {
            message: format!("{}; correct spec.serving, or the policy that rejects it", cause.message),
            ..cause
        },
        _ => cause,
    })
}

/// Makes Laurel the owner of all fields that are Laurel's, so that applying them removes what others added.
async fn take_back_fields(effects: &Effects<'_>, subject: &Subject<'_>, name: &str) -> Done {
    let api = api::<Deployment>(effects, subject);
    let described = format!("the Deployment {name:?}");
    let there =
        api.get_metadata_opt(name).await.map_err(|error| error_message(&error, "read", &described))?;
    let Some(metadata) = there.map(|there| there.metadata) else { return Ok(()) };
    let managers = metadata.managed_fields.as_deref().unwrap_or_default();
    let Some(managers) = field_owners::taken_back(managers) else { return Ok(()) };
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": metadata.resource_version, "managedFields": managers },
    }));
    let taken = api.patch_metadata(name, &patch_parameters(), &patch).await;
    taken.map_err(|error| error_message(&error, "take back the fields of", &described))?;
    Ok(())
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
    apply::<Service>(effects, subject, &service.name_any(), &service, known.is_some()).await
}

fn version_of(traffic: Traffic) -> Option<Version> {
    if let Traffic::One(version) = traffic { Some(version) } else { None }
}

/// The selector of the pods that requests are sent to, as text.
fn selected_by(subject: &Subject<'_>, traffic: Traffic) -> String {
    let labels = labels::selector(&subject.key.1, version_of(traffic));
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Checks with the API server that as many pods are ready as the decision counted on: the watch cache may be
/// stale.
async fn enough_pods_are_ready(
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
async fn free_ports(
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

/// Lets the PodDisruptionBudget protect what requests are sent to. One of somebody else for the same pods
/// stays the only one: of two, Kubernetes would let no pod go.
pub(super) async fn protect(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    traffic: Traffic,
) -> Result<Effect, ReasonMessage> {
    let rendering = subject.service_rendering().ok_or_else(serving_was_removed)?;
    let Some(selection) = Selection::of(traffic) else { return Ok(Effect::UnderWay) };
    let known = effects.cluster.budget(&subject.key);
    let is_taken = match &known {
        Some(known) => known.owner.is_foreign(&subject.uid),
        None => is_protected_by_others(effects, subject, traffic).await?,
    };
    if is_taken {
        return Ok(Effect::UnderWay);
    }
    let budget = render::disruption_budget(&rendering, selection);
    apply::<PodDisruptionBudget>(effects, subject, rendering.name, &budget, known.is_some()).await?;
    Ok(Effect::Done)
}

/// Whether there is a PodDisruptionBudget of somebody else that has our name or selects our pods.
async fn is_protected_by_others(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    traffic: Traffic,
) -> Result<bool, ReasonMessage> {
    let budgets = api::<PodDisruptionBudget>(effects, subject).list(&ListParams::default()).await;
    let budgets = budgets.map_err(|error| error_message(&error, "list", "the PodDisruptionBudgets"))?;
    let theirs: Vec<PodDisruptionBudget> =
        budgets.items.into_iter().filter(|budget| !is_of_laurel(budget)).collect();
    if theirs.is_empty() {
        return Ok(false);
    }
    let one = ListParams::default().labels(&selected_by(subject, traffic)).limit(1);
    let pods = api::<Pod>(effects, subject).list(&one).await;
    let pods = pods.map_err(|error| error_message(&error, "list", "the pods that get requests"))?;
    let is_name_taken = theirs.iter().any(|budget| budget.name_any() == subject.key.1);
    Ok(is_name_taken || theirs.iter().any(|budget| pods.iter().any(|pod| selects(budget, pod))))
}

/// Whether a PodDisruptionBudget is one that Laurel rendered, for whichever ModelAlias.
fn is_of_laurel(budget: &PodDisruptionBudget) -> bool {
    budget.labels().get(labels::MANAGED_BY).is_some_and(|manager| manager == labels::MANAGER)
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    selector.is_some_and(|selector| selector.matches(pod.labels()))
}

pub(super) async fn delete_budget(effects: &Effects<'_>, subject: &Subject<'_>) -> Done {
    delete::<PodDisruptionBudget>(effects, subject, &subject.key.1).await
}

/// Makes the ModelAlias the owner of an object that was restored from a backup.
pub(super) async fn adopt(effects: &Effects<'_>, subject: &Subject<'_>, object: OwnObject) -> Done {
    let rendering = subject.service_rendering().ok_or_else(serving_was_removed)?;
    match object {
        OwnObject::Service => {
            let known = effects.cluster.service(&subject.key);
            let patch = known.map(|known| known.owner.replaced_by(&rendering.owner, known.resource_version));
            set_owner::<Service>(effects, subject, rendering.name, patch).await
        }
        OwnObject::Budget => {
            let known = effects.cluster.budget(&subject.key);
            let patch = known.map(|known| known.owner.replaced_by(&rendering.owner, known.resource_version));
            set_owner::<PodDisruptionBudget>(effects, subject, rendering.name, patch).await
        }
        OwnObject::Deployment(version) => {
            let known = effects.cluster.deployment(&subject.key, version);
            let patch = known.map(|known| known.owner.replaced_by(&rendering.owner, known.resource_version));
            set_owner::<Deployment>(effects, subject, &deployment_name(rendering.name, version), patch).await
        }
    }
}

async fn set_owner<K>(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    name: &str,
    patch: Option<serde_json::Value>,
) -> Done
where
    K: Projected + Resource<Scope = kube::core::NamespaceResourceScope> + DeserializeOwned + std::fmt::Debug,
{
    let Some(patch) = patch else { return Ok(()) };
    let described = format!("the {} {name:?}", K::kind(&()));
    let written = api::<K>(effects, subject)
        .patch(name, &patch_parameters(), &Patch::Strategic(patch))
        .await
        .map_err(|error| error_message(&error, "adopt", &described))?;
    written.insert(effects.cluster, &subject.key);
    Ok(())
}

pub(super) async fn delete_deployment(
    effects: &Effects<'_>,
    subject: &Subject<'_>,
    version: Version,
) -> Done {
    delete::<Deployment>(effects, subject, &deployment_name(&subject.key.1, version)).await
}

pub(super) async fn delete_service(effects: &Effects<'_>, subject: &Subject<'_>) -> Done {
    delete::<Service>(effects, subject, &subject.key.1).await
}

async fn delete<K>(effects: &Effects<'_>, subject: &Subject<'_>, name: &str) -> Done
where
    K: Projected + Resource<Scope = kube::core::NamespaceResourceScope> + DeserializeOwned + std::fmt::Debug,
{
    let deleted = api::<K>(effects, subject).delete(name, &DeleteParams::background()).await;
    match deleted {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(error_message(&error, "delete", &format!("the {} {name:?}", K::kind(&())))),
        Ok(_) => {}
    }
    K::remove(effects.cluster, &subject.key, name);
    Ok(())
}
