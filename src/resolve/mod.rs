//! Follows the references of a ModelAlias, once for each reconcile.
//!
//! Pure except for lookups in what is passed in: the watched objects, the polled registries and what this
//! process remembers.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    api::{
        ModelAlias, ModelAliasSpec, ModelAliasStatus, RegisteredModel,
        condition::{Reason, ReasonMessage},
        model_alias::AliasKey,
        names::{AliasName, ModelName},
        promotion::PromotionRule,
    },
    cluster::{Guarded, cache::Claim},
    decide::{AliasRole, Traffic},
    registry::polled::{Lookup, PolledRegistry, Registries},
    render::{self, Rendering, ServiceRendering, labels},
    status::SubjectStatus,
};

pub mod index;
mod intent;
mod registry_choice;
mod route;

pub use intent::follower;
pub use registry_choice::{ClusterObjects, RegistryObjects, is_default};
pub use route::Referral;

/// A model in its registry.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name in the registry.
    pub name: ModelName,
    /// The registry.
    pub registry: Arc<PolledRegistry>,
    /// The rules for promoting its versions.
    pub promotion: Vec<PromotionRule>,
}

/// Where references lead.
#[derive(Clone, Copy)]
pub struct References<'a> {
    /// All `RegisteredModels`.
    pub models: &'a Store<Guarded<RegisteredModel>>,
    /// The objects that describe registries.
    pub registry_objects: &'a RegistryObjects,
    /// All registries.
    pub registries: &'a Registries,
}

impl References<'_> {
    /// The registry that a RegisteredModel uses.
    ///
    /// # Errors
    /// When there is no registry of that name, or no default, or the namespace may not use it.
    pub fn registry_of(&self, model: &RegisteredModel) -> Result<Arc<PolledRegistry>, ReasonMessage> {
        let key = self.registry_objects.key(model)?;
        let (reason, message) = match self.registries.look_up(&key) {
            Lookup::Usable(registry) => return Ok(registry),
            // Right after a start. Unknown is not absent.
            Lookup::Unknown if self.registry_objects.exists(&key) => {
                (Reason::RegistryNotRead, format!("the {key} has not been read yet"))
            }
            Lookup::Unknown | Lookup::Unusable => (
                Reason::ModelRegistryNotFound,
                format!(
                    "the registry of the RegisteredModel {:?}: there is no usable {key}; create it, or see \
                     its conditions",
                    model.name_any()
                ),
            ),
        };
        Err(ReasonMessage::new(reason, message))
    }

    /// Follows `modelRef` and `registryRef`.
    ///
    /// # Errors
    /// When an object is missing or cannot be parsed.
    pub fn follow(&self, alias: &ModelAlias) -> Result<Model, ReasonMessage> {
        let (namespace, name) = (alias.namespace().unwrap_or_default(), &alias.spec.model_ref.name);
        let reference = ObjectRef::<Guarded<RegisteredModel>>::new(name).within(&namespace);
        let model = self.models.get(&reference).ok_or_else(|| {
            ReasonMessage::new(
                Reason::RegisteredModelNotFound,
                format!(
                    "spec.modelRef: there is no RegisteredModel {name:?} in the namespace \
                     {namespace:?}; create it"
                ),
            )
        })?;
        let model = model.0.as_ref().map_err(|error| {
            ReasonMessage::new(
                Reason::RegisteredModelNotFound,
                format!("the RegisteredModel {name:?} cannot be read: {error}"),
            )
        })?;
        let registry = self.registry_of(model)?;
        let name = model
            .model_name()
            .map_err(|error| ReasonMessage::new(Reason::ModelNotFound, error.to_string()))?;
        Ok(Model { name, registry, promotion: model.spec.promotion.clone() })
    }
}

/// What this process knows of a ModelAlias beyond the object itself.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The newest status that was written or watched.
    pub status: ModelAliasStatus,
    /// The model that its references led to, if it is being deleted.
    pub model: Option<Model>,
    /// When its deletion began.
    pub deleting_since: Option<Timestamp>,
}

/// A ModelAlias with its references followed; the raw object goes no further than here.
pub struct Subject<'a> {
    object: &'a ModelAlias,
    /// Its namespace and name.
    pub key: AliasKey,
    /// Its UID.
    pub uid: String,
    /// The newest status that this process knows.
    pub status: ModelAliasStatus,
    /// When this process first saw it in deletion.
    pub deleting_since: Option<Timestamp>,
    /// Its model and registry, or why they are not known.
    pub model: Result<Model, ReasonMessage>,
}

impl<'a> Subject<'a> {
    /// Follows the references of `object`. If they cannot be followed during its deletion, the last known
    /// model is used: when a namespace is deleted, the objects it refers to may be deleted first.
    #[must_use]
    pub fn resolve(object: &'a ModelAlias, references: References<'_>, remembered: Remembered) -> Self {
        let model = references.follow(object).or_else(|cause| remembered.model.ok_or(cause));
        Self {
            status: remembered.status,
            deleting_since: remembered.deleting_since,
            ..Self::new(object, model)
        }
    }

    /// Creates one with nothing remembered.
    #[must_use]
    pub fn new(object: &'a ModelAlias, model: Result<Model, ReasonMessage>) -> Self {
        Self {
            object,
            key: object.key(),
            uid: object.uid().unwrap_or_default(),
            status: object.status.clone().unwrap_or_default(),
            deleting_since: object.metadata.deletion_timestamp.as_ref().map(|since| since.0),
            model,
        }
    }

