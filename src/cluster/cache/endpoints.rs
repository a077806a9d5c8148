//! What is kept of EndpointSlices and pods: which versions get requests, and which could.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    core::v1::Pod,
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::ResourceExt;
use litemap::LiteMap;

use super::{Cache, Objects, Projected, version_of};
use crate::{
    api::{
        model_alias::AliasKey,
        names::{Version, deployment_name},
    },
    cluster::{pod_causes, pods},
};

/// The label that says which Service an EndpointSlice belongs to. Whatever routes requests goes by it.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is kept of an EndpointSlice.
#[derive(Clone, Debug)]
pub(super) struct SliceView {
    /// Its pods by name, with their versions. A pod that has not been seen yet has none; one that is gone keeps
    /// the version that it had, because its endpoint may outlive it for a moment.
    pods: LiteMap<String, Option<Version>>,
    /// Whether it has a ready endpoint.
    pub(super) is_ready: bool,
}

impl Objects {
    /// The versions among the Service's endpoints. A pod that has not been seen yet may be of any version
    /// that there is.
    pub(super) fn endpoints(&self) -> BTreeSet<Version> {
        let versions = || self.slices.values().flat_map(|slice| slice.pods.values());
        let mut endpoints: BTreeSet<Version> = versions().flatten().copied().collect();
        if versions().any(Option::is_none) {
            endpoints.extend(self.deployments.values().map(|deployment| deployment.version));
        }
        endpoints
    }

    fn version_of_pod(&self, name: &str) -> Option<Version> {
        let known = || self.slices.values().find_map(|slice| *slice.pods.get(name)?);
        self.pods.get(name).map(|pod| pod.version).or_else(known)
    }
}

impl Projected for EndpointSlice {
    const IS_SERVICE: bool = true;

    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        // A slice has the labels of its Service: one of another Service that copies ours has them, too.
        let service = self.labels().get(SERVICE_NAME);
        let version = version_of(&self.metadata);
        let version =
            version.filter(|version| service.is_some_and(|it| *it == deployment_name(&alias.1, *version)));
        let is_ready = |endpoint: &Endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        };
        let has_endpoints = self.endpoints.iter().any(is_ready);
        if let Some(version) = version {
            return cache.edit(alias, |objects| {
                objects.version_slices.insert(self.name_any(), (version, has_endpoints));
            });
        }
        if service != Some(&alias.1) {
            return Self::remove(cache, alias, &self.name_any());
        }
        cache.edit(alias, |objects| {
            let targets = self.endpoints.iter().filter_map(|endpoint| endpoint.target_ref.as_ref());
            let pods = targets
                .filter_map(|target| target.name.clone())
                .map(|pod| {
                    let version = objects.version_of_pod(&pod);
                    (pod, version)
                })
                .collect();
            objects.slices.insert(self.name_any(), SliceView { pods, is_ready: has_endpoints });
        });
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        cache.edit(alias, |objects| {
            objects.slices.remove(name);
            objects.version_slices.remove(name);
        });
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        cache.all(|objects| objects.slices.keys().chain(objects.version_slices.keys()).cloned().collect())
    }
}

