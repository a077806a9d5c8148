//! A common interface to the two kinds that describe a registry.

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
    /// The registry's settings.
    fn registry(&self) -> &ModelRegistrySpec;

    /// Its status.
    fn known_status(&self) -> Option<&ModelRegistryStatus>;

    /// Returns the key of the registry that an object describes, from its namespace and name.
    fn key(object: &impl ResourceExt) -> RegistryKey;

    /// Returns the namespace of the Secrets that it names, given the operator's own.
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
