//! What Laurel's own objects look like in the cluster: watched by label, kept as small projections.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use super::{
    pod_causes::{self, AwaitedPod, EndedPod},
    pods::{self, PodView},
};
use crate::{
    api::{
        FIELD_MANAGER,
        condition::ReasonMessage,
        model_alias::AliasKey,
        names::{ModelUri, Version},
    },
    decide::{ClusterView, SmokeTest, Traffic, Workload},
    render::labels,
};

/// The projections of everything that belongs to `ModelAliases`.
#[derive(Debug, Default)]
pub struct Cache {
    aliases: Mutex<HashMap<AliasKey, Objects>>,
}

/// What belongs to one ModelAlias.
#[derive(Clone, Debug, Default)]
struct Objects {
    deployments: BTreeMap<String, DeploymentView>,
    service: Option<ServiceView>,
    slices: BTreeMap<String, BTreeSet<Version>>,
    pods: BTreeMap<String, PodView>,
    /// The last pod of each version that its node ended or rejected.
    ended: BTreeMap<Version, EndedPod>,
}

/// What is kept of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentView {
    resource_version: u64,
    /// The version that its pods serve.
    pub version: Version,
    /// The UID of its owner, the ModelAlias.
    pub owner: Option<String>,
    desired: u32,
    rolled_out: bool,
    edited: bool,
    settings: String,
    model_uri: ModelUri,
    started_at: Option<Timestamp>,
    /// Why its pods cannot be made.
    error_message: Option<String>,
}

/// What is kept of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    resource_version: u64,
    /// The UID of its owner, the ModelAlias.
    pub owner: Option<String>,
    traffic: Traffic,
    port: Option<i32>,
}

/// An object with one of our names that belongs to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The Service of this name.
    Service(String),
    /// The Deployment of this name.
    Deployment(String),
}

fn is_owned(owner: Option<&String>, uid: &str) -> bool {
    owner.is_some_and(|owner| owner == uid)
}

/// An object that can be kept as a projection.
pub trait Projected: kube::Resource<DynamicType = ()> + Clone {
    /// Keeps it under its ModelAlias. Something older than what is known is passed over: a watch may lag behind our own
    /// writes.
    fn insert(&self, cache: &Cache, alias: &AliasKey);
    /// Forgets the object of this name.
    fn remove(cache: &Cache, alias: &AliasKey, name: &str);
    /// The names that are kept, with their `ModelAliases`.
    fn names(cache: &Cache) -> Vec<(AliasKey, String)>;
}

/// The ModelAlias that an object belongs to, by its label.
#[must_use]
pub fn alias_of(metadata: &ObjectMeta) -> Option<AliasKey> {
    let name = metadata.labels.as_ref()?.get(labels::MODEL_ALIAS)?;
    Some((metadata.namespace.clone()?, name.clone()))
}

fn version_of(metadata: &ObjectMeta) -> Option<Version> {
    metadata.labels.as_ref()?.get(labels::VERSION)?.parse().ok()
}

fn revision(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn controller_uid(metadata: &ObjectMeta) -> Option<String> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
}

