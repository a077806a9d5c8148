//! Queries about a place in the cluster.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod, ResourceQuota, Service},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, PostParams},
    runtime::wait::await_condition,
};
use laurel::{
    api::{ModelAlias, RegisteredModel, model_alias::Recorded},
    render::labels,
};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::place::{PATIENCE, Place};

/// Returns the desired number of pods of each version.
pub(crate) async fn sizes(place: &Place) -> Result<BTreeMap<String, i32>> {
    let deployments = place.api::<Deployment>().list(&ListParams::default()).await?;
    let size = |deployment: Deployment| {
        let version = deployment.labels().get(labels::VERSION).cloned().unwrap_or_default();
        (version, deployment.spec.and_then(|spec| spec.replicas).unwrap_or_default())
    };
    let sizes: BTreeMap<String, i32> = deployments.items.iter().cloned().map(size).collect();
    ensure!(sizes.len() == deployments.items.len(), "a version has more than one Deployment: {sizes:?}");
    Ok(sizes)
}

/// Waits until exactly these versions have these desired numbers of pods.
pub(crate) async fn until_sizes<const N: usize>(place: &Place, wanted: [(&str, i32); N]) -> Result<()> {
    let wanted = wanted.map(|(version, size)| (version.to_owned(), size)).into();
    let began = Instant::now();
    loop {
        let sizes = sizes(place).await?;
        if sizes == wanted {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the versions have {sizes:?} pods and not {wanted:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Returns the version that the Service selects.
pub(crate) async fn selected(place: &Place) -> Result<String> {
    let service = place.api::<Service>().get("champion").await?;
    let selector = service.spec.and_then(|spec| spec.selector).unwrap_or_default();
    ensure!(selector.get(labels::MODEL_ALIAS).is_some_and(|alias| alias == "champion"), "{selector:?}");
    selector.get(labels::VERSION).cloned().context("the Service selects no version")
}

/// Returns the revisions of everything that Laurel writes.
pub(crate) async fn revisions(place: &Place) -> Result<BTreeMap<String, Option<String>>> {
    fn each<K: Resource<DynamicType = ()>>(
        objects: Vec<K>,
    ) -> impl Iterator<Item = (String, Option<String>)> {
        objects
            .into_iter()
            .map(|object| (format!("{} {}", K::kind(&()), object.name_any()), object.resource_version()))
    }
    let all = ListParams::default();
    let mut revisions = BTreeMap::new();
    revisions.extend(each(place.api::<Deployment>().list(&all).await?.items));
    revisions.extend(each(place.api::<Service>().list(&all).await?.items));
    revisions.extend(each(place.api::<ModelAlias>().list(&all).await?.items));
    revisions.extend(each(place.api::<RegisteredModel>().list(&all).await?.items));
    Ok(revisions)
}

/// How long the audit log may take. Where the registry cannot be written, it never arrives.
const AUDIT: Duration = Duration::from_secs(15);

/// Whether the audit log of a change has yet to reach the registry, and then the status.
async fn awaits_audit(place: &Place) -> Result<bool> {
    let aliases = place.api::<ModelAlias>().list(&ListParams::default()).await?;
    let history = |alias: ModelAlias| alias.status.map(|status| status.history).unwrap_or_default();
    Ok(aliases.items.into_iter().flat_map(history).any(|entry| entry.recorded == Recorded::Pending))
}

/// The same, once nothing has been written for a while: the last observation may still have to be written to
/// the status.
pub(crate) async fn settled(place: &Place) -> Result<BTreeMap<String, Option<String>>> {
    let began = Instant::now();
    let mut before = revisions(place).await?;
    loop {
        sleep(Duration::from_millis(1500)).await;
        let now = revisions(place).await?;
        if now == before && (began.elapsed() > AUDIT || !awaits_audit(place).await?) {
            return Ok(now);
        }
        ensure!(began.elapsed() < PATIENCE, "it does not come to rest: {before:#?}\n{now:#?}");
        before = now;
    }
}

/// A quota `full` that the two pods of one version fill: another version cannot start.
pub(crate) async fn no_more_pods(place: &Place) -> Result<Api<ResourceQuota>> {
    place
        .apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: full}, spec: {hard: {pods: '2'}}}")
        .await?;
    let counted = |quota: Option<&ResourceQuota>| {
        let used = quota.and_then(|quota| quota.status.as_ref()?.used.as_ref()?.get("pods").cloned());
        used.is_some_and(|used| used.0 == "2")
    };
    let quotas = place.api::<ResourceQuota>();
    let counted = await_condition(quotas.clone(), "full", counted);
    timeout(PATIENCE, counted).await.context("the quota counts nothing")??;
    Ok(quotas)
}

/// Keeps the pods of a version from ever becoming ready, by an admission policy that is deleted with the
/// namespace.
pub(crate) async fn never_ready(place: &Place, version: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(place.cluster.client.clone());
    let uid = namespaces.get(&place.namespace).await?.uid().context("a namespace without UID")?;
    let name = never_ready_name(place);
    let owner = json!([{ "apiVersion": "v1", "kind": "Namespace", "name": place.namespace, "uid": uid }]);
    let metadata = json!({ "name": name, "ownerReferences": owner });
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": metadata,
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": place.namespace } },
                "objectSelector": { "matchLabels": { labels::VERSION: version } },
                "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                }],
            },
            "mutations": [{
                "patchType": "ApplyConfiguration",
                "applyConfiguration": { "expression":
                    "Object{metadata: Object.metadata{annotations: {'kwok.laurel.test/fate': \
                     'never-ready'}}}" },
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": metadata, "spec": { "policyName": name },
    });
    place.apply_cluster_wide(&policy).await?;
    place.apply_cluster_wide(&binding).await?;
    until_in_force(place, version, true).await
}

/// Undoes [`never_ready`].
pub(crate) async fn ready_again(place: &Place, version: &str) -> Result<()> {
    let name = never_ready_name(place);
    for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"] {
        place.delete_cluster_wide("admissionregistration.k8s.io", kind, &name).await?;
    }
    until_in_force(place, version, false).await
}

fn never_ready_name(place: &Place) -> String {
    format!("never-ready-{}", place.namespace)
}

/// Waits until the policy on new pods of a version is, or is no longer, in force.
async fn until_in_force(place: &Place, version: &str, wanted: bool) -> Result<()> {
    let pods = place.api::<Pod>();
    let probe: Pod = serde_json::from_value(json!({
        "metadata": { "name": "probe", "labels": { labels::VERSION: version } },
        "spec": {
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "probe", "image": "probe:1",
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    }))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let began = Instant::now();
    loop {
        let created = pods.create(&dry_run, &probe).await?;
        if created.annotations().contains_key("kwok.laurel.test/fate") == wanted {
            return Ok(());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "the policy on pods of version {version} does not come into force"
        );
        sleep(Duration::from_millis(100)).await;
    }
}
