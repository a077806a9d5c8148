//! What is kept of a Service: where it sends requests, and what of it is Laurel's.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use super::{Cache, OwnMetadata, Owner, Projected, owner::controller, revision, version_of};
use crate::{
    api::{
        model_alias::AliasKey,
        names::{Version, deployment_name},
    },
    decide::Traffic,
    render::{self, Selection, ServiceRendering, labels},
};

/// What is kept of a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// Its UID.
    pub uid: Option<String>,
    /// Its revision.
    pub resource_version: u64,
    /// Who controls it.
    pub owner: Owner,
    pub(super) traffic: Traffic,
    metadata: OwnMetadata,
    ports: Vec<ServicePort>,
}

impl ServiceView {
    /// Returns the port that the model server is reached under.
    pub(super) fn port(&self) -> Option<u16> {
        let rendered = self.ports.iter().find(|port| port.name.as_deref() == Some(render::HTTP))?;
        u16::try_from(rendered.port).ok()
    }

    /// Whether a field that Laurel renders differs, apart from the selector. Its type, other ports, and the
    /// labels and annotations of others are not Laurel's.
    pub(super) fn is_outdated(&self, r: &ServiceRendering) -> bool {
        self.differs(&render::service(r, Selection::Shared))
    }

    /// Whether the Service of a version differs from what Laurel renders, its selector included.
    pub(super) fn is_outdated_for_version(&self, r: &ServiceRendering, version: Version) -> bool {
        self.traffic != Traffic::One(version) || self.differs(&render::version_service(r, version))
    }

    fn differs(&self, due: &Service) -> bool {
        let ports = due.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default();
        !self.metadata.has(&due.metadata)
            || !ports.iter().all(|due| self.ports.iter().any(|port| is_as_rendered(port, due)))
            || self.ports.iter().any(|port| is_in_the_way(port, &ports))
    }

