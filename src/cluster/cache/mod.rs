//! What Laurel's own objects look like in the cluster: watched by label, kept as small projections.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::{
    pod_causes::{self, AwaitedPod, EndedPod},
    pods::PodView,
};
use crate::{
    api::{ModelAlias, condition::ReasonMessage, model_alias::AliasKey, names::Version},
    decide::{ClusterView, OwnObject, SmokeTest, Traffic, Workload},
    render::{ServiceRendering, labels},
};

mod budget;
mod deployment;
mod endpoints;
mod service;

pub use budget::BudgetView;
pub use deployment::DeploymentView;
pub use service::ServiceView;

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
    budget: Option<BudgetView>,
    slices: BTreeMap<String, endpoints::SliceView>,
    pods: BTreeMap<String, PodView>,
    /// The last pod of each version that its node ended or rejected.
    ended: BTreeMap<Version, EndedPod>,
}

/// An object with one of our names that belongs to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The Service of this name.
    Service(String),
    /// The Deployment of this name.
    Deployment(String),
}

/// The labels, annotations and controller of an object, as far as they are Laurel's.
#[derive(Clone, Debug, PartialEq)]
struct OwnMetadata {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    controller: Option<OwnerReference>,
}

impl OwnMetadata {
    fn of(metadata: &ObjectMeta) -> Self {
        let own = |pairs: &Option<BTreeMap<String, String>>| {
            let pairs = pairs.iter().flatten().filter(|(key, _)| labels::is_own(key));
            pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        Self {
            labels: own(&metadata.labels),
            annotations: own(&metadata.annotations),
            controller: controller(metadata).cloned(),
        }
    }

    /// Whether all that was rendered is there. There may be more of an earlier time.
    fn has(&self, rendered: &ObjectMeta) -> bool {
        let has = |pairs: &BTreeMap<String, String>, due: &Option<BTreeMap<String, String>>| {
            due.iter().flatten().all(|(key, value)| pairs.get(key) == Some(value))
        };
        has(&self.labels, &rendered.labels)
            && has(&self.annotations, &rendered.annotations)
            && self.controller.as_ref() == controller(rendered)
    }
}

/// Who controls an object that has our labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: Option<String>,
    /// It has the name and the labels that Laurel gives it, and belongs to nobody or to a ModelAlias of the
    /// same name.
    is_adoptable: bool,
}

impl Owner {
    /// `name` is the one that Laurel gives such an object.
    fn of(metadata: &ObjectMeta, alias: &AliasKey, name: &str) -> Self {
        let managed_by = metadata.labels.as_ref().and_then(|labels| labels.get(labels::MANAGED_BY));
        let is_namesake = |owner: &OwnerReference| {
            let group = owner.api_version.split('/').next();
            group == Some(ModelAlias::group(&()).as_ref())
                && owner.kind == ModelAlias::kind(&())
                && owner.name == alias.1
        };
        let controller = controller(metadata);
        Self {
            uid: controller.map(|owner| owner.uid.clone()),
            is_adoptable: metadata.name.as_deref() == Some(name)
                && metadata.deletion_timestamp.is_none()
                && managed_by.is_some_and(|manager| manager == labels::MANAGER)
                && controller.is_none_or(is_namesake),
        }
    }

    fn is(&self, uid: &str) -> bool {
        self.uid.as_deref() == Some(uid)
    }

    /// Whether the object belongs to a ModelAlias that had this one's name and is gone, or to nobody. There
    /// are no two of one name at a time.
    fn is_orphan(&self, uid: &str) -> bool {
        !self.is(uid) && self.is_adoptable
    }

    /// Whether the object belongs to something else.
    #[must_use]
    pub fn is_foreign(&self, uid: &str) -> bool {
        !self.is(uid) && !self.is_adoptable
    }

    /// The patch that makes `owner` the controller of an object of this revision, in place of the one that is
    /// gone.
    #[must_use]
    pub fn replaced_by(&self, owner: &OwnerReference, revision: u64) -> Value {
        let gone = self.uid.iter().filter(|uid| **uid != owner.uid);
        let owners = gone.map(|uid| json!({ "$patch": "delete", "uid": uid })).chain([json!(owner)]);
        let owners: Vec<Value> = owners.collect();
        json!({ "metadata": { "resourceVersion": revision.to_string(), "ownerReferences": owners } })
    }
}