fn count(number: Option<i32>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, HashMap<AliasKey, Objects>> {
        self.aliases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn edit(&self, alias: &AliasKey, change: impl FnOnce(&mut Objects)) {
        let mut aliases = self.lock();
        let objects = aliases.entry(alias.clone()).or_default();
        change(objects);
        if objects.is_empty() {
            aliases.remove(alias);
        }
    }

    fn all(&self, pick: impl Fn(&Objects) -> Vec<String>) -> Vec<(AliasKey, String)> {
        let aliases = self.lock();
        aliases
            .iter()
            .flat_map(|(key, objects)| pick(objects).into_iter().map(|name| (key.clone(), name)))
            .collect()
    }

    /// The cluster as it shows for the ModelAlias with this UID: what belongs to somebody else is not in it. `port` is the port
    /// that its Service should have; `smoke` is a version's smoke test.
    #[must_use]
    pub fn view(
        &self,
        alias: &AliasKey,
        uid: &str,
        port: Option<i32>,
        smoke: impl Fn(Version) -> Option<SmokeTest>,
    ) -> ClusterView {
        let aliases = self.lock();
        let Some(objects) = aliases.get(alias) else { return ClusterView::default() };
        let service = objects.service.as_ref().filter(|service| is_owned(service.owner.as_ref(), uid));
        ClusterView {
            traffic: service.map_or(Traffic::Nowhere, |service| service.traffic),
            service_outdated: service.is_some_and(|service| port.is_some() && service.port != port),
            endpoints: objects.slices.values().flatten().copied().collect(),
            workloads: objects
                .deployments
                .values()
                .filter(|deployment| is_owned(deployment.owner.as_ref(), uid))
                .map(|deployment| {
                    (deployment.version, objects.workload(&alias.0, deployment, smoke(deployment.version)))
                })
                .collect(),
        }
    }

    /// Something that bears this alias's names but belongs to somebody else.
    #[must_use]
    pub fn foreign(&self, alias: &AliasKey, uid: &str) -> Option<Foreign> {
        let aliases = self.lock();
        let objects = aliases.get(alias)?;
        let is_foreign = |owner: &Option<String>| !is_owned(owner.as_ref(), uid);
        let service = objects.service.as_ref().filter(|service| is_foreign(&service.owner));
        let deployment = objects.deployments.iter().find(|(_, deployment)| is_foreign(&deployment.owner));
        service
            .map(|_| Foreign::Service(alias.1.clone()))
            .or_else(|| deployment.map(|(name, _)| Foreign::Deployment(name.clone())))
    }

    /// The port of this alias's Service, where it is known.
    #[must_use]
    pub fn service_port(&self, alias: &AliasKey) -> Option<i32> {
        self.lock().get(alias)?.service.as_ref()?.port
    }

    /// Whether the Service of this alias is known.
    #[must_use]
    pub fn has_service(&self, alias: &AliasKey) -> bool {
        self.lock().get(alias).is_some_and(|objects| objects.service.is_some())
    }

    /// Whether the Deployment of this version is known.
    #[must_use]
    pub fn has_deployment(&self, alias: &AliasKey, version: Version) -> bool {
        let aliases = self.lock();
        aliases
            .get(alias)
            .is_some_and(|objects| objects.deployments.values().any(|known| known.version == version))
    }

    /// The address of a ready pod of the version.
    #[must_use]
    pub fn ready_pod(&self, alias: &AliasKey, version: Version) -> Option<String> {
        let aliases = self.lock();
        let pods = aliases.get(alias)?.pods.values();
        pods.filter(|pod| pod.version == version && pod.ready).find_map(|pod| pod.ip.clone())
    }

    /// Whether the pod with this address is still a ready one of the version.
    #[must_use]
    pub fn is_ready_pod(&self, alias: &AliasKey, version: Version, address: &str) -> bool {
        let is_it = |pod: &PodView| pod.version == version && pod.ready && pod.ip.as_deref() == Some(address);
        self.lock().get(alias).is_some_and(|objects| objects.pods.values().any(is_it))
    }
}

/// The causes of pods that are not ready.
impl Cache {
    /// The pods of this alias's Deployments that are waited for and whose status does not say why: a few of each
    /// version, those with today's settings first.
    #[must_use]
    pub fn awaited_pods(&self, alias: &AliasKey, uid: &str) -> Vec<AwaitedPod> {
        const PER_VERSION: usize = 2;
        let aliases = self.lock();
        let Some(objects) = aliases.get(alias) else { return Vec::new() };
        let ours = objects
            .deployments
            .values()
            .filter(|deployment| is_owned(deployment.owner.as_ref(), uid) && deployment.desired > 0);
        let awaited = ours.flat_map(|deployment| {
            let is_awaited = |pod: &&PodView| pod.version == deployment.version && pod.is_unexplained();
            let mut pods: Vec<_> = objects.pods.values().filter(is_awaited).collect();
            pods.sort_by_key(|pod| pod.settings.as_ref() != Some(&deployment.settings));
            pods.truncate(PER_VERSION);
            pods
        });
        awaited
            .map(|pod| AwaitedPod {
                uid: pod.uid.clone(),
                namespace: alias.0.clone(),
                version: pod.version,
                stage: pod.stage,
                was_killed: pod.was_killed,
                ip: pod.ip.clone(),
                created: pod.created,
            })
            .collect()
    }
}

impl Objects {
    /// Keeps the newer one of two pods that ended.
    fn keep_ended(&mut self, version: Version, ended: Option<EndedPod>) {
        if let Some(ended) = ended
            && self.ended.get(&version).is_none_or(|known| known.at <= ended.at)
        {
            self.ended.insert(version, ended);
        }
    }

    /// Why the last pod of a Deployment ended, until its replacement is ready.
    fn ended(&self, deployment: &DeploymentView) -> Option<ReasonMessage> {
        const REPLACED_WITHIN: SignedDuration = SignedDuration::from_mins(1);
        let ended = self.ended.get(&deployment.version).filter(|_| deployment.desired > 0)?;
        let live = || self.pods.values().filter(|pod| pod.version == deployment.version && !pod.exit_status);
        let replaces = |pod: &PodView| {
            let times = pod.created.zip(ended.at);
            !pod.ready
                && times
                    .is_some_and(|(created, ended)| created.duration_since(ended).abs() <= REPLACED_WITHIN)
        };
        let is_awaited = live().any(replaces) || live().count() < deployment.desired as usize;
        is_awaited.then(|| ended.cause.clone())
    }

    fn is_empty(&self) -> bool {
        self.deployments.is_empty()
            && self.service.is_none()
            && self.slices.is_empty()
            && self.pods.is_empty()
            && self.ended.is_empty()
    }

    fn workload(&self, namespace: &str, deployment: &DeploymentView, smoke: Option<SmokeTest>) -> Workload {
        let version = deployment.version;
        let pods = || self.pods.values().filter(move |pod| pod.version == version);
        let total = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let ready = total(pods().filter(|pod| pod.ready).count());
        let is_updated = |pod: &&PodView| pod.settings.as_ref() == Some(&deployment.settings);
        let staying = || pods().filter(|pod| !pod.exit_status);
        let refused = deployment.error_message.as_ref();
        let refused = refused.map(|said| pod_causes::refused(version, said, namespace));
        Workload {
            desired: deployment.desired,
            pods: total(pods().count()),
            ready,
            rolled_out: deployment.rolled_out && ready >= deployment.desired,
            edited: deployment.edited,
            settings: deployment.settings.clone(),
            model_uri: deployment.model_uri.clone(),
            started_at: deployment.started_at,
            updated_ready: total(staying().filter(is_updated).filter(|pod| pod.ready).count()),
            outdated: total(staying().filter(|pod| !is_updated(pod)).count()),
            // Pods of earlier settings stand beside those of today's until these are ready; their trouble is over.
            error: refused
                .or_else(|| pods().filter(is_updated).chain(pods()).find_map(|pod| pod.error.clone()))
                .or_else(|| self.ended(deployment)),
            failing_probe: None,
            tried_since: pods().filter_map(PodView::tried_since).min(),
            has_failed: pods().any(PodView::has_failed),
            smoke,
        }
    }
}

fn deployment_view(deployment: &Deployment) -> Option<DeploymentView> {
    let metadata = &deployment.metadata;
    let annotation =
        |key: &str| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key)).cloned();
    let spec = deployment.spec.as_ref()?;
    let status = deployment.status.clone().unwrap_or_default();
    let desired = count(spec.replicas);
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let error_message = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
        .map(|condition| condition.message.clone().unwrap_or_default());
    let seen = status.observed_generation.is_some() && status.observed_generation >= metadata.generation;
    Some(DeploymentView {
        resource_version: revision(metadata),
        version: version_of(metadata)?,
        owner: controller_uid(metadata),
        desired,
        rolled_out: seen
            && count(status.updated_replicas) == desired
            && count(status.replicas) == desired
            && count(status.ready_replicas) >= desired,
        edited: is_edited(metadata),
        settings: annotation(labels::SETTINGS).unwrap_or_default(),
        model_uri: annotation(labels::MODEL_URI)?.parse().ok()?,
        started_at: annotation(labels::STARTED_AT).and_then(|text| text.parse().ok()),
        error_message,
    })
}