    /// The ports without those that are in the way of the rendered ones, to be written over the revision that
    /// had them; `None` where none is.
    #[must_use]
    pub fn freed_ports(&self, rendered: &[ServicePort]) -> Option<(u64, Vec<ServicePort>)> {
        let others = self.ports.iter().filter(|port| rendered.iter().all(|due| !is_same(port, due)));
        let (blocked, mut kept): (Vec<_>, Vec<_>) =
            others.cloned().partition(|port| is_in_the_way(port, rendered));
        kept.extend_from_slice(rendered);
        (!blocked.is_empty()).then_some((self.resource_version, kept))
    }
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// Whether the two have the same key in the list.
fn is_same(port: &ServicePort, other: &ServicePort) -> bool {
    port.port == other.port && protocol(port) == protocol(other)
}

fn is_as_rendered(port: &ServicePort, due: &ServicePort) -> bool {
    is_same(port, due)
        && port.name == due.name
        && port.target_port == due.target_port
        && port.app_protocol == due.app_protocol
}

/// Whether a port cannot be there beside the rendered ones: it has the name of one, or none. Server-side
/// apply does not remove what somebody else set.
fn is_in_the_way(port: &ServicePort, rendered: &[ServicePort]) -> bool {
    let is_rendered = rendered.iter().any(|due| is_same(port, due));
    !is_rendered && rendered.iter().any(|due| port.name.is_none() || port.name == due.name)
}

pub(super) fn traffic(service: &Service, alias: &str) -> Traffic {
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

/// Whether Laurel may have made the Service of a version. `kubectl expose` gives one that name, and the
/// labels of the Deployment.
fn is_rendered(metadata: &ObjectMeta) -> bool {
    let annotations = metadata.annotations.as_ref();
    controller(metadata).is_some()
        || annotations.is_some_and(|annotations| annotations.contains_key(labels::MODEL_NAME))
}

impl Projected for Service {
    const IS_SERVICE: bool = true;

    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        let name = self.name_any();
        let version =
            version_of(&self.metadata).filter(|version| name == deployment_name(&alias.1, *version));
        if name != alias.1 && version.is_none() {
            return;
        }
        if let Some(version) = version.filter(|_| !is_rendered(&self.metadata)) {
            cache.edit(alias, |objects| drop(objects.version_services.remove(&version)));
            return;
        }
        let view = ServiceView {
            uid: self.metadata.uid.clone(),
            resource_version: revision(&self.metadata),
            owner: Owner::of(&self.metadata, alias, &name),
            traffic: traffic(self, &alias.1),
            metadata: OwnMetadata::of(&self.metadata),
            ports: self.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default(),
        };
        let revision = view.resource_version;
        let is_newer =
            |known: Option<&ServiceView>| known.is_none_or(|known| known.resource_version <= revision);
        cache.edit(alias, |objects| match version {
            Some(version) if is_newer(objects.version_services.get(&version)) => {
                objects.version_services.insert(version, view);
            }
            None if is_newer(objects.service.as_ref()) => objects.service = Some(view),
            _ => {}
        });
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        cache.edit(alias, |objects| {
            if name == alias.1 {
                objects.service = None;
            }
            objects.version_services.retain(|version, _| deployment_name(&alias.1, *version) != name);
        });
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        let aliases = cache.lock();
        let names = |key: &AliasKey, objects: &super::Objects| {
            let service = objects.service.as_ref().map(|_| key.1.clone());
            let versions = objects.version_services.keys().map(|version| deployment_name(&key.1, *version));
            let names: Vec<_> = service.into_iter().chain(versions).map(|name| (key.clone(), name)).collect();
            names
        };
        aliases.iter().flat_map(|(key, objects)| names(key, objects)).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::{super::tests::claim, *};
    use crate::render::fixture::{Fixture, version};

    const UID: &str = "6d1b";

    /// Whether the Service is outdated after somebody changed it.
    fn is_outdated(change: impl FnOnce(&mut Service)) -> bool {
        let fixture = Fixture::serving("");
        let rendering = fixture.rendering().service();
        let mut service = render::service(&rendering, Selection::One(version(4)));
        change(&mut service);
        let cache = Cache::default();
        let key = (rendering.namespace.to_owned(), rendering.name.to_owned());
        service.insert(&cache, &key);
        let view = cache.view(&key, &claim(UID), Some(&rendering), |_| None);
        assert_eq!(view.traffic, Traffic::One(version(4)));
        view.service_outdated
    }

    fn ports(service: &mut Service) -> &mut Vec<ServicePort> {
        service.spec.as_mut().unwrap().ports.as_mut().unwrap()
    }

    fn extra(name: Option<&str>, port: i32) -> ServicePort {
        ServicePort { name: name.map(str::to_owned), port, ..ServicePort::default() }
    }

    #[test]
    fn every_rendered_field_counts() {
        assert!(!is_outdated(|_| {}));
        assert!(is_outdated(|it| ports(it)[0].target_port = Some(IntOrString::Int(9999))));
        assert!(is_outdated(|it| ports(it)[0].app_protocol = None));
        assert!(is_outdated(|it| ports(it)[0].name = Some("web".into())));
        assert!(is_outdated(|it| ports(it)[0].port = 9999));
        assert!(is_outdated(|it| ports(it)[0].protocol = Some("UDP".into())));
        assert!(is_outdated(|it| ports(it).clear()));
        for label in [labels::MODEL, labels::MANAGED_BY, labels::APP_NAME, labels::ALIAS] {
            assert!(is_outdated(|it| drop(it.labels_mut().remove(label))), "{label}");
            assert!(is_outdated(|it| drop(it.labels_mut().insert(label.into(), "x".into()))), "{label}");
        }
        assert!(is_outdated(|it| it.annotations_mut().clear()));
        assert!(is_outdated(|it| it.owner_references_mut()[0].block_owner_deletion = Some(true)));
    }

    #[test]
    fn a_service_that_somebody_made_for_a_version_is_left_alone() {
        let fixture = Fixture::serving("");
        let rendering = fixture.rendering().service();
        let cache = Cache::default();
        let key = (rendering.namespace.to_owned(), rendering.name.to_owned());
        let known = |service: &Service| {
            service.insert(&cache, &key);
            let view = cache.view(&key, &claim(UID), Some(&rendering), |_| None);
            (view.version_services.len(), view.orphans.len())
        };
        let mut service = render::version_service(&rendering, version(4));
        assert_eq!(known(&service), (1, 0));
        // As restored from a backup.
        service.metadata.owner_references = None;
        assert_eq!(known(&service), (1, 1));
        // As `kubectl expose deployment` makes it.
        service.metadata.annotations = None;
        assert_eq!(known(&service), (0, 0));
    }

    #[test]
    fn what_laurel_does_not_render_belongs_to_others() {
        assert!(!is_outdated(|it| it.spec.as_mut().unwrap().type_ = Some("ClusterIP".into())));
        assert!(!is_outdated(|it| {
            it.spec.as_mut().unwrap().type_ = Some("LoadBalancer".into());
            ports(it)[0].node_port = Some(31234);
        }));
        assert!(!is_outdated(|it| ports(it).push(extra(Some("metrics"), 9090))));
        assert!(!is_outdated(|it| ports(it).insert(0, extra(Some("metrics"), 9090))));
        assert!(!is_outdated(|it| drop(
            it.annotations_mut().insert("lb.example/internal".into(), "true".into())
        )));
        assert!(!is_outdated(|it| drop(it.labels_mut().insert("team".into(), "risk".into()))));
    }

    #[test]
    fn only_ports_that_cannot_stay_beside_ours_are_removed() {
        let rendering = Fixture::serving("");
        let mut service = render::service(&rendering.rendering().service(), Selection::Shared);
        let rendered = ports(&mut service).clone();
        let freed = |observed: Vec<ServicePort>| {
            let mut service = service.clone();
            *ports(&mut service) = observed;
            let cache = Cache::default();
            let key = ("risk".to_owned(), "fraud-champion".to_owned());
            service.insert(&cache, &key);
            cache.service(&key).unwrap().freed_ports(&rendered).map(|(_, ports)| ports)
        };
        let metrics = extra(Some("metrics"), 9090);
        assert_eq!(freed(vec![rendered[0].clone(), metrics.clone()]), None);
        let both = vec![metrics.clone(), rendered[0].clone()];
        assert_eq!(freed(vec![extra(Some("http"), 9999), metrics.clone()]), Some(both));
        assert_eq!(freed(vec![extra(None, 9999)]), Some(rendered.clone()));
    }
}
