//! What is rendered is what is observed: the objects that Laurel renders, with the pods that Kubernetes
//! creates from them, are observed as the same cluster. Every decision depends on that.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::DeploymentStatus, core::v1::Pod, discovery::v1::EndpointSlice};
use pretty_assertions::assert_eq;
use proptest::{collection::btree_map, prelude::*};
use serde_json::json;

use super::{
    Selection, deployment,
    fixture::{Fixture, version},
    service, settings,
};
use crate::{
    api::{model_alias::AliasKey, names::ModelUri},
    cluster::cache::{Cache, Claim, Projected},
    decide::{ClusterView, Traffic, Workload},
};

fn uri(number: u32) -> ModelUri {
    format!("models:/m-{number:032x}").parse().unwrap()
}

const ON_NODE_SINCE: &str = "2027-01-15T07:59:00Z";

/// Pods that are desired, ready, not ready yet, and terminating.
type Pods = (u32, u32, u32, u32);

fn workload((desired, ready, unready, terminating): Pods, number: u32, settings: &str) -> Workload {
    Workload {
        desired,
        pods: ready + unready + terminating,
        ready,
        rolled_out: ready == desired && unready == 0 && terminating == 0,
        edited: false,
        settings: settings.into(),
        model_uri: uri(number),
        started_at: Timestamp::from_second(1_800_000_000 + i64::from(number)).ok(),
        updated_ready: ready,
        outdated: 0,
        error: None,
        failing_probe: None,
        tried_since: (unready > 0).then(|| ON_NODE_SINCE.parse().unwrap()),
        has_failed: false,
        smoke: None,
    }
}

/// Renders the objects of these versions and the Service, and caches them as the watches would.
fn objects(fixture: &Fixture, traffic: Traffic, versions: &BTreeMap<u32, Pods>) -> (Cache, AliasKey) {
    let rendering = fixture.rendering();
    let cache = Cache::default();
    let key: AliasKey = (rendering.namespace.into(), rendering.name.into());
    let mut endpoints = Vec::new();
    for (&number, &(desired, ready, unready, terminating)) in versions {
        let started_at = Timestamp::from_second(1_800_000_000 + i64::from(number)).unwrap();
        let mut made =
            deployment(&rendering, version(number), &uri(number), desired, started_at).unwrap().object;
        made.metadata.generation = Some(3);
        let of = |number: u32| i32::try_from(number).ok();
        made.status = Some(DeploymentStatus {
            observed_generation: Some(3),
            replicas: of(ready + unready + terminating),
            updated_replicas: of(ready + unready),
            ready_replicas: of(ready),
            ..DeploymentStatus::default()
        });
        made.insert(&cache, &key);
        let template = made.spec.unwrap().template.metadata.unwrap();
        let kinds = [
            (ready, "True", None),
            (unready, "False", None),
            (terminating, "True", Some("2027-01-15T08:00:00Z")),
        ];
        for (kind, (count, is_ready, ends)) in kinds.into_iter().enumerate() {
            for index in 0..count {
                let name = format!("{}-v{number}-6c9f-{kind}{index}", rendering.name);
                let pod: Pod = serde_json::from_value(json!({
                    "metadata": {
                        "name": name, "labels": template.labels, "annotations": template.annotations, "deletionTimestamp": ends,
                    },
                    "status": { "phase": "Running", "startTime": ON_NODE_SINCE, "conditions": [{ "type": "Ready", "status": is_ready }] },
                }))
                .unwrap();
                pod.insert(&cache, &key);
                let selected = traffic == Traffic::Shared || traffic == Traffic::One(version(number));
                if kind == 0 && selected {
                    endpoints.push(
                        json!({ "addresses": ["10.0.0.1"], "targetRef": { "kind": "Pod", "name": name } }),
                    );
                }
            }
        }
    }
    let of_service = json!({ "kubernetes.io/service-name": rendering.name });
    let slice = json!({ "metadata": { "name": "s", "labels": of_service }, "addressType": "IPv4", "endpoints": endpoints });
    serde_json::from_value::<EndpointSlice>(slice).unwrap().insert(&cache, &key);
    match traffic {
        Traffic::Nowhere => {}
        Traffic::One(selected) => {
            service(&rendering.service(), Selection::One(selected)).insert(&cache, &key);
        }
        Traffic::Shared => service(&rendering.service(), Selection::Shared).insert(&cache, &key),
    }
    (cache, key)
}

fn pods() -> impl Strategy<Value = Pods> {
    (0..4u32, 0..4u32, 0..2u32, 0..2u32).prop_map(|(desired, ready, unready, terminating)| {
        (desired, ready.min(desired), unready, terminating)
    })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        Just(Traffic::Nowhere),
        Just(Traffic::Shared),
        (1..9u32).prop_map(|number| Traffic::One(version(number)))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_rendered_is_what_is_observed(traffic in traffic(), versions in btree_map(1..9u32, pods(), 0..4)) {
        let fixture = Fixture::serving("");
        let (cache, key) = objects(&fixture, traffic, &versions);
        let settings = settings(&fixture.rendering());
        let answers = |number: u32| traffic == Traffic::Shared || traffic == Traffic::One(version(number));
        let ready = versions.iter().filter(|(number, (_, ready, ..))| answers(**number) && *ready > 0);
        let due = ClusterView {
            traffic,
            service_outdated: false,
            endpoints: ready.map(|(number, _)| version(*number)).collect(),
            workloads: versions
                .iter()
                .map(|(&number, &pods)| (version(number), workload(pods, number, settings.as_str())))
                .collect(),
            budget: None,
            budget_is_unknown: false,
            orphans: BTreeSet::new(),
            ..ClusterView::default()
        };
        let claim = Claim { uid: "6d1b", model: None, alias: "champion" };
        let view = |fixture: &Fixture| cache.view(&key, &claim, Some(&fixture.rendering().service()), |_| None);
        assert_eq!(view(&fixture), due);
        if traffic != Traffic::Nowhere {
            assert!(view(&Fixture::serving("port: 8081")).service_outdated);
        }
    }
}
