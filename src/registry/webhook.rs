//! Webhooks: how a registry tells Laurel that something changed.

use secrecy::SecretString;

use super::RegistryError;

/// A webhook as the registry lists it. Its secret is never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookFacts {
    /// The registry's own name for it.
    pub id: String,
    /// The name that it was given. Others may bear the same.
    pub name: String,
    /// Where it delivers.
    pub url: String,
    /// Its description; empty where it has none.
    pub description: String,
    /// Whether it is active, and delivers everything that Laurel wants to hear of.
    pub is_complete: bool,
}

/// A webhook as it is to be: active, and for everything that Laurel wants to hear of.
#[derive(Clone, Debug)]
pub struct DesiredWebhook {
    /// Its name.
    pub name: String,
    /// Where it delivers.
    pub url: String,
    /// Its description.
    pub description: String,
    /// What it signs with.
    pub secret: SecretString,
}

/// Why a webhook cannot be listed, made or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The scheme of its URL is not allowed.
    #[error("the registry refuses the scheme of the webhook's URL: {detail}")]
    SchemeRefused {
        /// What the registry said, shortened.
        detail: String,
    },
    /// Its URL leads to an address that is not public.
    #[error("the registry refuses the address of the webhook's URL: {detail}")]
    AddressRefused {
        /// What the registry said, shortened.
        detail: String,
    },
    /// The registry cannot read the webhooks that it has.
    #[error("the registry cannot read its own webhooks: {detail}")]
    Unreadable {
        /// What the registry said, shortened.
        detail: String,
    },
    /// The registry has no webhooks.
    #[error("the registry has no webhooks: {detail}")]
    Unsupported {
        /// What the registry said, shortened.
        detail: String,
    },
    /// The login is not an administrator's.
    #[error("the registry lets only administrators see webhooks: {detail}")]
    Forbidden {
        /// What the registry said, shortened.
        detail: String,
    },
    /// No answer for a reason that has nothing to do with webhooks.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}
