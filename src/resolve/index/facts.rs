//! What objects say of their references, in the form that the index keeps.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{
    Resource, ResourceExt,
    core::{PartialObjectMeta, Selector, SelectorExt},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    api::{
        ClusterModelRegistry, ModelAlias, ModelAliasSpec, ModelRegistry, ModelRegistrySpec, RegisteredModel,
        RegistryKind, RegistryReference, RegistryStatus,
        condition::{ConditionType, condition},
        model_alias::AliasKey,
        names::{AliasName, ModelName},
    },
    cluster::{Guarded, Unreadable},
    options::RegistryHosts,
    registry::polled::{RegistryIdentity, RegistryKey},
    resolve::is_default,
};

/// Names a RegisteredModel: its namespace and its name.
pub type ModelKey = (String, String);

/// A model in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The registry.
    pub registry: RegistryIdentity,
    /// The model's name there.
    pub model: String,
}

/// Orders the ModelAliases that claim an alias: the older one keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(Option<Timestamp>, String);

impl Age {
    /// Returns the age of an object. Of two created in the same second the UID decides.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self(created, metadata.uid.clone().unwrap_or_default())
    }

    /// Returns the object's UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.1
    }
}

/// Which registry a RegisteredModel refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reference {
    /// It names one.
    To(RegistryKey),
    /// It names none: the default of its namespace.
    Default(String),
}

/// What a ModelAlias says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AliasFacts {
    pub(super) age: Age,
    pub(super) is_readable: bool,
    /// The RegisteredModel that it names.
    pub(super) model_ref: Option<String>,
    pub(super) alias: Option<AliasName>,
    pub(super) previous_alias: Option<AliasName>,
    /// The model and registry in its status, which hold when its references lead nowhere.
    pub(super) last_place: Option<Place>,
    /// The other `ModelAliases` that it gives a share of its requests.
    pub(super) challengers: BTreeSet<String>,
    /// The HTTPRoutes of somebody else that it refers to, or has to hand back.
    pub(super) routes: BTreeSet<String>,
    /// Whether it may have such a share itself: it serves, and is not being deleted.
    pub(super) may_challenge: bool,
}

impl AliasFacts {
    pub(super) fn of(object: &Guarded<ModelAlias>) -> Self {
        let facts = match &object.0 {
            Ok(alias) => {
                let status = alias.status.as_ref();
                Self {
                    is_readable: true,
                    model_ref: Some(alias.spec.model_ref.name.clone()),
                    alias: Some(alias.spec.alias.clone()),
                    previous_alias: alias.spec.previous_alias.clone(),
                    challengers: challengers(&alias.spec).map(str::to_owned).collect(),
                    routes: routes(alias).collect(),
                    may_challenge: alias.spec.serving.is_some(),
                    last_place: status.and_then(|status| {
                        last_place(status.registry.as_ref(), status.model_name.as_deref())
                    }),
                    ..Self::default()
                }
            }
            Err(unreadable) => Self::of_unreadable(unreadable),
        };
        let is_ending = object.meta().deletion_timestamp.is_some();
        Self { age: Age::of(object.meta()), may_challenge: facts.may_challenge && !is_ending, ..facts }
    }

    fn of_unreadable(object: &Unreadable) -> Self {
        let name = |path| object.text(path).and_then(|name| name.parse().ok());
        let registry = part::<RegistryStatus>(object, "/status/registry");
        Self {
            model_ref: object.text("/spec/modelRef/name").map(str::to_owned),
            alias: name("/spec/alias"),
            previous_alias: name("/spec/previousAlias"),
            last_place: last_place(registry.as_ref(), object.text("/status/modelName")),
            may_challenge: true,
            ..Self::default()
        }
    }

