//! The polled registries: read in batches, and remembered between polls.
//!
//! ```text
//! polled_registry one registry: its client and the results of its last poll
//! evidence        facts that the promotion rules judge versions by
//! candidates      the versions that followers choose from
//! display_metrics the metrics that the status of a RegisteredModel shows
//! memory          the results of reads
//! debounce        when a webhook delivery causes a poll
//! message         errors as messages for people
//! ```

use std::{
    collections::{HashMap, HashSet},
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

/// Identifies a registry by the object that describes it.
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
    /// Returns the kind and name of the object.
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

/// The settings of a registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The registry's URL.
    pub url: Url,
    /// The workspace in the registry.
    pub workspace: Option<String>,
    /// How often it is polled.
    pub poll_interval: Duration,
    /// The settings for serving pods.
    pub pods: RegistryForPods,
}

/// All known registries.
#[derive(Debug, Default)]
pub struct Registries {
    registries: RwLock<HashMap<RegistryKey, Arc<PolledRegistry>>>,
    /// Those whose objects were looked at, usable or not.
    tried: RwLock<HashSet<RegistryKey>>,
}

impl Registries {
    /// Returns the registry with this key, if it is known.
    #[must_use]
    pub fn get(&self, key: &RegistryKey) -> Option<Arc<PolledRegistry>> {
        self.registries.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Whether its object was looked at since this process started; until then, that it is not known says nothing.
    #[must_use]
    pub fn was_tried(&self, key: &RegistryKey) -> bool {
        self.tried.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// Notes that its object was looked at.
    pub fn mark_tried(&self, key: &RegistryKey) {
        self.tried.write().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
    }

    /// Forgets that its object was looked at, because there is none any more.
    pub fn forget_try(&self, key: &RegistryKey) {
        self.tried.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Adds or replaces a registry. Returns it, and whether it is new and has to be polled.
    pub fn set(&self, key: &RegistryKey, settings: Settings) -> (Arc<PolledRegistry>, bool) {
        self.mark_tried(key);
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

    /// Removes a registry and stops polling it.
    pub fn remove(&self, key: &RegistryKey) {
        let removed = self.registries.write().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(registry) = removed {
            registry.retire();
        }
    }
}
