//! The desired objects: one Deployment for each version, and for each ModelAlias one Service and one
//! PodDisruptionBudget.
//!
//! Pure: what is rendered depends on the arguments alone. Nothing here knows a client, a clock or the registry.
//!
//! ```text
//! Rendering ─┬─ runtime   command, variables and probes of the model server
//!            ├─ pod       the container around it: pod security, volumes, variables, drain
//!            ├─ template  what the user omits, and their partial pod template, merged over that and checked
//!            ├─ deployment, service, disruption_budget
//!            └─ fingerprint  of the inputs, so that pods roll when the user changed something and only then
//! ```
//!
//! Variables of the model server, the later ones winning: `envFrom` of the registry, `serving.envFrom`, what Laurel
//! sets, `serving.env`, the template's `env`. Those that say which version a pod serves nobody else can set: in `env`
//! they are refused, and in `envFrom` they lose.

use k8s_openapi::{api::core::v1::EnvFromSource, apimachinery::pkg::apis::meta::v1::OwnerReference};
use url::Url;

use crate::api::{
    model_alias::Serving,
    model_registry::CaReference,
    names::{AliasName, ModelName},
};

mod applicable;
mod deployment;
mod disruption_budget;
#[cfg(test)]
mod faithfulness;
mod fingerprint;
#[cfg(test)]
pub(crate) mod fixture;
pub mod labels;
mod pod;
mod runtime;
mod service;
mod template;
#[cfg(test)]
mod tests;

pub use applicable::Applicable;
pub use deployment::{deployment, validate};
pub use disruption_budget::disruption_budget;
pub use fingerprint::{SettingsFingerprint, settings};
pub use service::{Selection, endpoint, service};
pub use template::{InvalidTemplate, TemplateError};

/// Everything that the objects of a ModelAlias depend on, except a version, its identity and its size.
#[derive(Clone, Debug)]
pub struct Rendering<'a> {
    /// The ModelAlias's name: it also names the Service, and begins the names of the Deployments.
    pub name: &'a str,
    /// The namespace of all of them.
    pub namespace: &'a str,
    /// The ModelAlias as the owner of what is rendered.
    pub owner: OwnerReference,
    /// The model's name in the registry.
    pub model: &'a ModelName,
    /// The alias in the registry.
    pub alias: &'a AliasName,
    /// How a version serves.
    pub serving: &'a Serving,
    /// Where pods load the model from.
    pub registry: &'a RegistryForPods,
}

/// What the Service of a ModelAlias depends on: nothing that has to be read from the registry, so that it can be restored and
/// pointed elsewhere whatever else is missing.
#[derive(Clone, Debug)]
pub struct ServiceRendering<'a> {
    /// The ModelAlias's name, which is the Service's.
    pub name: &'a str,
    /// The namespace.
    pub namespace: &'a str,
    /// The ModelAlias as the owner.
    pub owner: OwnerReference,
    /// The model's name in the registry, as far as it is known.
    pub model: Option<&'a str>,
    /// The alias in the registry.
    pub alias: &'a AliasName,
    /// How a version serves.
    pub serving: &'a Serving,
}

impl<'a> Rendering<'a> {
    /// The part that the Service depends on.
    #[must_use]
    pub fn service(&self) -> ServiceRendering<'a> {
        ServiceRendering {
            name: self.name,
            namespace: self.namespace,
            owner: self.owner.clone(),
            model: Some(self.model.as_str()),
            alias: self.alias,
            serving: self.serving,
        }
    }
}

/// What serving pods need to know of the registry.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryForPods {
    /// The MLflow tracking server.
    pub tracking_uri: Url,
    /// The workspace there; `None` for the server's default.
    pub workspace: Option<String>,
    /// The certificate authority of the server, where a public one did not sign it.
    pub ca: Option<CaReference>,
    /// What every pod gets as environment variables: credentials for the registry and for the artifact store.
    pub env_from: Vec<EnvFromSource>,
}
