//! Pushes: a registry's webhooks as a wake-up, and as nothing else.
//!
//! ```text
//! MLflow ──► endpoint ──► door ──► Handle::push ──► the next poll happens now
//!            TLS, limits  signature, time, repeats
//!
//! delivery     (pure) whether its registry signed a delivery
//! repeats      (pure) the deliveries that were seen
//! door         what is let in for one registry
//! endpoint     the listener, and what it answers
//! certificate  its certificate, read again when it changes
//! hook         (pure) what has to be done about the webhooks in the registry
//! registration doing it
//! ```
//!
//! What a delivery says is never read. Whoever can sign one can make Laurel read the registry, at most twice a second, and
//! no more than that.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "effects: listens, and compares deliveries with the clock"
)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock},
    time::Instant,
};

use crate::{
    api::condition::{Reason, ReasonMessage},
    registry::polled::RegistryKey,
};

pub mod certificate;
pub mod endpoint;
pub mod plan;
pub mod receiver;
pub mod registration;
mod replay;
pub mod signature;

pub use receiver::{DeliveryOutcome, Receiver};

/// Where deliveries may arrive, by registry.
#[derive(Debug, Default)]
pub struct Receivers(RwLock<HashMap<RegistryKey, Arc<Receiver>>>);

impl Receivers {
    /// The door of a registry, if it has one.
    #[must_use]
    pub fn get(&self, key: &RegistryKey) -> Option<Arc<Receiver>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// The door of a registry, which has one from now on.
    pub fn open(&self, key: &RegistryKey) -> Arc<Receiver> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default().clone()
    }

    /// Lets nothing in for a registry any more.
    pub fn close(&self, key: &RegistryKey) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// What came of looking after a webhook in the registry.
#[derive(Clone, Debug)]
pub struct Registered {
    /// What was wished for: with another wish, it is looked after again at once.
    pub fingerprint: String,
    /// The webhook's id, as far as it is known.
    pub id: Option<String>,
    /// Why it is not well.
    pub outcome: Result<(), ReasonMessage>,
    /// When that was.
    pub at: Instant,
}

/// All of it, as the operator keeps it.
#[derive(Debug, Default)]
pub struct Webhooks {
    /// Where deliveries may arrive.
    pub receivers: Arc<Receivers>,
    /// Set once the endpoint listens: its certificate, and none where it speaks plain HTTP.
    listening: OnceLock<Option<Arc<certificate::Certificate>>>,
    registered: Mutex<HashMap<RegistryKey, Registered>>,
}

impl Webhooks {
    /// The endpoint listens from now on.
    pub fn listens(&self, certificate: Option<Arc<certificate::Certificate>>) {
        // There is one endpoint for as long as the operator runs.
        let _ = self.listening.set(certificate);
    }

    /// Why nothing can arrive.
    #[must_use]
    pub fn error(&self) -> Option<ReasonMessage> {
        let not_listening = |message| Some(ReasonMessage::new(Reason::WebhookNotListening, message));
        let Some(certificate) = self.listening.get() else {
            let message = "spec.webhook: this operator has no endpoint for webhooks; install it with webhook.enabled=true and \
                           webhook.tls.secretName, or run it with --webhook-address";
            return not_listening(message.to_owned());
        };
        let error = certificate.as_ref()?.error()?;
        not_listening(format!(
            "spec.webhook: the operator's endpoint for webhooks has no certificate: {error}"
        ))
    }

    fn registered(&self) -> MutexGuard<'_, HashMap<RegistryKey, Registered>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of looking after this registry's webhook last.
    #[must_use]
    pub fn last_registration(&self, key: &RegistryKey) -> Option<Registered> {
        self.registered().get(key).cloned()
    }

    /// Remembers what came of it; `None` when there is to be no webhook.
    pub fn remember_registration(&self, key: &RegistryKey, registered: Option<Registered>) {
        match registered {
            Some(registered) => drop(self.registered().insert(key.clone(), registered)),
            None => drop(self.registered().remove(key)),
        }
    }
}
