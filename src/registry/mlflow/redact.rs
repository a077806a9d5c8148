//! Removes our credentials, in the forms in which they are sent, from text.
//!
//! A server may echo the request: a debugging proxy, an error page that lists the request's headers. Its
//! message is quoted in conditions and logs, which more people can read than may know the credentials.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

/// Replaces a credential.
const PLACEHOLDER: &str = "(redacted)";

/// Removes our credentials from text. Cheap to clone; `Debug` does not show them.
#[derive(Clone, Debug, Default)]
pub(super) struct Redactions(Arc<[SecretString]>);

impl Redactions {
    pub(super) fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        Self(secrets.into_iter().filter(|secret| !secret.expose_secret().is_empty()).collect())
    }

    /// Returns `text` without the credentials, whether verbatim or escaped as in a quotation.
    pub(super) fn redact(&self, text: &str) -> String {
        self.0.iter().map(ExposeSecret::expose_secret).fold(text.to_owned(), |text, secret| {
            text.replace(secret, PLACEHOLDER).replace(&secret.escape_debug().to_string(), PLACEHOLDER)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_removed_everywhere() {
        let redactions = Redactions::new(["dXM6cHc=".into(), "pw".into(), "".into()]);
        let text = "Authorization: Basic dXM6cHc= (us:pw), pw";
        assert_eq!(redactions.redact(text), "Authorization: Basic (redacted) (us:(redacted)), (redacted)");
        assert_eq!(Redactions::default().redact(text), text);
        assert!(!format!("{redactions:?}").contains("pw"));
    }
}
