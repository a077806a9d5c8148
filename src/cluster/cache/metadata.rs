//! What Laurel renders of an object's metadata.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::owner::controller;
use crate::render::labels;

/// The labels, annotations and controller of an object, as far as they are Laurel's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OwnMetadata {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    controller: Option<OwnerReference>,
}

impl OwnMetadata {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
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
    pub(super) fn has(&self, rendered: &ObjectMeta) -> bool {
        let has = |pairs: &BTreeMap<String, String>, due: &Option<BTreeMap<String, String>>| {
            due.iter().flatten().all(|(key, value)| pairs.get(key) == Some(value))
        };
        has(&self.labels, &rendered.labels)
            && has(&self.annotations, &rendered.annotations)
            && self.controller.as_ref() == controller(rendered)
    }
}
