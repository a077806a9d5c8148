//! A registry's webhooks. They cause reads of that registry and do nothing else.
//!
//! ```text
//! MLflow ──► endpoint ──► receiver ──► content ──► PolledRegistry::read_soon ──► that model is read now
//!            TLS, limits  signature,   which model
//!                         time, replays
//!
//! signature    (pure) checks that a delivery was signed with the registry's secret
//! replay       (pure) the deliveries already seen
//! receiver     checks the deliveries for one registry
//! content      (pure) the model that a delivery is about
//! endpoint     the listener and its responses
//! certificate  the endpoint's certificate, reloaded when it changes
//! plan         (pure) the changes that the webhooks in the registry need
//! registration makes these changes
//! registrations those that run, and how the last ones ended
//! ```
//!
//! The body of a delivery is parsed only after its signature was checked, only names the model to read, and is
//! not believed otherwise. A client that can sign one can make Laurel read the registry at most twice a second,
//! and can do nothing else.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: listens, and compares deliveries with the clock"
)]

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use crate::{
    api::condition::{Reason, ReasonMessage},
    registry::polled::RegistryKey,
};
use parking_lot::RwLock;

pub mod certificate;
pub mod content;
pub mod endpoint;
pub mod plan;
pub mod receiver;
pub mod registration;
pub mod registrations;
mod replay;
pub mod signature;

pub use receiver::{DeliveryOutcome, Receiver};
use registrations::Registrations;

/// The receivers, by registry.
#[derive(Debug, Default)]
pub struct Receivers(RwLock<HashMap<RegistryKey, Arc<Receiver>>>);

impl Receivers {
    /// Returns the receiver of a registry, if it has one.
    #[must_use]
    pub fn get(&self, key: &RegistryKey) -> Option<Arc<Receiver>> {
        self.0.read().get(key).cloned()
    }

    /// Returns the receiver of a registry, and creates it if there is none.
    pub fn open(&self, key: &RegistryKey) -> Arc<Receiver> {
        self.0.write().entry(key.clone()).or_default().clone()
    }

    /// Removes the receiver of a registry: no delivery for it is accepted any more.
    pub fn close(&self, key: &RegistryKey) {
        self.0.write().remove(key);
    }
}

/// The operator's webhook state.
#[derive(Debug, Default)]
pub struct Webhooks {
    /// The receivers, by registry.
    pub receivers: Arc<Receivers>,
    /// Set once the endpoint listens: its certificate, or `None` for plain HTTP.
    listening: OnceLock<Option<Arc<certificate::Certificate>>>,
    /// Their registrations in MLflow.
    pub registrations: Registrations,
}

impl Webhooks {
    /// Marks the endpoint as listening.
    pub fn set_listening(&self, certificate: Option<Arc<certificate::Certificate>>) {
        // It is called once: there is one endpoint for the lifetime of the operator.
        let _ = self.listening.set(certificate);
    }

    /// Returns why no delivery can arrive.
    #[must_use]
    pub fn error(&self) -> Option<ReasonMessage> {
        let not_listening = |message| Some(ReasonMessage::new(Reason::WebhookNotListening, message));
        let Some(certificate) = self.listening.get() else {
            let message = "spec.webhook: this operator has no endpoint for webhooks; install it with \
                           webhook.enabled=true and webhook.tls.secretName, or run it with --webhook-address";
            return not_listening(message.to_owned());
        };
        let error = certificate.as_ref()?.error()?;
        not_listening(format!(
            "spec.webhook: the operator's endpoint for webhooks has no valid certificate: {error}"
        ))
    }
}