/// Whether somebody else owns the image of the container `model`. Applying again takes it back.
fn is_edited(metadata: &ObjectMeta) -> bool {
    let managers = metadata.managed_fields.as_deref().unwrap_or_default();
    let others = managers.iter().filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER));
    let path = "/f:spec/f:template/f:spec/f:containers/k:{\"name\":\"model\"}/f:image";
    others.filter_map(|entry| entry.fields_v1.as_ref()).any(|fields| fields.0.pointer(path).is_some())
}

fn traffic(service: &Service, alias: &str) -> Traffic {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    if selector.get(labels::MODEL_ALIAS).map(String::as_str) != Some(alias) || selector.len() > 2 {
        return Traffic::Nowhere;
    }
    match selector.get(labels::VERSION) {
        Some(version) => version.parse().map_or(Traffic::Nowhere, Traffic::One),
        None if selector.len() == 1 => Traffic::Shared,
        None => Traffic::Nowhere,
    }
}

impl Projected for Deployment {
    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        let Some(view) = deployment_view(self) else {
            tracing::warn!(deployment = %self.name_any(), namespace = %alias.0, "a Deployment with our label lacks our version or model URI");
            return;
        };
        cache.edit(alias, |objects| {
            let name = self.name_any();
            if objects
                .deployments
                .get(&name)
                .is_none_or(|known| known.resource_version <= view.resource_version)
            {
                objects.deployments.insert(name, view);
            }
        });
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        cache.edit(alias, |objects| drop(objects.deployments.remove(name)));
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        cache.all(|objects| objects.deployments.keys().cloned().collect())
    }
}