    /// Fills in from the facts before what an object that cannot be parsed does not say.
    pub(super) fn or(self, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|before| !self.is_readable && before.age == self.age) else {
            return self;
        };
        Self {
            model_ref: self.model_ref.or_else(|| before.model_ref.clone()),
            alias: self.alias.or_else(|| before.alias.clone()),
            previous_alias: self.previous_alias.or_else(|| before.previous_alias.clone()),
            last_place: self.last_place.or_else(|| before.last_place.clone()),
            challengers: before.challengers.clone(),
            routes: before.routes.clone(),
            ..self
        }
    }

    /// Returns the keys of its challengers.
    pub(super) fn challenger_keys(&self, (namespace, _): &AliasKey) -> BTreeSet<AliasKey> {
        self.challengers.iter().map(|name| (namespace.clone(), name.clone())).collect()
    }

    /// Returns the keys of the HTTPRoutes.
    pub(super) fn route_keys(&self, (namespace, _): &AliasKey) -> BTreeSet<AliasKey> {
        self.routes.iter().map(|name| (namespace.clone(), name.clone())).collect()
    }

    /// Returns the RegisteredModel that the ModelAlias of this key names.
    pub(super) fn model_key(&self, (namespace, _): &AliasKey) -> Option<ModelKey> {
        Some((namespace.clone(), self.model_ref.clone()?))
    }

    /// Returns the aliases that it claims.
    pub(super) fn claims(&self) -> impl Iterator<Item = &AliasName> {
        let previous = self.previous_alias.as_ref().filter(|previous| self.alias.as_ref() != Some(previous));
        self.alias.iter().chain(previous)
    }
}

/// Returns the names of the HTTPRoutes in the spec and in the status of a ModelAlias.
fn routes(alias: &ModelAlias) -> impl Iterator<Item = String> {
    let desired = alias.spec.traffic.as_ref().and_then(|traffic| traffic.route_ref.as_ref());
    let known = alias.status.as_ref().and_then(|status| status.route_ref.as_ref());
    desired.into_iter().chain(known).map(|reference| reference.name.clone())
}

/// Returns the names of the challengers of a ModelAlias.
fn challengers(spec: &ModelAliasSpec) -> impl Iterator<Item = &str> {
    let listed = spec.traffic.iter().flat_map(|traffic| &traffic.challengers);
    listed.map(|challenger| challenger.alias_ref.name.as_str())
}

fn last_place(registry: Option<&RegistryStatus>, model: Option<&str>) -> Option<Place> {
    let registry = registry?;
    let registry = RegistryIdentity::new(&registry.url.parse().ok()?, registry.workspace.as_deref());
    Some(Place { registry, model: model?.to_owned() })
}

fn part<T: DeserializeOwned>(object: &Unreadable, path: &str) -> Option<T> {
    serde_json::from_value(object.raw.pointer(path)?.clone()).ok()
}

/// What a RegisteredModel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelFacts {
    pub(super) uid: String,
    /// What else must change for its dependents to be reconciled.
    pub(super) revision: Revision,
    pub(super) is_readable: bool,
    pub(super) name: Option<ModelName>,
    pub(super) reference: Option<Reference>,
}

/// The generation of a RegisteredModel, whether it is being deleted, and whether it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Revision {
    generation: Option<i64>,
    is_ending: bool,
    ready: Option<(String, String)>,
}

impl Revision {
    fn of(object: &Guarded<RegisteredModel>) -> Self {
        let metadata = object.meta();
        let status = object.0.as_ref().ok().and_then(|model| model.status.as_ref());
        let ready = status.and_then(|status| condition(&status.conditions, ConditionType::Ready));
        Self {
            generation: metadata.generation,
            is_ending: metadata.deletion_timestamp.is_some(),
            ready: ready.map(|ready| (ready.status.clone(), ready.reason.clone())),
        }
    }
}

impl ModelFacts {
    pub(super) fn of(object: &Guarded<RegisteredModel>) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        let (name, reference) = match &object.0 {
            Ok(model) => {
                (model.model_name().ok(), Some(reference(&namespace, model.spec.registry_ref.as_ref())))
            }
            Err(unreadable) => Self::raw(unreadable, &namespace),
        };
        Self {
            uid: object.uid().unwrap_or_default(),
            revision: Revision::of(object),
            is_readable: object.0.is_ok(),
            name,
            reference,
        }
    }

    fn raw(object: &Unreadable, namespace: &str) -> (Option<ModelName>, Option<Reference>) {
        let name = match object.raw.pointer("/spec/modelName") {
            Some(name) if !name.is_null() => name.as_str(),
            _ => object.metadata.name.as_deref(),
        };
        let registry = match object.raw.pointer("/spec/registryRef") {
            None | Some(Value::Null) => Some(reference(namespace, None)),
            Some(_) => part::<RegistryReference>(object, "/spec/registryRef")
                .map(|registry| reference(namespace, Some(&registry))),
        };
        (name.and_then(|name| name.parse().ok()), registry)
    }

    /// Fills in from the facts before what an object that cannot be parsed does not say.
    pub(super) fn or(self, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|before| !self.is_readable && before.uid == self.uid) else {
            return self;
        };
        Self {
            name: self.name.or_else(|| before.name.clone()),
            reference: self.reference.or_else(|| before.reference.clone()),
            ..self
        }
    }
}