/// An object that can be kept as a projection.
pub trait Projected: kube::Resource<DynamicType = ()> + Clone {
    /// Keeps it under its ModelAlias. Something older than what is known is passed over: a watch may lag
    /// behind our own writes.
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

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

fn count(number: Option<i32>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, HashMap<AliasKey, Objects>> {
        self.aliases.lock()
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

    /// The cluster as it shows for the ModelAlias with this UID: what belongs to somebody else is not in it.
    /// `rendering` is what its Service is rendered from; `smoke` is a version's smoke test.
    #[must_use]
    pub fn view(
        &self,
        alias: &AliasKey,
        uid: &str,
        rendering: Option<&ServiceRendering>,
        smoke: impl Fn(Version) -> Option<SmokeTest>,
    ) -> ClusterView {
        let aliases = self.lock();
        let Some(objects) = aliases.get(alias) else { return ClusterView::default() };
        let service = objects.service.as_ref().filter(|service| !service.owner.is_foreign(uid));
        ClusterView {
            traffic: service.map_or(Traffic::Nowhere, |service| service.traffic),
            service_outdated: service
                .zip(rendering)
                .is_some_and(|(service, rendering)| service.is_outdated(rendering)),
            budget: objects.budget(uid, rendering),
            budget_is_unknown: false,
            endpoints: objects.endpoints(),
            workloads: objects
                .deployments
                .values()
                .filter(|deployment| !deployment.owner.is_foreign(uid))
                .map(|deployment| {
                    (deployment.version, objects.workload(&alias.0, deployment, smoke(deployment.version)))
                })
                .collect(),
            orphans: objects.orphans(uid),
        }
    }

    /// Something that bears this alias's names but belongs to somebody else.
    #[must_use]
    pub fn foreign(&self, alias: &AliasKey, uid: &str) -> Option<Foreign> {
        let aliases = self.lock();
        let objects = aliases.get(alias)?;
        let service = objects.service.as_ref().filter(|service| service.owner.is_foreign(uid));
        let deployment = objects.deployments.iter().find(|(_, it)| it.owner.is_foreign(uid));
        service
            .map(|_| Foreign::Service(alias.1.clone()))
            .or_else(|| deployment.map(|(name, _)| Foreign::Deployment(name.clone())))
    }

    /// The Service of this alias, where it is known.
    #[must_use]
    pub fn service(&self, alias: &AliasKey) -> Option<ServiceView> {
        self.lock().get(alias)?.service.clone()
    }

    /// The PodDisruptionBudget of this alias, where it is known.
    #[must_use]
    pub fn budget(&self, alias: &AliasKey) -> Option<BudgetView> {
        self.lock().get(alias)?.budget.clone()
    }

    /// The Deployment of this version, where it is known.
    #[must_use]
    pub fn deployment(&self, alias: &AliasKey, version: Version) -> Option<DeploymentView> {
        let aliases = self.lock();
        aliases.get(alias)?.deployments.values().find(|known| known.version == version).cloned()
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
            .filter(|deployment| !deployment.owner.is_foreign(uid) && deployment.desired > 0);
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

    fn budget(&self, uid: &str, rendering: Option<&ServiceRendering>) -> Option<Traffic> {
        let budget = self.budget.as_ref().filter(|budget| !budget.owner.is_foreign(uid))?;
        let traffic = self.service.as_ref().map_or(Traffic::Nowhere, |service| service.traffic);
        Some(rendering.map_or(Traffic::Nowhere, |rendering| budget.protects(rendering, traffic)))
    }

    fn orphans(&self, uid: &str) -> BTreeSet<OwnObject> {
        let service = self.service.iter().filter(|service| service.owner.is_orphan(uid));
        let deployments = self.deployments.values().filter(|deployment| deployment.owner.is_orphan(uid));
        let budget = self.budget.iter().filter(|budget| budget.owner.is_orphan(uid));
        service
            .map(|_| OwnObject::Service)
            .chain(budget.map(|_| OwnObject::Budget))
            .chain(deployments.map(|deployment| OwnObject::Deployment(deployment.version)))
            .collect()
    }

    fn is_empty(&self) -> bool {
        self.deployments.is_empty()
            && self.service.is_none()
            && self.budget.is_none()
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
            // Pods of earlier settings run until those of the current ones are ready; their errors no longer count.
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::{Pod, Service},
    };

    use kube::ResourceExt;

    use super::{service::traffic, *};
    use crate::api::condition::Reason;

    const OWNER: &str = "{apiVersion: v1, kind: K, name: n, uid: u, controller: true}";

    pub(super) fn key() -> AliasKey {
        ("risk".into(), "fraud".into())
    }

    fn service(revision: u64, selector: &str) -> Service {
        let text = format!(
            "metadata: {{name: fraud, namespace: risk, resourceVersion: '{revision}', ownerReferences: [{OWNER}]}}\nspec: {{selector: {{{selector}}}}}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    /// A Deployment of a version, with more in its metadata.
    pub(super) fn deployment(version: u32, metadata: &str) -> Deployment {
        serde_yaml::from_str(&format!(
            "{{metadata: {{name: fraud-v{version}, labels: {{laurel.dev/version: '{version}'}}, ownerReferences: [{OWNER}], \
              annotations: {{laurel.dev/settings: v1-new, laurel.dev/model-uri: 'models:/m-1'}}, {metadata}}}, \
              spec: {{replicas: 1, selector: {{}}, template: {{}}}}}}"
        ))
        .unwrap()
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

    /// A Deployment with this controller, and whether it is an orphan of the ModelAlias with the UID `new`,
    /// or foreign to it.
    fn relation(name: &str, manager: &str, owner: &str) -> (bool, bool) {
        let mut deployment = deployment(2, "");
        deployment.metadata.name = Some(name.into());
        deployment.metadata.owner_references = serde_yaml::from_str(owner).unwrap();
        deployment.labels_mut().insert(labels::MANAGED_BY.into(), manager.into());
        let cache = Cache::default();
        deployment.insert(&cache, &key());
        let view = cache.view(&key(), "new", None, |_| None);
        let is_foreign = cache.foreign(&key(), "new").is_some();
        assert_eq!(view.workloads.is_empty(), is_foreign);
        (!view.orphans.is_empty(), is_foreign)
    }

    #[test]
    fn what_a_backup_brings_back_is_adopted_and_nothing_else() {
        let alias = |uid: &str| {
            format!(
                "[{{apiVersion: laurel.dev/v1alpha1, kind: ModelAlias, name: fraud, uid: {uid}, controller: true}}]"
            )
        };
        assert_eq!(relation("fraud-v2", "laurel", &alias("new")), (false, false));
        assert_eq!(relation("fraud-v2", "laurel", &alias("old")), (true, false));
        assert_eq!(relation("fraud-v2", "laurel", "[]"), (true, false));
        let foreign = (false, true);
        let other_name = alias("old").replace("fraud", "other");
        assert_eq!(relation("fraud-v2", "laurel", &other_name), foreign);
        assert_eq!(relation("fraud-v2", "laurel", &alias("old").replace("laurel.dev", "other.dev")), foreign);
        assert_eq!(relation("fraud-v2", "laurel", &alias("old").replace("ModelAlias", "Rollout")), foreign);
        assert_eq!(relation("fraud-v2-copy", "laurel", "[]"), foreign);
        assert_eq!(relation("fraud-v2", "Helm", "[]"), foreign);
    }

    #[test]
    fn an_object_that_is_being_deleted_is_not_adopted() {
        let cache = Cache::default();
        let mut deployment = deployment(2, "deletionTimestamp: '2027-01-15T08:00:00Z'");
        deployment.metadata.owner_references = None;
        deployment.labels_mut().insert(labels::MANAGED_BY.into(), labels::MANAGER.into());
        deployment.insert(&cache, &key());
        assert_eq!(cache.foreign(&key(), "u"), Some(Foreign::Deployment("fraud-v2".into())));
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
    fn errors_of_current_settings_are_reported_first() {
        let cache = Cache::default();
        deployment(2, "").insert(&cache, &key());
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