    /// Returns the spec.
    #[must_use]
    pub fn spec(&self) -> &'a ModelAliasSpec {
        &self.object.spec
    }

    /// Returns the metadata.
    #[must_use]
    pub fn metadata(&self) -> &'a ObjectMeta {
        &self.object.metadata
    }

    /// Returns the reference for Events.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        self.object.object_ref(&())
    }

    /// The model and its registry.
    ///
    /// # Errors
    /// When they are not known.
    pub fn known_model(&self) -> Result<&Model, ReasonMessage> {
        self.model.as_ref().map_err(Clone::clone)
    }

    /// Returns the name of one of its aliases in the registry.
    #[must_use]
    pub fn alias(&self, role: AliasRole) -> Option<&AliasName> {
        match role {
            AliasRole::Main => Some(&self.spec().alias),
            AliasRole::Previous => self.spec().previous_alias.as_ref(),
            AliasRole::Former => self.former_alias(),
        }
    }

    /// The alias that it kept on the version that served before, where the spec does not name it any more.
    #[must_use]
    pub fn former_alias(&self) -> Option<&AliasName> {
        let kept = self.status.previous_alias.as_ref().map(|kept| &kept.alias);
        kept.filter(|kept| self.spec().previous_alias.as_ref() != Some(kept))
    }

    /// Returns everything that its objects are rendered from; `None` without `spec.serving` or without a
    /// model.
    #[must_use]
    pub fn rendering(&self) -> Option<Rendering<'_>> {
        let model = self.model.as_ref().ok()?;
        Some(Rendering {
            name: &self.key.1,
            namespace: self.object.metadata.namespace.as_ref()?,
            owner: self.object.controller_owner_ref(&())?,
            model: &model.name,
            alias: &self.spec().alias,
            serving: self.spec().serving.as_ref()?,
            traffic: self.spec().traffic.as_ref(),
            registry: &model.registry.settings.pods,
        })
    }

    /// Returns everything that its Service is rendered from; `None` without `spec.serving`. If the model is
    /// unknown, the Service keeps the last known name.
    #[must_use]
    pub fn service_rendering(&self) -> Option<ServiceRendering<'_>> {
        Some(ServiceRendering {
            name: &self.key.1,
            namespace: self.object.metadata.namespace.as_ref()?,
            owner: self.object.controller_owner_ref(&())?,
            model: self.model_name(),
            alias: &self.spec().alias,
            serving: self.spec().serving.as_ref()?,
            traffic: self.spec().traffic.as_ref(),
        })
    }

    /// Returns the name of the model that it serves: the one that it has served, even if its references lead
    /// elsewhere by now.
    fn model_name(&self) -> Option<&str> {
        let known = self.status.model_name.as_deref();
        let followed = self.model.as_ref().ok().map(|model| model.name.as_str());
        known.filter(|_| self.status.version.is_some()).or(followed).or(known)
    }

    /// Returns what its objects are recognized by.
    #[must_use]
    pub fn claim(&self) -> Claim<'_> {
        Claim { uid: &self.uid, model: self.model_name(), alias: self.spec().alias.as_str() }
    }

    /// Returns the HTTPRoute of somebody else that it refers to, or has to hand back.
    #[must_use]
    pub fn referral(&self) -> Option<Referral<'_>> {
        Referral::of(&self.key, self.spec(), &self.status)
    }

    /// Returns the parts of its status about the object itself; `counted` is whose pods the status counts.
    #[must_use]
    pub fn identity(&self, counted: Traffic) -> SubjectStatus {
        let version = match counted {
            Traffic::One(version) => Some(version),
            Traffic::Shared | Traffic::Nowhere => None,
        };
        let is_counted = self.spec().serving.is_some() && counted != Traffic::Nowhere;
        let selector = || {
            let labels = labels::selector(&self.key.1, version);
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        };
        SubjectStatus {
            generation: self.object.metadata.generation,
            registry: self.model.as_ref().ok().map(|model| model.registry.status()),
            model_name: self.model_name().map(str::to_owned),
            endpoint: self.service_rendering().map(|rendering| render::endpoint(&rendering)),
            selector: is_counted.then(selector),
        }
    }
}

/// Returns the promotion rules for an alias.
pub(crate) fn rules_for(promotion: &[PromotionRule], alias: &AliasName) -> Vec<PromotionRule> {
    promotion.iter().filter(|rule| rule.aliases.contains(alias)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Version;

    #[test]
    fn the_selector_selects_what_the_status_counts() {
        let alias: ModelAlias = serde_yaml::from_str(
            "{metadata: {name: champion, namespace: risk, uid: u}, spec: {modelRef: {name: fraud}, alias: \
             champion, serving: {image: i}}}",
        )
        .unwrap();
        let unknown = Err(ReasonMessage::new(Reason::RegisteredModelNotFound, "create it"));
        let subject = Subject::new(&alias, unknown);
        let selector = |counted| subject.identity(counted).selector;
        let one = Traffic::One(Version::new(2).unwrap());
        let both = "laurel.dev/model-alias=champion";
        assert_eq!(selector(one), Some(format!("{both},laurel.dev/version=2")));
        assert_eq!(selector(Traffic::Shared).as_deref(), Some(both));
        assert_eq!(selector(Traffic::Nowhere), None);
    }
}