impl Projected for Service {
    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        if self.name_any() != alias.1 {
            return;
        }
        let ports = self.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let view = ServiceView {
            resource_version: revision(&self.metadata),
            owner: controller_uid(&self.metadata),
            traffic: traffic(self, &alias.1),
            port: ports.first().map(|port| port.port),
        };
        cache.edit(alias, |objects| {
            if objects.service.as_ref().is_none_or(|known| known.resource_version <= view.resource_version) {
                objects.service = Some(view);
            }
        });
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        if name == alias.1 {
            cache.edit(alias, |objects| objects.service = None);
        }
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        let aliases = cache.lock();
        aliases
            .iter()
            .filter(|(_, objects)| objects.service.is_some())
            .map(|(key, _)| (key.clone(), key.1.clone()))
            .collect()
    }
}

impl Projected for EndpointSlice {
    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        let versions = self.endpoints.iter().filter_map(|endpoint| {
            let pod = endpoint.target_ref.as_ref()?.name.as_deref()?;
            version_in_pod_name(&alias.1, pod)
        });
        let versions = versions.collect();
        cache.edit(alias, |objects| drop(objects.slices.insert(self.name_any(), versions)));
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        cache.edit(alias, |objects| drop(objects.slices.remove(name)));
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        cache.all(|objects| objects.slices.keys().cloned().collect())
    }
}

/// The version in a pod's name, which begins with its Deployment's: `<alias>-v<version>-…`. An endpoint may outlive its
/// pod for a moment, so the pod itself cannot be asked.
fn version_in_pod_name(alias: &str, pod: &str) -> Option<Version> {
    pod.strip_prefix(alias)?.strip_prefix("-v")?.split('-').next()?.parse().ok()
}

