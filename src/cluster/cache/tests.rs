//! Tests of the projections together.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};

use kube::ResourceExt;
use serde_json::json;

use super::{service::traffic, *};
use crate::{api::condition::Reason, decide::ChallengerService};

const OWNER: &str = "{apiVersion: v1, kind: K, name: n, uid: u, controller: true}";

/// The claim of a ModelAlias `champion` of the model `fraud`.
pub(super) fn claim(uid: &str) -> Claim<'_> {
    Claim { uid, model: Some("fraud"), alias: "champion" }
}

fn foreign(kind: ForeignKind, name: &str) -> Foreign {
    Foreign { kind, name: name.into(), cause: ForeignCause::Owner }
}

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
    assert_eq!(
        cache.view(&key(), &claim("u"), None, |_| None).traffic,
        Traffic::One(Version::new(2).unwrap())
    );
}

#[test]
fn objects_of_other_owners_are_not_visible() {
    let cache = Cache::default();
    service(7, "laurel.dev/model-alias: fraud, laurel.dev/version: '2'").insert(&cache, &key());
    assert_eq!(cache.foreign(&key(), &claim("u")), None);
    assert_eq!(cache.view(&key(), &claim("other"), None, |_| None).traffic, Traffic::Nowhere);
    assert_eq!(cache.foreign(&key(), &claim("other")), Some(foreign(ForeignKind::Service, "fraud")));
}

fn slice(name: &str, service: &str, ready: bool) -> EndpointSlice {
    serde_yaml::from_str(&format!(
        "{{metadata: {{name: {name}, namespace: risk, labels: {{kubernetes.io/service-name: {service}}}}}, \
          addressType: IPv4, endpoints: [{{addresses: [10.0.0.1], conditions: {{ready: {ready}}}}}]}}"
    ))
    .unwrap()
}

#[test]
fn a_champion_sees_the_version_that_the_service_of_a_challenger_selects_and_its_endpoints() {
    let cache = Cache::default();
    let seen = |uid: &str| cache.challenger(&key(), &claim(uid), Version::new(9));
    assert_eq!(seen("u"), None);
    let with_port = |revision: u64, selector: &str| {
        let mut service = service(revision, selector);
        let port = json!({ "name": "http", "port": 8080 });
        service.spec.as_mut().unwrap().ports = serde_json::from_value(json!([port])).unwrap();
        service
    };
    with_port(7, "laurel.dev/model-alias: fraud, laurel.dev/version: '2'").insert(&cache, &key());
    let service = |version: u32, has_endpoints| {
        Some(ChallengerService { version: Version::new(version).unwrap(), port: 8080, has_endpoints })
    };
    assert_eq!(seen("u"), service(2, false));
    assert_eq!(seen("other"), None, "a Service of somebody else");
    let before = cache.reachable(&key());
    slice("fraud-a", "fraud", false).insert(&cache, &key());
    slice("fraud-v2-a", "fraud-v2", true).insert(&cache, &key());
    assert_eq!(cache.reachable(&key()), before, "champions are not woken by what does not concern them");
    slice("fraud-b", "fraud", true).insert(&cache, &key());
    assert_eq!(seen("u"), service(2, true));
    slice("fraud-b", "fraud", false).insert(&cache, &key());
    assert_eq!(seen("u"), service(2, false));
    slice("fraud-b", "fraud", true).insert(&cache, &key());
    EndpointSlice::remove(&cache, &key(), "fraud-b");
    assert_eq!(seen("u"), service(2, false));
    with_port(8, "laurel.dev/model-alias: fraud").insert(&cache, &key());
    assert_eq!(seen("u"), service(9, false), "while pods are exchanged, what its status shows");
    with_port(9, "app: other").insert(&cache, &key());
    assert_eq!(seen("u"), None, "a selector of somebody else");
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
    let view = cache.view(&key(), &claim("new"), None, |_| None);
    let is_foreign = cache.foreign(&key(), &claim("new")).is_some();
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

/// A Deployment that belongs to nobody, with this in its metadata, and why it is not adopted by a ModelAlias
/// that serves this model.
fn orphan(model: Option<&str>, change: impl FnOnce(&mut Deployment)) -> (bool, Option<ForeignCause>) {
    let mut deployment = deployment(2, "");
    deployment.metadata.owner_references = None;
    deployment.labels_mut().insert(labels::MANAGED_BY.into(), labels::MANAGER.into());
    deployment.labels_mut().insert(labels::ALIAS.into(), "champion".into());
    deployment.annotations_mut().insert(labels::MODEL_NAME.into(), "fraud".into());
    change(&mut deployment);
    let cache = Cache::default();
    deployment.insert(&cache, &key());
    let claim = Claim { model, ..claim("new") };
    let is_orphan = !cache.view(&key(), &claim, None, |_| None).orphans.is_empty();
    (is_orphan, cache.foreign(&key(), &claim).map(|foreign| foreign.cause))
}

#[test]
fn an_orphan_of_another_model_or_alias_is_not_adopted() {
    let model = Some("fraud");
    assert_eq!(orphan(model, |_| {}), (true, None));
    let other =
        |it: &mut Deployment| drop(it.annotations_mut().insert(labels::MODEL_NAME.into(), "m".into()));
    assert_eq!(orphan(model, other), (false, Some(ForeignCause::Model("m".into()))));
    let other = |it: &mut Deployment| drop(it.labels_mut().insert(labels::ALIAS.into(), "challenger".into()));
    assert_eq!(orphan(model, other), (false, Some(ForeignCause::Alias("challenger".into()))));
    let unknown = Some(ForeignCause::Model("fraud".into()));
    assert_eq!(orphan(None, |_| {}), (false, unknown), "it waits until the model is known");
}

/// `kubectl get -o yaml`, another name, `kubectl create`.
#[test]
fn a_copy_of_a_deployment_does_not_stand_in_for_it() {
    let cache = Cache::default();
    let mut copy = deployment(2, "");
    copy.metadata.name = Some("fraud-v2-copy".into());
    copy.spec.as_mut().unwrap().replicas = Some(7);
    copy.insert(&cache, &key());
    let version = Version::new(2).unwrap();
    assert!(cache.view(&key(), &claim("u"), None, |_| None).workloads.is_empty());
    assert_eq!(cache.deployment(&key(), version), None);
    deployment(2, "").insert(&cache, &key());
    let view = cache.view(&key(), &claim("u"), None, |_| None);
    assert_eq!(view.workloads[&version].desired, 1);
    let cause = ForeignCause::Name("fraud-v2".into());
    let foreign = Foreign { kind: ForeignKind::Deployment, name: "fraud-v2-copy".into(), cause };
    assert_eq!(cache.foreign(&key(), &claim("u")), Some(foreign));
}

#[test]
fn an_object_that_is_being_deleted_is_not_adopted() {
    let cache = Cache::default();
    let mut deployment = deployment(2, "deletionTimestamp: '2027-01-15T08:00:00Z'");
    deployment.metadata.owner_references = None;
    deployment.labels_mut().insert(labels::MANAGED_BY.into(), labels::MANAGER.into());
    deployment.insert(&cache, &key());
    assert_eq!(cache.foreign(&key(), &claim("u")), Some(foreign(ForeignKind::Deployment, "fraud-v2")));
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
    let view = cache.view(&key(), &claim("u"), None, |_| None);
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
