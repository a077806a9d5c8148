//! The polled registries: read in batches, and remembered between polls.
//!
//! ```text
//! polled_registry one registry: its client and the results of its last poll
//! poll            what a poll reads and remembers
//! reading         how a poll reads the models
//! ahead           versions that a poll reads together with their models
//! evidence        facts that the promotion rules judge versions by
//! drift           tags that say whether the inputs of a version have drifted
//! candidates      the versions that followers choose from
//! display_metrics the metrics that the status of a RegisteredModel shows
//! memory          the results of reads
//! debounce        when a webhook delivery or a write causes a read
//! message         errors as messages for people
//! ```

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use parking_lot::RwLock;
use url::Url;

use super::limiter::{Limiter, Limits, Waits};
use crate::{api::RegistryKind, render::RegistryForPods};

mod ahead;
mod candidates;
mod debounce;
mod display_metrics;
mod drift;
mod evidence;
mod memory;
mod message;
mod poll;
mod polled_registry;
mod reading;
#[cfg(test)]
mod tests;

pub use self::{
    candidates::{ListedVersion, Listing},
    display_metrics::DisplayMetrics,
    evidence::VersionEvidence,
    memory::{ModelView, Sequence},
    poll::{FollowerNeeds, PollChanges, PollOutcome, PollPlan},
    polled_registry::{Due, PolledRegistry, RegistryIdentity},
    reading::spread,
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
    /// Returns the namespace of the object, if it has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Cluster { .. } => None,
            Self::Object { namespace, .. } => Some(namespace),
        }
    }

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
    /// What may be asked of it at a time.
    pub limits: Limits,
    /// The settings for serving pods.
    pub pods: RegistryForPods,
}

/// All known registries, by the objects that describe them.
#[derive(Debug, Default)]
pub struct Registries {
    /// `None` for an object that cannot be used. One that has not been looked at since this process started
    /// is missing.
    registries: RwLock<HashMap<RegistryKey, Option<Arc<PolledRegistry>>>>,
    waits: Waits,
}

/// What is known of the object of a registry.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// It describes this registry.
    Usable(Arc<PolledRegistry>),
    /// It cannot be used.
    Unusable,
    /// It has not been looked at, or does not exist.
    Unknown,
}

impl Registries {
    /// None is known yet. How long requests wait for their turn is added to `waits`.
    #[must_use]
    pub fn new(waits: Waits) -> Self {
        Self { waits, ..Self::default() }
    }

    /// Returns the registry with this key, if it is known.
    #[must_use]
    pub fn get(&self, key: &RegistryKey) -> Option<Arc<PolledRegistry>> {
        self.registries.read().get(key).cloned().flatten()
    }

    /// Returns what is known of the object of a registry.
    #[must_use]
    pub fn look_up(&self, key: &RegistryKey) -> Lookup {
        match self.registries.read().get(key) {
            Some(Some(registry)) => Lookup::Usable(registry.clone()),
            Some(None) => Lookup::Unusable,
            None => Lookup::Unknown,
        }
    }

    /// Adds or replaces a registry. Returns it, and whether it is new and has to be polled.
    pub fn set(&self, key: &RegistryKey, settings: Settings) -> (Arc<PolledRegistry>, bool) {
        let mut registries = self.registries.write();
        match registries.get(key) {
            Some(Some(known)) if known.settings == settings => (known.clone(), false),
            known => {
                let known = known.and_then(Option::as_ref);
                // The requests of the one before may still be in flight.
                let limiter = known.filter(|known| known.settings.limits == settings.limits);
                let limiter = limiter.map_or_else(
                    || Limiter::new(settings.limits, self.waits.clone()),
                    |known| known.limiter.clone(),
                );
                if let Some(known) = known {
                    known.retire();
                }
                let registry = Arc::new(PolledRegistry::new(key.clone(), settings, limiter));
                registries.insert(key.clone(), Some(registry.clone()));
                (registry, true)
            }
        }
    }

    /// Stops polling a registry whose object cannot be used any more.
    pub fn set_unusable(&self, key: &RegistryKey) {
        let mut registries = self.registries.write();
        if let Some(Some(registry)) = registries.insert(key.clone(), None) {
            registry.retire();
        }
    }

    /// Remembers that an object cannot be parsed. Its previous settings stay in use.
    pub fn set_unreadable(&self, key: &RegistryKey) {
        self.registries.write().entry(key.clone()).or_default();
    }

    /// Removes a registry and stops polling it.
    pub fn remove(&self, key: &RegistryKey) {
        let removed = self.registries.write().remove(key);
        if let Some(Some(registry)) = removed {
            registry.retire();
        }
    }
}
