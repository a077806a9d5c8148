//! The desired objects: one Deployment for each version, and for each ModelAlias one Service and one
//! PodDisruptionBudget; with `spec.traffic` also one HTTPRoute, and one Service for each version. For all of a
//! namespace, one ConfigMap.
//!
//! Pure: the result depends only on the arguments, not on a client, a clock or the registry.
//!
//! ```text
//! Rendering ─┬─ runtime   command, variables and probes of the model server
//!            ├─ meter     what counts in the pods: a ConfigMap, its mount, variables, the port
//!            ├─ pod       the container around it: pod security, volumes, variables, drain
//!            ├─ template  what the user omits, and their partial pod template, merged over that and checked
//!            ├─ owned_fields  a digest of the fields that are applied
//!            ├─ deployment, service, http_route, disruption_budget
//!            └─ fingerprint  of the inputs, so that pods roll when the user changed something and only then
//! ```
//!
//! Variables of the model server, in increasing precedence: `envFrom` of the registry, `serving.envFrom`,
//! Laurel's own, `serving.env`, the template's `env`. Only Laurel sets those that name the version: in `env`
//! they are rejected, and in `envFrom` they are overridden.

use k8s_openapi::{api::core::v1::EnvFromSource, apimachinery::pkg::apis::meta::v1::OwnerReference};
use url::Url;

use crate::api::{
    model_alias::Serving,
    model_registry::CaReference,
    names::{AliasName, ModelName},
    traffic::TrafficSpec,
};

mod applicable;
mod deployment;
mod disruption_budget;
#[cfg(test)]
mod faithfulness;
mod fingerprint;
#[cfg(test)]
pub(crate) mod fixture;
mod http_route;
pub mod labels;
mod meter;
pub(crate) mod owned_fields;
mod pod;
mod referred_route;
mod runtime;
mod server;
mod service;
mod template;
#[cfg(test)]
mod tests;

pub use applicable::Applicable;
pub use deployment::{deployment, validate};
pub use disruption_budget::disruption_budget;
pub use fingerprint::{SettingsFingerprint, settings};
pub use http_route::{http_route, is_version_service, shares, version_service};
pub use meter::{meter, metrics_port, mounts_meter};
pub use referred_route::{ReferredShares, Referrer, projection, read, rewrite};
pub use service::{Selection, endpoint, service};
pub use template::{InvalidTemplate, TemplateError};

/// The name of the serving port, in pods and in the Service.
pub(crate) const HTTP: &str = "http";
/// The name of the port with the metrics, in pods.
pub(crate) const METRICS: &str = "metrics";

/// Everything that the objects of a ModelAlias depend on, except version, model URI and size.
#[derive(Clone, Debug)]
pub struct Rendering<'a> {
    /// The ModelAlias's name, which is also the name of the Service and the prefix of the Deployments' names.
    pub name: &'a str,
    /// The namespace of all of them.
    pub namespace: &'a str,
    /// The owner reference to the ModelAlias.
    pub owner: OwnerReference,
    /// The model's name in the registry.
    pub model: &'a ModelName,
    /// The alias in the registry.
    pub alias: &'a AliasName,
    /// How a version serves.
    pub serving: &'a Serving,
    /// How requests are shared among versions.
    pub traffic: Option<&'a TrafficSpec>,
    /// The registry that pods load the model from.
    pub registry: &'a RegistryForPods,
}

/// Everything that the Service of a ModelAlias depends on. None of it has to be read from the registry, so
/// the Service can be restored and re-pointed at any time.
#[derive(Clone, Debug)]
pub struct ServiceRendering<'a> {
    /// The ModelAlias's name, which is the Service's.
    pub name: &'a str,
    /// The namespace.
    pub namespace: &'a str,
    /// The ModelAlias as the owner.
    pub owner: OwnerReference,
    /// The model's name in the registry, if known.
    pub model: Option<&'a str>,
    /// The alias in the registry.
    pub alias: &'a AliasName,
    /// How a version serves.
    pub serving: &'a Serving,
    /// How requests are shared among versions.
    pub traffic: Option<&'a TrafficSpec>,
}

impl<'a> Rendering<'a> {
    /// Returns the part that the Service depends on.
    #[must_use]
    pub fn service(&self) -> ServiceRendering<'a> {
        ServiceRendering {
            name: self.name,
            namespace: self.namespace,
            owner: self.owner.clone(),
            model: Some(self.model.as_str()),
            alias: self.alias,
            serving: self.serving,
            traffic: self.traffic,
        }
    }
}

/// The registry settings of serving pods.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryForPods {
    /// The MLflow tracking server.
    pub tracking_uri: Url,
    /// The workspace there; `None` for the server's default.
    pub workspace: Option<String>,
    /// The certificate authority of the server, if not a public one.
    pub ca: Option<CaReference>,
    /// Sources of environment variables for every pod: credentials for the registry and the artifact store.
    pub env_from: Vec<EnvFromSource>,
}