fn reference(namespace: &str, reference: Option<&RegistryReference>) -> Reference {
    match reference {
        None => Reference::Default(namespace.to_owned()),
        Some(RegistryReference { kind: RegistryKind::ModelRegistry, name }) => {
            Reference::To(RegistryKey::Object { namespace: namespace.to_owned(), name: name.clone() })
        }
        Some(RegistryReference { kind: RegistryKind::ClusterModelRegistry, name }) => {
            Reference::To(RegistryKey::Cluster { name: name.clone() })
        }
    }
}

/// What an object that describes a registry says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RegistryFacts {
    pub(super) generation: Option<i64>,
    /// Its rank among the defaults, if it is one.
    pub(super) default: Option<DefaultRank>,
    /// Which registry it describes, if it describes one.
    pub(super) identity: Option<RegistryIdentity>,
    pub(super) allowed: Option<LabelSelector>,
}

/// The newest default is used. Ties go to the first by name, as with `StorageClasses`.
pub(super) type DefaultRank = (Option<Timestamp>, std::cmp::Reverse<String>);

impl RegistryFacts {
    pub(super) fn of<K: Describes>(object: &Guarded<K>, hosts: &RegistryHosts) -> Self {
        let metadata = object.meta();
        let is_default = is_default(object) && metadata.deletion_timestamp.is_none();
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        let (url, workspace, allowed) = match &object.0 {
            Ok(object) => {
                let mlflow = &object.spec().mlflow;
                (mlflow.url().ok(), mlflow.workspace.as_deref(), object.allowed())
            }
            Err(raw) => {
                let url = raw.text("/spec/mlflow/url").and_then(|url| url.parse().ok());
                (url, raw.text("/spec/mlflow/workspace"), None)
            }
        };
        let url = url.filter(|url| K::IS_CLUSTER_WIDE || hosts.allow(url));
        Self {
            generation: metadata.generation,
            default: is_default.then(|| (created, std::cmp::Reverse(object.name_any()))),
            identity: url.map(|url| RegistryIdentity::new(&url, workspace)),
            allowed,
        }
    }

    /// Whether a namespace with these labels may use it.
    pub(super) fn allows(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let Some(allowed) = &self.allowed else { return true };
        let none = BTreeMap::new();
        Selector::try_from(allowed.clone()).is_ok_and(|it| it.matches(labels.unwrap_or(&none)))
    }
}

/// An object that describes a registry.
pub trait Describes: Resource<DynamicType = ()> {
    /// Whether it is of the kind for the whole cluster.
    const IS_CLUSTER_WIDE: bool;
    /// Returns its key.
    fn key_of(object: &impl ResourceExt) -> RegistryKey;
    /// Returns the registry's settings.
    fn spec(&self) -> &ModelRegistrySpec;
    /// Returns the namespaces that may use it, unless all may.
    fn allowed(&self) -> Option<LabelSelector>;
}

impl Describes for ModelRegistry {
    const IS_CLUSTER_WIDE: bool = false;

    fn key_of(object: &impl ResourceExt) -> RegistryKey {
        RegistryKey::Object { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }

    fn spec(&self) -> &ModelRegistrySpec {
        &self.spec
    }

    fn allowed(&self) -> Option<LabelSelector> {
        None
    }
}

impl Describes for ClusterModelRegistry {
    const IS_CLUSTER_WIDE: bool = true;

    fn key_of(object: &impl ResourceExt) -> RegistryKey {
        RegistryKey::Cluster { name: object.name_any() }
    }

    fn spec(&self) -> &ModelRegistrySpec {
        &self.spec.registry
    }

    fn allowed(&self) -> Option<LabelSelector> {
        self.spec.allowed_namespaces.as_ref().map(|allowed| allowed.selector.clone())
    }
}

/// Returns the key of a namespaced object.
pub(super) fn key<K: Resource<DynamicType = ()>>(object: &K) -> AliasKey {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Returns the labels of a namespace.
pub(super) fn labels(namespace: &PartialObjectMeta<Namespace>) -> BTreeMap<String, String> {
    namespace.labels().clone()
}
