//! Labels and annotations of rendered objects.
//!
//! Two labels select pods, [`MODEL_ALIAS`] and [`VERSION`]. A Deployment's selector is immutable, so these
//! must never change. The others are for people and their tools. Annotations hold what a label value cannot:
//! raw names and URIs.

use std::collections::BTreeMap;

use super::{Rendering, ServiceRendering, fingerprint};
use crate::api::names::{ModelUri, Version, label_value};

/// The ModelAlias an object belongs to. With [`VERSION`] it selects the pods of one version.
pub const MODEL_ALIAS: &str = "laurel.dev/model-alias";
/// The version that a pod serves.
pub const VERSION: &str = "laurel.dev/version";
/// The model's name, or a readable form of it if the name is not a valid label value.
pub const MODEL: &str = "laurel.dev/model";
/// The alias, or a readable form of it if the alias is not a valid label value.
pub const ALIAS: &str = "laurel.dev/alias";
/// The manager of an object: [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "laurel";
/// The name under which dashboards group pods: the ModelAlias.
pub const APP_NAME: &str = "app.kubernetes.io/name";

/// Annotation: the model's name in the registry.
pub const MODEL_NAME: &str = "laurel.dev/model-name";
/// Annotation: the [fingerprint](super::settings) of a Deployment's settings.
pub const SETTINGS: &str = "laurel.dev/settings";
/// Annotation: the model URI that the pods load.
pub const MODEL_URI: &str = "laurel.dev/model-uri";
/// Annotation of a Deployment: when it was last started or updated to new settings, in RFC 3339. Written in
/// the same patch as the change itself, so that a crash cannot separate the two.
pub const STARTED_AT: &str = "laurel.dev/started-at";

/// Annotation of a Deployment: it was applied by a release that takes back whatever others change in its pod
/// template. Without it only the image counts, so that an upgrade restarts nothing that somebody changed
/// before. [`PENDING`] while something is being taken back.
pub const OWNS_TEMPLATE: &str = "laurel.dev/owns-template";
/// The value of [`OWNS_TEMPLATE`] from when Laurel took the ownership of what somebody changed until it
/// applied the Deployment: a crash in between must not hide the change.
pub const PENDING: &str = "pending";
/// Annotation of a Deployment: a digest of the fields that were applied. A field that somebody removes has no
/// other owner, but is missing from those.
pub const OWNED_FIELDS: &str = "laurel.dev/owned-fields";

/// Labels and annotations with this prefix are Laurel's own.
pub(super) const PREFIX: &str = "laurel.dev/";

/// Whether Laurel may render a label or an annotation with this key.
#[must_use]
pub fn is_own(key: &str) -> bool {
    key.starts_with(PREFIX) || [MANAGED_BY, APP_NAME].contains(&key)
}

type Pairs = BTreeMap<String, String>;

/// Returns the selector of the pods of `model_alias`: of one version, or of all.
#[must_use]
pub fn selector(model_alias: &str, version: Option<Version>) -> BTreeMap<String, String> {
    let version = version.map(|version| (VERSION.to_owned(), version.to_string()));
    [(MODEL_ALIAS.to_owned(), model_alias.to_owned())].into_iter().chain(version).collect()
}

/// Returns the labels of a Service, which outlives versions.
pub(super) fn service_labels(r: &ServiceRendering) -> Pairs {
    let mut labels = selector(r.name, None);
    labels.extend([
        (MANAGED_BY.to_owned(), MANAGER.to_owned()),
        (APP_NAME.to_owned(), r.name.to_owned()),
        (ALIAS.to_owned(), label_value(r.alias.as_str())),
    ]);
    labels.extend(r.model.map(|model| (MODEL.to_owned(), label_value(model))));
    labels
}

/// Returns the labels of a version's Deployment and pods.
pub(super) fn version_labels(r: &Rendering, version: Version) -> Pairs {
    let mut labels = service_labels(&r.service());
    labels.extend(selector(r.name, Some(version)));
    labels
}

/// Returns the annotations of a Service.
pub(super) fn service_annotations(r: &ServiceRendering) -> Pairs {
    r.model.map(|model| (MODEL_NAME.to_owned(), model.to_owned())).into_iter().collect()
}

/// Returns the annotations of a version's pods and, except for [`STARTED_AT`], [`OWNS_TEMPLATE`] and
/// [`OWNED_FIELDS`], of its Deployment.
pub(super) fn version_annotations(r: &Rendering, model_uri: &ModelUri) -> Pairs {
    let mut annotations = service_annotations(&r.service());
    annotations.insert(SETTINGS.to_owned(), fingerprint::settings(r).to_string());
    annotations.insert(MODEL_URI.to_owned(), model_uri.to_string());
    annotations
}
