//! Secrets, read individually by name.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::{
    api::condition::{Reason, ReasonMessage},
    cluster::error::error_message,
};

/// Reads one key of a Secret that an object names.
///
/// # Errors
/// A message that names the Secret, the key and the next step, but never the value.
pub async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
    field: &str,
) -> Result<Vec<u8>, ReasonMessage> {
    let secret =
        Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await.map_err(|error| {
            let error = error_message(&error, "get", &format!("the Secret {name:?} in {namespace:?}"));
            ReasonMessage::new(error.reason, format!("{field}: {}", error.message))
        })?;
    let Some(secret) = secret else {
        let message =
            format!("{field}: the Secret {name:?} does not exist in the namespace {namespace:?}; create it");
        return Err(ReasonMessage::new(Reason::SecretNotFound, message));
    };
    match secret.data.unwrap_or_default().remove(key) {
        Some(value) if !value.0.is_empty() => Ok(value.0),
        Some(_) => Err(ReasonMessage::new(
            Reason::SecretKeyInvalid,
            format!("{field}: the key {key:?} of the Secret {name:?} is empty"),
        )),
        None => Err(ReasonMessage::new(
            Reason::SecretKeyInvalid,
            format!(
                "{field}: the Secret {name:?} in {namespace:?} has no key {key:?}; add it, or use a key that \
                 it has"
            ),
        )),
    }
}

/// Reads one key as text, without trailing newlines.
///
/// # Errors
/// As [`read`], and when the value is not UTF-8.
pub async fn read_text(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
    field: &str,
) -> Result<String, ReasonMessage> {
    let value = read(client, namespace, name, key, field).await?;
    let text = String::from_utf8(value).map_err(|_| {
        ReasonMessage::new(
            Reason::SecretKeyInvalid,
            format!("{field}: the key {key:?} of the Secret {name:?} is not UTF-8 text"),
        )
    })?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        let message = format!("{field}: the key {key:?} of the Secret {name:?} contains only newlines");
        return Err(ReasonMessage::new(Reason::SecretKeyInvalid, message));
    }
    Ok(text.to_owned())
}
