//! A common interface to the two kinds that describe a registry.

use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::{
    api::{ClusterModelRegistry, ModelRegistry, ModelRegistryStatus},
    resolve::index::Describes,
};

/// A ModelRegistry or a ClusterModelRegistry.
pub trait RegistryObject:
    Describes + Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// Its status.
    fn known_status(&self) -> Option<&ModelRegistryStatus>;

    /// Returns the namespace of the Secrets that it names, given the operator's own.
    fn secrets_namespace(&self, operator: &str) -> String;
}

impl RegistryObject for ModelRegistry {
    fn known_status(&self) -> Option<&ModelRegistryStatus> {
        self.status.as_ref()
    }

    fn secrets_namespace(&self, _: &str) -> String {
        self.namespace().unwrap_or_default()
    }
}

impl RegistryObject for ClusterModelRegistry {
    fn known_status(&self) -> Option<&ModelRegistryStatus> {
        self.status.as_ref()
    }

    fn secrets_namespace(&self, operator: &str) -> String {
        operator.to_owned()
    }
}
