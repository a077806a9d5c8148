//! The registries that are watched, read in batches and remembered in between.
//!
//! ```text
//! handle   one registry: how to ask it, and what it said last
//! evidence what the promotion rules judge versions by
//! listing  the versions that followers choose from
//! shown    the metrics that the status of a RegisteredModel shows
//! memory   what was read of it
//! pushes   when what the registry says by itself is answered by a poll
//! trouble  what keeps it from answering, for a person
//! ```

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use url::Url;

use crate::{api::RegistryKind, render::RegistryForPods};

mod candidates;
mod debounce;
mod display_metrics;
mod evidence;
mod memory;
mod message;
mod polled_registry;

pub use self::{
    candidates::Listing,
    display_metrics::DisplayMetrics,
    evidence::VersionEvidence,
    memory::ModelView,
    polled_registry::{PollOutcome, PollPlan, PolledRegistry},
};

/// Names a registry by the object that describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegistryKey {
    /// A ClusterModelRegistry.
    Cluster {
        /// Its name.
        name: String,
    },
    /// A ModelRegistry.
    Object {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl RegistryKey {
    /// The kind of the object, and its name.
    #[must_use]
    pub fn object(&self) -> (RegistryKind, &str) {
        match self {
            Self::Cluster { name } => (RegistryKind::ClusterModelRegistry, name),
            Self::Object { name, .. } => (RegistryKind::ModelRegistry, name),
        }
    }
}

impl fmt::Display for RegistryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.object();
        match self {
            Self::Cluster { .. } => write!(f, "{kind} {name}"),
            Self::Object { namespace, .. } => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

/// What a registry is, apart from what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The registry's URL.
    pub url: Url,
    /// The workspace in it.
    pub workspace: Option<String>,
    /// How often it is read.
    pub poll_interval: Duration,
    /// What serving pods need to know.
    pub pods: RegistryForPods,
}

/// Every registry that is known.
#[derive(Debug, Default)]
pub struct Registries {
    registries: RwLock<HashMap<RegistryKey, Arc<PolledRegistry>>>,
}

impl Registries {
    /// The registry of this name, if it is known.
    #[must_use]
    pub fn get(&self, key: &RegistryKey) -> Option<Arc<PolledRegistry>> {
        self.registries.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Adds or replaces a registry. Answers its handle, and whether it is a new one that has to be polled.
    pub fn set(&self, key: &RegistryKey, settings: Settings) -> (Arc<PolledRegistry>, bool) {
        let mut registries = self.registries.write().unwrap_or_else(PoisonError::into_inner);
        match registries.get(key) {
            Some(known) if known.settings == settings => (known.clone(), false),
            known => {
                if let Some(registry) = known {
                    registry.retire();
                }
                let registry = Arc::new(PolledRegistry::new(key.clone(), settings));
                registries.insert(key.clone(), registry.clone());
                (registry, true)
            }
        }
    }

    /// Forgets a registry and ends its polling.
    pub fn remove(&self, key: &RegistryKey) {
        let removed = self.registries.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(registry) = removed {
            registry.retire();
        }
    }
}
