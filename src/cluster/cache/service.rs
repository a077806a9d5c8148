//! What is kept of a Service: where it sends requests.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::{Cache, Projected, controller_uid, revision};
use crate::{api::model_alias::AliasKey, decide::Traffic, render::labels};

/// What is kept of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub(super) resource_version: u64,
    /// The UID of its owner, the ModelAlias.
    pub owner: Option<String>,
    pub(super) traffic: Traffic,
    pub(super) port: Option<i32>,
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
