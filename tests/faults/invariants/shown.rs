//! What watches and requests have shown, put in order.

use std::collections::BTreeMap;

use hyper::Method;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Resource, ResourceExt};
use laurel::render::labels;
use serde_json::Value;

use crate::{simulated::audit::revision, support::watch::Seen, wire::Exchange};

pub(super) fn in_order<K: Resource + Clone>(mut seen: Vec<Seen<K>>) -> Vec<Seen<K>> {
    seen.sort_by_key(|seen| revision(&seen.object));
    seen
}

/// The object as it was before a revision; `None` where it was not there.
pub(super) fn last_before<K: Resource>(seen: &[Seen<K>], at: u64) -> Option<&K> {
    let last = seen.iter().take_while(|seen| revision(&seen.object) < at).last()?;
    (!last.gone).then_some(&last.object)
}

/// The objects as they were before a revision.
pub(super) fn present_before<K: Resource>(seen: &[Seen<K>], at: u64) -> Vec<&K> {
    let mut present = BTreeMap::new();
    for seen in seen.iter().take_while(|seen| revision(&seen.object) < at) {
        if seen.gone {
            present.remove(&seen.object.meta().name);
        } else {
            present.insert(&seen.object.meta().name, &seen.object);
        }
    }
    present.into_values().collect()
}

/// What the Service `champion` selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// One version.
    One(String),
    /// All of them.
    Shared,
}

impl Selection {
    pub(super) fn covers(&self, version: &str) -> bool {
        match self {
            Self::One(selected) => selected == version,
            Self::Shared => true,
        }
    }

    /// What a Service selects; `None` for another one than `champion`.
    pub(super) fn of(service: &Service) -> Option<Self> {
        let selector = service.spec.as_ref()?.selector.as_ref()?;
        let version = selector.get(labels::VERSION).cloned();
        (service.name_any() == "champion").then(|| version.map_or(Self::Shared, Self::One))
    }

    /// What a write lets the Service select.
    pub(super) fn written_by(exchange: &Exchange) -> Option<Self> {
        let is_it = exchange.method == Method::PATCH && exchange.path.contains("/services/champion?");
        let service = serde_json::from_str(&exchange.body).ok().filter(|_| is_it)?;
        Self::of(&service)
    }
}

/// Whether endpoints are ready that belong to a Deployment's pods.
pub(super) fn names(slice: &EndpointSlice, pods: &str) -> bool {
    slice.endpoints.iter().any(|endpoint| {
        let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref());
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
        ready == Some(true) && pod.is_some_and(|pod| pod.starts_with(pods))
    })
}

/// The version that a write lets `@champion` name.
pub(super) fn set_alias(exchange: &Exchange) -> Option<String> {
    let is_it = exchange.method == Method::POST && exchange.path.ends_with("/registered-models/alias");
    let body: Value = serde_json::from_str(&exchange.body).ok().filter(|_| is_it)?;
    (body["alias"] == "champion").then(|| body["version"].as_str().map(str::to_owned))?
}
