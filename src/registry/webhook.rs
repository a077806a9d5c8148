//! Webhooks: a registry's notifications that something changed.

use secrecy::SecretString;

use super::RegistryError;

/// A webhook as the registry lists it, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookFacts {
    /// Its id in the registry.
    pub id: String,
    /// Its name, which need not be unique.
    pub name: String,
    /// The URL it delivers to.
    pub url: String,
    /// Its description; empty if it has none.
    pub description: String,
    /// Whether it is active and subscribes to every event that Laurel needs.
    pub is_complete: bool,
}

/// The desired webhook: active, and with every event that Laurel needs.
#[derive(Clone, Debug)]
pub struct DesiredWebhook {
    /// Its name.
    pub name: String,
    /// The URL it delivers to.
    pub url: String,
    /// Its description.
    pub description: String,
    /// The secret that signs its deliveries.
    pub secret: SecretString,
}

/// Why webhooks cannot be listed, created or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The scheme of its URL is not allowed.
    #[error("the registry rejects the scheme of the webhook's URL: {detail}")]
    SchemeRefused {
        /// The registry's message, shortened.
        detail: String,
    },
    /// The address of its URL is not public.
    #[error("the registry rejects the address of the webhook's URL: {detail}")]
    AddressRefused {
        /// The registry's message, shortened.
        detail: String,
    },
    /// The registry cannot read its own webhooks.
    #[error("the registry cannot read its own webhooks: {detail}")]
    Unreadable {
        /// The registry's message, shortened.
        detail: String,
    },
    /// The registry does not support webhooks.
    #[error("the registry does not support webhooks: {detail}")]
    Unsupported {
        /// The registry's message, shortened.
        detail: String,
    },
    /// The login is not an administrator's.
    #[error("the registry shows webhooks to administrators only: {detail}")]
    Forbidden {
        /// The registry's message, shortened.
        detail: String,
    },
    /// An error that is not specific to webhooks.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}
