//! The meter: a Python module that counts requests, their status and duration, and predictions in the pods of
//! the runtimes that Laurel renders, and shows them as Prometheus text.
//!
//! The image needs nothing for it. The module is in a ConfigMap, of which a namespace has one for all its
//! pods, named after its content: pods keep the one that they started with. Without the ConfigMap they start
//! as well, and count nothing.

use std::{collections::BTreeMap, sync::LazyLock};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, ConfigMapVolumeSource, EnvVar, Volume, VolumeMount},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use sha2::{Digest, Sha256};

use super::{labels, server::variable};
use crate::api::{
    model_alias::{Runtime, Serving},
    names::hex,
    serving_metrics::Predictions,
};

/// The module.
const SOURCE: &str = include_str!("runtime/meter.py");
/// Its file in the ConfigMap.
const FILE: &str = "laurel_meter.py";
/// Where the ConfigMap is mounted.
const DIRECTORY: &str = "/etc/laurel/meter";
/// The name of the volume.
const VOLUME: &str = "laurel-meter";

/// The port of the metrics: the one that OpenTelemetry uses for Prometheus.
const PORT: u16 = 9464;
/// The port of the metrics where the server itself has that one.
const OTHER_PORT: u16 = 9465;

/// The variable with the port.
pub(super) const PORT_VARIABLE: &str = "LAUREL_METRICS_PORT";
/// The variable that says how predictions are counted.
pub(super) const PREDICTIONS_VARIABLE: &str = "LAUREL_PREDICTIONS";

/// Whether a variable is the meter's.
pub(super) fn is_variable(name: &str) -> bool {
    [PORT_VARIABLE, PREDICTIONS_VARIABLE].contains(&name)
}

/// The name of the ConfigMap. It is also in the operator's role, which permits no other one.
static NAME: LazyLock<String> = LazyLock::new(|| format!("laurel-meter-{}", hex(&Sha256::digest(SOURCE), 8)));

/// The digest of the module. It is in the command of a pod, so that nobody who may only write
/// `ConfigMaps` can put another program into the place of this one.
pub(super) fn digest() -> String {
    hex(&Sha256::digest(SOURCE), 64)
}

/// Returns the port at which pods show what they count: always that of the container port `metrics`, unless
/// the user's template has a port of that name. `None` if they do not count, as far as Laurel knows.
#[must_use]
pub fn metrics_port(serving: &Serving) -> Option<u16> {
    if !is_metered(serving.runtime) {
        return serving.metrics.as_ref().and_then(|metrics| metrics.port);
    }
    Some(if serving.port == PORT { OTHER_PORT } else { PORT })
}

/// Whether Laurel brings the meter. Other servers count by themselves, or not at all.
fn is_metered(runtime: Runtime) -> bool {
    match runtime {
        Runtime::Mlflow | Runtime::Mlserver => true,
        Runtime::Custom => false,
    }
}

/// Returns the ConfigMap with the meter. It belongs to no ModelAlias, because all of a namespace use it.
#[must_use]
pub fn meter(namespace: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned())])),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([(FILE.to_owned(), SOURCE.to_owned())])),
        binary_data: None,
    }
}

/// Whether the pods of a rendered Deployment mount the meter. A template may omit it.
#[must_use]
pub fn mounts_meter(deployment: &Deployment) -> bool {
    let spec = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let volumes = spec.into_iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut config_maps = volumes.filter_map(|volume| volume.config_map.as_ref());
    config_maps.any(|source| source.name == *NAME)
}

/// Returns the variables of the meter.
pub(super) fn env(serving: &Serving) -> Vec<EnvVar> {
    let predictions = serving.metrics.as_ref().and_then(|metrics| metrics.predictions);
    let predictions = match predictions.unwrap_or_default() {
        Predictions::Classes => "Classes",
        Predictions::Numbers => "Numbers",
        Predictions::Disabled => "Off",
    };
    let port = metrics_port(serving).map(|port| variable(PORT_VARIABLE, &port.to_string()));
    port.into_iter().chain([variable(PREDICTIONS_VARIABLE, predictions)]).collect()
}

/// Returns the volume with the meter, where there is one.
pub(super) fn volume(serving: &Serving) -> Option<Volume> {
    is_metered(serving.runtime).then(|| Volume {
        name: VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: NAME.clone(),
            // A pod must not wait for what only counts.
            optional: Some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    })
}

/// Returns the mount of that volume.
pub(super) fn mount(serving: &Serving) -> Option<VolumeMount> {
    is_metered(serving.runtime).then(|| VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: DIRECTORY.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    })
}
