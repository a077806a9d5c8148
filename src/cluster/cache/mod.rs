//! What Laurel's own objects look like in the cluster: watched by label, kept as small projections.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use litemap::LiteMap;
use parking_lot::{Mutex, MutexGuard};

use super::{
    pod_causes::{self, AwaitedPod, EndedPod},
    pods::PodView,
};
use crate::{
    api::{
        condition::ReasonMessage,
        http_route::HttpRoute,
        model_alias::AliasKey,
        names::{Version, deployment_name},
    },
    decide::{ClusterView, OwnObject, SmokeTest, Traffic, VersionService, Workload},
    render::{ServiceRendering, labels},
};

mod budget;
mod challenger;
mod deployment;
mod endpoints;
mod metadata;
mod owner;
mod referable;
mod route;
mod service;
#[cfg(test)]
mod tests;

pub use budget::BudgetView;
pub use challenger::Reachable;
pub use deployment::DeploymentView;
pub use owner::{Claim, Foreign, ForeignCause, ForeignKind, Owner};
pub use referable::ReferableRoute;
pub use route::RouteObject;
pub use service::ServiceView;

use metadata::OwnMetadata;

/// The projections of everything that belongs to `ModelAliases`.
#[derive(Debug, Default)]
pub struct Cache {
    aliases: Mutex<HashMap<AliasKey, Objects>>,
    /// The HTTPRoutes of anybody.
    routes: referable::ReferableRoutes,
}

/// A pod that may be asked for what it counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeteredPod {
    /// Its UID.
    pub uid: String,
    /// Its address.
    pub ip: String,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// What belongs to one ModelAlias. Most of it exists once or twice, and a `BTreeMap` has room for eleven.
#[derive(Clone, Debug, Default)]
struct Objects {
    deployments: LiteMap<String, DeploymentView>,
    service: Option<ServiceView>,
    budget: Option<BudgetView>,
    route: Option<RouteObject>,
    /// The Services of versions.
    version_services: LiteMap<Version, ServiceView>,
    /// The EndpointSlices of the Services of versions: whose they are, and whether they have a ready
    /// endpoint.
    version_slices: LiteMap<String, (Version, bool)>,
    slices: LiteMap<String, endpoints::SliceView>,
    pods: LiteMap<String, PodView>,
    /// The last pod of each version that its node ended or rejected.
    ended: LiteMap<Version, EndedPod>,
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
    /// Whether it decides on how the Service of a ModelAlias is reached, which its champions depend on.
    const IS_SERVICE: bool = false;
    /// The HTTPRoute that it is: those of anybody are watched, because `ModelAliases` may refer to them.
    fn as_route(&self) -> Option<&HttpRoute> {
        None
    }
    /// Whether objects without our label are watched as well.
    const IS_ROUTE: bool = false;
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

    /// The cluster as it shows for the ModelAlias with this claim: what belongs to somebody else is not in
    /// it. `rendering` is what its Service is rendered from; `smoke` is a version's smoke test.
    #[must_use]
    pub fn view(
        &self,
        alias: &AliasKey,
        claim: &Claim<'_>,
        rendering: Option<&ServiceRendering>,
        smoke: impl Fn(Version) -> Option<SmokeTest>,
    ) -> ClusterView {
        let aliases = self.lock();
        let Some(objects) = aliases.get(alias) else { return ClusterView::default() };
        let service = objects.service.as_ref().filter(|service| !service.owner.is_foreign(claim));
        ClusterView {
            traffic: service.map_or(Traffic::Nowhere, |service| service.traffic),
            service_outdated: service
                .zip(rendering)
                .is_some_and(|(service, rendering)| service.is_outdated(rendering)),
            budget: objects.budget(claim, rendering),
            budget_is_unknown: false,
            route: objects
                .route
                .as_ref()
                .filter(|route| !route.owner.is_foreign(claim))
                .map(|route| route.view(&alias.1, rendering)),
            route_error: None,
            version_services: objects.version_services(claim, rendering),
            challengers: BTreeMap::new(),
            champions: BTreeMap::new(),
            endpoints: objects.endpoints(),
            workloads: objects
                .deployments
                .values()
                .filter(|deployment| !deployment.owner.is_foreign(claim))
                .map(|deployment| {
                    (deployment.version, objects.workload(&alias.0, deployment, smoke(deployment.version)))
                })
                .collect(),
            orphans: objects.orphans(claim),
        }
    }

    /// Something with this alias's labels that belongs to somebody else, and why.
    #[must_use]
    pub fn foreign(&self, alias: &AliasKey, claim: &Claim<'_>) -> Option<Foreign> {
        let aliases = self.lock();
        let objects = aliases.get(alias)?;
        let service = objects.service.iter().map(|it| (ForeignKind::Service, &alias.1, &it.owner));
        let deployments =
            objects.deployments.iter().map(|(name, it)| (ForeignKind::Deployment, name, &it.owner));
        service.chain(deployments).find_map(|(kind, name, owner)| {
            Some(Foreign { kind, name: name.clone(), cause: owner.foreign(claim)? })
        })
    }

    /// The Service of this alias, where it is known.
    #[must_use]
    pub fn service(&self, alias: &AliasKey) -> Option<ServiceView> {
        self.lock().get(alias)?.service.clone()
    }

