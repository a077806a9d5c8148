//! What is kept of EndpointSlices and pods: which versions get requests, and which could.

use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::ResourceExt;

use super::{Cache, Projected, version_of};
use crate::{
    api::{model_alias::AliasKey, names::Version},
    cluster::pods,
};

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
pub(super) fn version_in_pod_name(alias: &str, pod: &str) -> Option<Version> {
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
            } else {
                view.was_ready |= objects.pods.get(&self.name_any()).is_some_and(|known| known.was_ready);
                objects.pods.insert(self.name_any(), view);
            }
        });
    }
    fn remove(cache: &Cache, alias: &AliasKey, name: &str) {
        cache.edit(alias, |objects| drop(objects.pods.remove(name)));
    }
    fn names(cache: &Cache) -> Vec<(AliasKey, String)> {
        cache.all(|objects| objects.pods.keys().cloned().collect())
    }
}