impl Projected for Pod {
    fn insert(&self, cache: &Cache, alias: &AliasKey) {
        let Some(version) = version_of(&self.metadata) else { return };
        let finished = self
            .status
            .as_ref()
            .is_some_and(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")));
        let mut view = pods::view(self, version);
        let name = self.name_any();
        cache.edit(alias, |objects| {
            for (_, slice) in objects.slices.iter_mut() {
                if let Some(known) = slice.pods.get_mut(&name) {
                    *known = Some(version);
                }
            }
            if finished {
                objects.pods.remove(&name);
                objects.keep_ended(version, pod_causes::of_end(self, version));
            } else {
                view.was_ready |= objects.pods.get(&name).is_some_and(|known| known.was_ready);
                objects.pods.insert(name, view);
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
    use serde_json::json;

    use super::{super::tests::claim, *};

    fn key(name: &str) -> AliasKey {
        ("risk".into(), name.into())
    }

    fn pod(name: &str, version: u32) -> Pod {
        let labels = json!({ "laurel.dev/version": version.to_string() });
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
    }

    fn slice(service: &str, pods: &[&str]) -> EndpointSlice {
        let endpoint =
            |pod: &&str| json!({ "addresses": ["10.0.0.1"], "targetRef": { "kind": "Pod", "name": pod } });
        let endpoints: Vec<_> = pods.iter().map(endpoint).collect();
        let metadata = json!({ "name": format!("{service}-x"), "labels": { SERVICE_NAME: service } });
        let slice = json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints });
        serde_json::from_value(slice).unwrap()
    }

    fn endpoints(cache: &Cache, alias: &AliasKey) -> Vec<u32> {
        let endpoints = cache.view(alias, &claim("u"), None, |_| None).endpoints;
        endpoints.into_iter().map(|version| version.to_string().parse().unwrap()).collect()
    }

    /// The name that Kubernetes gives a pod of a ReplicaSet: the base is cut where the whole would be longer
    /// than 63.
    fn pod_name(replica_set: &str) -> String {
        format!("{}x2x4z", &format!("{replica_set}-")[..(replica_set.len() + 1).min(58)])
    }

    #[test]
    fn the_version_of_an_endpoint_is_that_of_its_pod_whatever_the_pod_is_called() {
        let name = "a".repeat(52);
        let (cache, key) = (Cache::default(), key(&name));
        let replica_set = format!("{}-6c9f8d7b5c", deployment_name(&name, Version::new(12345).unwrap()));
        let named = pod_name(&replica_set);
        assert!(!named.contains("12345"), "Kubernetes cuts {named}");
        pod(&named, 12345).insert(&cache, &key);
        slice(&name, &[&named]).insert(&cache, &key);
        assert_eq!(endpoints(&cache, &key), [12345]);
    }

    #[test]
    fn an_endpoint_may_be_seen_before_its_pod_and_after_it() {
        let (cache, key) = (Cache::default(), key("fraud"));
        slice("fraud", &["fraud-x"]).insert(&cache, &key);
        assert!(endpoints(&cache, &key).is_empty(), "there is no version");
        pod("fraud-x", 3).insert(&cache, &key);
        assert_eq!(endpoints(&cache, &key), [3]);
        Pod::remove(&cache, &key, "fraud-x");
        slice("fraud", &["fraud-x", "fraud-y"]).insert(&cache, &key);
        assert_eq!(endpoints(&cache, &key), [3]);
        slice("fraud", &[]).insert(&cache, &key);
        assert!(endpoints(&cache, &key).is_empty());
    }

    #[test]
    fn an_endpoint_of_an_unknown_pod_may_be_of_any_version() {
        let (cache, key) = (Cache::default(), key("fraud"));
        for version in [1, 2] {
            super::super::tests::deployment(version, "").insert(&cache, &key);
        }
        pod("fraud-a", 2).insert(&cache, &key);
        slice("fraud", &["fraud-a", "fraud-b"]).insert(&cache, &key);
        assert_eq!(endpoints(&cache, &key), [1, 2]);
        pod("fraud-b", 2).insert(&cache, &key);
        assert_eq!(endpoints(&cache, &key), [2]);
    }

    #[test]
    fn endpoints_of_another_service_with_our_labels_do_not_count() {
        let (cache, key) = (Cache::default(), key("fraud"));
        pod("fraud-a", 1).insert(&cache, &key);
        slice("fraud-copy", &["fraud-a"]).insert(&cache, &key);
        assert!(endpoints(&cache, &key).is_empty());
        slice("fraud", &["fraud-a"]).insert(&cache, &key);
        assert_eq!(endpoints(&cache, &key), [1]);
    }
}
