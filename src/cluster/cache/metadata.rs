//! What Laurel renders of an object's metadata.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::owner::controller;
use crate::render::labels;

/// The labels, annotations and controller of an object, as far as they are Laurel's.
///
/// Of each label and annotation a digest of its key and its value is kept: thousands of objects have a dozen
/// of them, and all that is ever asked is whether those that are rendered are there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OwnMetadata {
    labels: Digests,
    annotations: Digests,
    controller: Option<OwnerReference>,
}

/// Sorted.
type Digests = Box<[u64]>;

/// Returns a digest, which holds for this process only.
pub(super) fn digest(of: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl OwnMetadata {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        let own = |pairs: &Option<BTreeMap<String, String>>| {
            let pairs = pairs.iter().flatten().filter(|(key, _)| labels::is_own(key));
            let mut digests: Digests = pairs.map(|(key, value)| digest(&(key, value))).collect();
            digests.sort_unstable();
            digests
        };
        Self {
            labels: own(&metadata.labels),
            annotations: own(&metadata.annotations),
            controller: controller(metadata).cloned(),
        }
    }

    /// Whether all that was rendered is there. There may be more of an earlier time.
    pub(super) fn has(&self, rendered: &ObjectMeta) -> bool {
        let has = |digests: &Digests, due: &Option<BTreeMap<String, String>>| {
            due.iter().flatten().all(|(key, value)| digests.binary_search(&digest(&(key, value))).is_ok())
        };
        has(&self.labels, &rendered.labels)
            && has(&self.annotations, &rendered.annotations)
            && self.controller.as_ref() == controller(rendered)
    }
}