impl Projected for Pod {
    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        let Some(version) = version_of(&self.metadata) else { return };
        let finished = self
            .status
            .as_ref()
            .is_some_and(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")));
        let mut view = pods::view(self, version);
        cache.edit(alias, |objects| {
            if finished {
                objects.pods.remove(&self.name_any());
                objects.keep_ended(version, pod_causes::of_end(self, version));
            } else {
                view.was_ready |= objects.pods.get(&self.name_any()).is_some_and(|known| known.was_ready);
                objects.pods.insert(self.name_any(), view);
            }
        });
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        cache.edit(alias, |objects| {
            objects.pods.remove(name);
            objects.ended.retain(|_, ended| ended.name != name);
        });
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        cache.all(|objects| {
            let ended = objects.ended.values().map(|ended| &ended.name);
            objects.pods.keys().chain(ended).cloned().collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition::Reason;

    const OWNER: &str = "{apiVersion: v1, kind: K, name: n, uid: u, controller: true}";

    fn key() -> AliasKey {
        ("risk".into(), "fraud".into())
    }

    fn service(revision: u64, selector: &str) -> Service {
        let text = format!(
            "metadata: {{name: fraud, namespace: risk, resourceVersion: '{revision}', ownerReferences: [{OWNER}]}}\nspec: {{selector: {{{selector}}}}}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    #[test]
    fn an_older_event_does_not_hide_our_own_write() {
        let cache = Cache::default();
        service(7, "laurel.dev/model-alias: fraud, laurel.dev/version: '2'").insert(&cache, &key());
        service(5, "laurel.dev/model-alias: fraud, laurel.dev/version: '1'").insert(&cache, &key());
        assert_eq!(cache.view(&key(), "u", None, |_| None).traffic, Traffic::One(Version::new(2).unwrap()));
    }

    #[test]
    fn objects_of_other_owners_are_not_visible() {
        let cache = Cache::default();
        service(7, "laurel.dev/model-alias: fraud, laurel.dev/version: '2'").insert(&cache, &key());
        assert_eq!(cache.foreign(&key(), "u"), None);
        assert_eq!(cache.view(&key(), "other", None, |_| None).traffic, Traffic::Nowhere);
        assert_eq!(cache.foreign(&key(), "other"), Some(Foreign::Service("fraud".into())));
    }

    #[test]
    fn only_our_own_selectors_are_traffic() {
        let traffic_of = |selector: &str| traffic(&service(1, selector), "fraud");
        assert_eq!(traffic_of("laurel.dev/model-alias: fraud"), Traffic::Shared);
        assert_eq!(traffic_of("laurel.dev/model-alias: other"), Traffic::Nowhere);
        assert_eq!(traffic_of("app: fraud"), Traffic::Nowhere);
        assert_eq!(traffic_of("laurel.dev/model-alias: fraud, app: x"), Traffic::Nowhere);
        assert_eq!(traffic_of(""), Traffic::Nowhere);
    }

    #[test]
    fn the_version_of_an_endpoint_is_in_its_pod_s_name() {
        assert_eq!(version_in_pod_name("fraud", "fraud-v12-6c9f-x2x4z"), Version::new(12));
        assert_eq!(version_in_pod_name("fraud", "fraud-champion-v1-6c9f-x2x4z"), None);
    }

    #[test]
    fn errors_of_current_settings_are_reported_first() {
        let cache = Cache::default();
        let deployment: Deployment = serde_yaml::from_str(
            "{metadata: {name: fraud-v2, labels: {laurel.dev/version: '2'}, ownerReferences: [{apiVersion: v1, kind: K, name: n, uid: u, \
              controller: true}], annotations: {laurel.dev/settings: v1-new, \
              laurel.dev/model-uri: 'models:/m-1'}}, spec: {replicas: 1, selector: {}, template: {}}}",
        )
        .unwrap();
        deployment.insert(&cache, &key());
        for (name, settings, reason) in
            [("a", "v1-old", "ErrImagePull"), ("b", "v1-new", "CreateContainerConfigError")]
        {
            let pod: Pod = serde_yaml::from_str(&format!(
                "{{metadata: {{name: {name}, labels: {{laurel.dev/version: '2'}}, annotations: {{laurel.dev/settings: {settings}}}}}, \
                  status: {{containerStatuses: [{{name: model, image: i, imageID: '', ready: false, restartCount: 0, \
                  state: {{waiting: {{reason: {reason}}}}}}}]}}}}"
            ))
            .unwrap();
            pod.insert(&cache, &key());
        }
        let view = cache.view(&key(), "u", None, |_| None);
        let error = view.workloads[&Version::new(2).unwrap()].error.clone().unwrap();
        assert_eq!(error.reason, Reason::ContainerConfigInvalid);
    }

    #[test]
    fn removed_objects_leave_nothing_behind() {
        let cache = Cache::default();
        service(7, "laurel.dev/model-alias: fraud").insert(&cache, &key());
        Service::remove(&cache, &key(), "fraud");
        assert!(cache.lock().is_empty());
    }
}
