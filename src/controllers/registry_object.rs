//! The two kinds that describe a registry, as one.

use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::{
    api::{ClusterModelRegistry, ModelRegistry, ModelRegistrySpec, ModelRegistryStatus},
    registry::polled::RegistryKey,
};

/// A ModelRegistry or a ClusterModelRegistry.
pub trait RegistryObject:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// What it says of the registry.
    fn registry(&self) -> &ModelRegistrySpec;

    /// Its status.
    fn known_status(&self) -> Option<&ModelRegistryStatus>;

    /// The registry that an object of this kind describes, by the object's place.
    fn key(object: &impl ResourceExt) -> RegistryKey;

    /// The namespace of the Secrets that it names, given the operator's own.
    fn secrets_namespace(&self, operator: &str) -> String;
}

impl RegistryObject for ModelRegistry {
    fn registry(&self) -> &ModelRegistrySpec {
        &self.spec
    }

    fn known_status(&self) -> Option<&ModelRegistryStatus> {
        self.status.as_ref()
    }

    fn key(object: &impl ResourceExt) -> RegistryKey {
        RegistryKey::Object { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }

    fn secrets_namespace(&self, _: &str) -> String {
        self.namespace().unwrap_or_default()
    }
}

impl RegistryObject for ClusterModelRegistry {
    fn registry(&self) -> &ModelRegistrySpec {
        &self.spec.registry
    }

    fn known_status(&self) -> Option<&ModelRegistryStatus> {
        self.status.as_ref()
    }

    fn key(object: &impl ResourceExt) -> RegistryKey {
        RegistryKey::Cluster { name: object.name_any() }
    }

    fn secrets_namespace(&self, operator: &str) -> String {
        operator.to_owned()
    }
}