    /// The port of the Service of this alias, where it is known.
    #[must_use]
    pub fn service_port(&self, alias: &AliasKey) -> Option<u16> {
        self.lock().get(alias)?.service.as_ref()?.port()
    }

    /// The HTTPRoute of this alias, where it is known.
    #[must_use]
    pub fn route(&self, alias: &AliasKey) -> Option<RouteObject> {
        self.lock().get(alias)?.route.clone()
    }

    /// The Service of this version, where it is known.
    #[must_use]
    pub fn version_service(&self, alias: &AliasKey, version: Version) -> Option<ServiceView> {
        self.lock().get(alias)?.version_services.get(&version).cloned()
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
        aliases.get(alias)?.deployments.get(&deployment_name(&alias.1, version)).cloned()
    }

    /// The address of a ready pod of the version.
    #[must_use]
    pub fn ready_pod(&self, alias: &AliasKey, version: Version) -> Option<String> {
        let aliases = self.lock();
        let pods = aliases.get(alias)?.pods.values();
        pods.filter(|pod| pod.version == version && pod.ready).find_map(|pod| pod.ip.clone())
    }

    /// The ready pods of the version, to be asked for what they counted.
    #[must_use]
    pub fn metered_pods(&self, alias: &AliasKey, version: Version) -> Vec<MeteredPod> {
        let aliases = self.lock();
        let Some(objects) = aliases.get(alias) else { return Vec::new() };
        let pods = objects.pods.values().filter(|pod| pod.version == version && pod.ready);
        let metered = |pod: &PodView| {
            Some(MeteredPod { uid: pod.uid.clone(), ip: pod.ip.clone()?, created: pod.created })
        };
        pods.filter_map(metered).collect()
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
    /// The pods of this alias's Deployments that are waited for and whose status does not say why: a few of
    /// each version, those with today's settings first.
    #[must_use]
    pub fn awaited_pods(&self, alias: &AliasKey, claim: &Claim<'_>) -> Vec<AwaitedPod> {
        const PER_VERSION: usize = 2;
        let aliases = self.lock();
        let Some(objects) = aliases.get(alias) else { return Vec::new() };
        let ours = objects
            .deployments
            .values()
            .filter(|deployment| !deployment.owner.is_foreign(claim) && deployment.desired > 0);
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
        let live = || self.pods.values().filter(|pod| pod.version == deployment.version && !pod.ending);
        let replaces = |pod: &PodView| {
            let times = pod.created.zip(ended.at);
            !pod.ready
                && times
                    .is_some_and(|(created, ended)| created.duration_since(ended).abs() <= REPLACED_WITHIN)
        };
        let is_awaited = live().any(replaces) || live().count() < deployment.desired as usize;
        is_awaited.then(|| ended.cause.clone())
    }

    fn budget(&self, claim: &Claim<'_>, rendering: Option<&ServiceRendering>) -> Option<Traffic> {
        let budget = self.budget.as_ref().filter(|budget| !budget.owner.is_foreign(claim))?;
        let traffic = self.service.as_ref().map_or(Traffic::Nowhere, |service| service.traffic);
        Some(rendering.map_or(Traffic::Nowhere, |rendering| budget.protects(rendering, traffic)))
    }

    fn version_services(
        &self,
        claim: &Claim<'_>,
        rendering: Option<&ServiceRendering>,
    ) -> BTreeMap<Version, VersionService> {
        let has_endpoints = |version| self.version_slices.values().any(|slice| *slice == (version, true));
        let own = self.version_services.iter().filter(|(_, service)| !service.owner.is_foreign(claim));
        own.map(|(&version, service)| {
            let outdated =
                rendering.is_some_and(|rendering| service.is_outdated_for_version(rendering, version));
            (version, VersionService { outdated, has_endpoints: has_endpoints(version) })
        })
        .collect()
    }

    fn orphans(&self, claim: &Claim<'_>) -> BTreeSet<OwnObject> {
        let service = self.service.iter().filter(|service| service.owner.is_orphan(claim));
        let deployments = self.deployments.values().filter(|deployment| deployment.owner.is_orphan(claim));
        let budget = self.budget.iter().filter(|budget| budget.owner.is_orphan(claim));
        let route = self.route.iter().filter(|route| route.owner.is_orphan(claim));
        let services = self.version_services.iter().filter(|(_, service)| service.owner.is_orphan(claim));
        service
            .map(|_| OwnObject::Service)
            .chain(route.map(|_| OwnObject::Route))
            .chain(services.map(|(version, _)| OwnObject::VersionService(*version)))
            .chain(budget.map(|_| OwnObject::Budget))
            .chain(deployments.map(|deployment| OwnObject::Deployment(deployment.version)))
            .collect()
    }

    fn is_empty(&self) -> bool {
        self.deployments.is_empty()
            && self.service.is_none()
            && self.budget.is_none()
            && self.route.is_none()
            && self.version_services.is_empty()
            && self.version_slices.is_empty()
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
        let staying = || pods().filter(|pod| !pod.ending);
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
            // Pods of earlier settings run until those of the current ones are ready; their errors no longer
            // count.
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
