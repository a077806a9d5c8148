//! Follows the references of a ModelAlias, once: what a reconcile is about.
//!
//! Pure but for what it looks up: the watched objects, the polled registries and what this process remembers are handed in.

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
        names::{AliasName, ModelName, Version},
        promotion::PromotionRule,
    },
    cluster::Guarded,
    decide::AliasRole,
    registry::polled::{PolledRegistry, Registries, RegistryKey},
    render::{self, Rendering, labels},
    status::SubjectStatus,
};

mod intent;

pub use intent::follower;

/// A model in its registry.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name there.
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
    /// All registries.
    pub registries: &'a Registries,
}

impl References<'_> {
    /// Follows `modelRef` and `registryRef`.
    ///
    /// # Errors
    /// Which object is missing or cannot be parsed.
    pub fn follow(&self, alias: &ModelAlias) -> Result<Model, ReasonMessage> {
        let (namespace, name) = (alias.namespace().unwrap_or_default(), &alias.spec.model_ref.name);
        let reference = ObjectRef::<Guarded<RegisteredModel>>::new(name).within(&namespace);
        let model = self.models.get(&reference).ok_or_else(|| {
            ReasonMessage::new(
                Reason::RegisteredModelNotFound,
                format!("spec.modelRef: there is no RegisteredModel {name:?} in the namespace {namespace:?}; create it"),
            )
        })?;
        let model = model.0.as_ref().map_err(|error| {
            ReasonMessage::new(
                Reason::RegisteredModelNotFound,
                format!("the RegisteredModel {name:?} cannot be read: {error}"),
            )
        })?;
        let registry = registry_of(self.registries, model)?;
        let name = model
            .model_name()
            .map_err(|error| ReasonMessage::new(Reason::ModelNotFound, error.to_string()))?;
        Ok(Model { name, registry, promotion: model.spec.promotion.clone() })
    }
}

/// What this process knows of a ModelAlias beside the object itself.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The newest status that was written or watched.
    pub status: ModelAliasStatus,
    /// Where its references led, if it is being deleted.
    pub model: Option<Model>,
    /// Since when it is being deleted.
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
    /// Since when it is being deleted, as far as this process knows.
    pub deleting_since: Option<Timestamp>,
    /// Its model and registry, or why they are not known.
    pub model: Result<Model, ReasonMessage>,
}

impl<'a> Subject<'a> {
    /// Follows the references of `object`. Where they lead nowhere while it is being deleted, the model is the one that they
    /// led to before: with its namespace, the objects it refers to may be gone first.
    #[must_use]
    pub fn resolve(object: &'a ModelAlias, references: References<'_>, remembered: Remembered) -> Self {
        let model = references.follow(object).or_else(|cause| remembered.model.ok_or(cause));
        Self {
            status: remembered.status,
            deleting_since: remembered.deleting_since,
            ..Self::new(object, model)
        }
    }

    /// With nothing remembered.
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

    /// What the user asks for.
    #[must_use]
    pub fn spec(&self) -> &'a ModelAliasSpec {
        &self.object.spec
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &'a ObjectMeta {
        &self.object.metadata
    }

    /// Names it in Events.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        self.object.object_ref(&())
    }

    /// The model and its registry.
    ///
    /// # Errors
    /// Why they are not known.
    pub fn known_model(&self) -> Result<&Model, ReasonMessage> {
        self.model.as_ref().map_err(Clone::clone)
    }

    /// The name of one of its two aliases in the registry.
    #[must_use]
    pub fn alias(&self, role: AliasRole) -> Option<&'a AliasName> {
        match role {
            AliasRole::Main => Some(&self.spec().alias),
            AliasRole::Previous => self.spec().previous_alias.as_ref(),
        }
    }

    /// Everything that its objects are rendered from; `None` without `spec.serving` or without a model.
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
            registry: &model.registry.settings.pods,
        })
    }

    /// What its status says of the object itself; `serves` is the version that answers requests.
    #[must_use]
    pub fn identity(&self, serves: Option<Version>) -> SubjectStatus {
        let selector = |version| {
            let labels = labels::selector(&self.key.1, Some(version));
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        };
        let serves = self.spec().serving.as_ref().and(serves);
        SubjectStatus {
            generation: self.object.metadata.generation,
            model_name: self.model.as_ref().ok().map(|model| model.name.to_string()),
            endpoint: self.rendering().map(|rendering| render::endpoint(&rendering)),
            selector: serves.map(selector),
        }
    }
}

/// The registry that a RegisteredModel names, or the one that Laurel was installed with.
///
/// # Errors
/// When there is none of that name, or no default.
pub fn registry_of(
    registries: &Registries,
    model: &RegisteredModel,
) -> Result<Arc<PolledRegistry>, ReasonMessage> {
    let namespace = model.namespace().unwrap_or_default();
    let key = registry_key(model);
    registries.get(&key).ok_or_else(|| match key {
        RegistryKey::Default => ReasonMessage::new(
            Reason::RegistryNotConfigured,
            format!(
                "the RegisteredModel {:?} names no registry and Laurel was installed without registry.url; create a \
                 ModelRegistry and set spec.registryRef",
                model.name_any()
            ),
        ),
        RegistryKey::Object { name, .. } => ReasonMessage::new(
            Reason::ModelRegistryNotFound,
            format!(
                "spec.registryRef of the RegisteredModel {:?}: there is no usable ModelRegistry {name:?} in the namespace \
                 {namespace:?}; create it, or see its conditions",
                model.name_any()
            ),
        ),
    })
}

/// The key of the registry that a RegisteredModel names.
#[must_use]
pub fn registry_key(model: &RegisteredModel) -> RegistryKey {
    match &model.spec.registry_ref {
        Some(reference) => RegistryKey::Object {
            namespace: model.namespace().unwrap_or_default(),
            name: reference.name.clone(),
        },
        None => RegistryKey::Default,
    }
}

/// The promotion rules for an alias.
pub(crate) fn rules_for(promotion: &[PromotionRule], alias: &AliasName) -> Vec<PromotionRule> {
    promotion.iter().filter(|rule| rule.aliases.contains(alias)).cloned().collect()
}
