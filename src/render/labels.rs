//! Labels and annotations of what Laurel makes.
//!
//! Two labels select pods, [`MODEL_ALIAS`] and [`VERSION`]; a Deployment's selector cannot be changed, so neither may
//! they. The others are for people and their tools. Annotations carry what a label value cannot: raw names and URIs.

use std::collections::BTreeMap;

use super::{Rendering, ServiceRendering, fingerprint};
use crate::api::names::{ModelUri, Version, label_value};

/// The ModelAlias an object belongs to. With [`VERSION`] it selects the pods of one version.
pub const MODEL_ALIAS: &str = "laurel.dev/model-alias";
/// The version that a pod serves.
pub const VERSION: &str = "laurel.dev/version";
/// The model's name, or a readable form of it where the name is no label value.
pub const MODEL: &str = "laurel.dev/model";
/// The alias, or a readable form of it where the alias is no label value.
pub const ALIAS: &str = "laurel.dev/alias";
/// Who made an object: [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "laurel";
/// The name under which dashboards group pods: the ModelAlias.
pub const APP_NAME: &str = "app.kubernetes.io/name";

/// Annotation: the model's name as the registry has it.
pub const MODEL_NAME: &str = "laurel.dev/model-name";
/// Annotation: the [fingerprint](super::settings) of the settings that a Deployment was made with.
pub const SETTINGS: &str = "laurel.dev/settings";
/// Annotation: what the pods load, so the identity of the version.
pub const MODEL_URI: &str = "laurel.dev/model-uri";
/// Annotation of a Deployment: when it was last started or given new settings, in RFC 3339. It is written in the same patch as
/// the change itself, so that no crash can part the two.
pub const STARTED_AT: &str = "laurel.dev/started-at";

/// Annotation of a Deployment: it was applied by a release that takes back whatever others change in its pod template. Without it
/// only the image counts, so that an upgrade restarts nothing that somebody changed before.
pub const OWNS_TEMPLATE: &str = "laurel.dev/owns-template";

/// Labels and annotations with this prefix are Laurel's own.
pub(super) const PREFIX: &str = "laurel.dev/";

/// Whether Laurel may render a label or an annotation with this key.
#[must_use]
pub fn is_own(key: &str) -> bool {
    key.starts_with(PREFIX) || [MANAGED_BY, APP_NAME].contains(&key)
}

type Pairs = BTreeMap<String, String>;

/// Selects the pods of `model_alias`: those of one version, or of all.
#[must_use]
pub fn selector(model_alias: &str, version: Option<Version>) -> BTreeMap<String, String> {
    let version = version.map(|version| (VERSION.to_owned(), version.to_string()));
    [(MODEL_ALIAS.to_owned(), model_alias.to_owned())].into_iter().chain(version).collect()
}

/// The labels of a Service, which outlives versions.
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

/// The labels of a version's Deployment and of its pods.
pub(super) fn version_labels(r: &Rendering, version: Version) -> Pairs {
    let mut labels = service_labels(&r.service());
    labels.extend(selector(r.name, Some(version)));
    labels
}

/// The annotations of a Service.
pub(super) fn service_annotations(r: &ServiceRendering) -> Pairs {
    r.model.map(|model| (MODEL_NAME.to_owned(), model.to_owned())).into_iter().collect()
}

/// The annotations of a version's pods, and of its Deployment but for [`STARTED_AT`] and [`OWNS_TEMPLATE`].
pub(super) fn version_annotations(r: &Rendering, model_uri: &ModelUri) -> Pairs {
    let mut annotations = service_annotations(&r.service());
    annotations.insert(SETTINGS.to_owned(), fingerprint::settings(r).to_string());
    annotations.insert(MODEL_URI.to_owned(), model_uri.to_string());
    annotations
}
