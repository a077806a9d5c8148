//! What is never quoted: our credentials, in the forms in which they are sent.
//!
//! A server may say what it got: a proxy that somebody debugs with, an error page that lists the request's headers. What
//! it says is quoted in conditions and logs, where more people read it than may know the credentials.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

/// Stands where something was taken out.
const INSTEAD: &str = "(hidden)";

/// Takes our credentials out of texts. Cheap to clone; `Debug` does not show them.
#[derive(Clone, Debug, Default)]
pub(super) struct Redactions(Arc<[SecretString]>);

impl Redactions {
    pub(super) fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        Self(secrets.into_iter().filter(|secret| !secret.expose_secret().is_empty()).collect())
    }

    /// `text` without them, be they as they are or escaped as in a quotation.
    pub(super) fn redact(&self, text: &str) -> String {
        self.0.iter().map(ExposeSecret::expose_secret).fold(text.to_owned(), |text, secret| {
            text.replace(secret, INSTEAD).replace(&secret.escape_debug().to_string(), INSTEAD)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_taken_out_wherever_it_stands() {
        let redactions = Redactions::new(["dXM6cHc=".into(), "pw".into(), "".into()]);
        let detail_of = "Authorization: Basic dXM6cHc= (us:pw), pw";
        assert_eq!(redactions.redact(detail_of), "Authorization: Basic (hidden) (us:(hidden)), (hidden)");
        assert_eq!(Redactions::default().redact(detail_of), detail_of);
        assert!(!format!("{redactions:?}").contains("pw"));
    }
}
