//! Secrets that can be recognised in any text, also when they are encoded.

use k8s_openapi::ByteString;

/// A secret, and where it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    pub(crate) what: String,
    /// The part of it that no escaping changes.
    core: String,
    pub(crate) value: String,
}

impl Secret {
    /// A secret around a word that is nowhere else. What surrounds it needs escaping in JSON, in URLs and in
    /// HTML.
    pub(crate) fn plant(what: &str, word: &str) -> Self {
        let core = format!("{word}Zq7xKw3vNf8tRb2mHd6pJc5");
        Self { what: what.to_owned(), value: format!("a/{core}\"&+% z"), core }
    }

    /// One that could be sent as a token.
    pub(crate) fn token(what: &str, word: &str) -> Self {
        let planted = Self::plant(what, word);
        Self { value: planted.core.clone(), ..planted }
    }

    /// One that somebody else made; its end is the part that is secret.
    pub(crate) fn found(what: &str, value: &str) -> Self {
        let core = value[value.len().saturating_sub(40)..].to_owned();
        Self { what: what.to_owned(), core, value: value.to_owned() }
    }

    /// The places where a text shows it, as it is or in base64, alone or amidst something else.
    pub(crate) fn shown_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        let encoded = (0..3).map(|before| {
            let padded = [vec![0; before], self.core.clone().into_bytes()].concat();
            let text = base64(padded);
            // The first and the last characters depend on what stands beside it.
            text[4..text.len() - 4].to_owned()
        });
        let forms = [self.core.clone()].into_iter().chain(encoded);
        let found = forms
            .flat_map(|form| [form.replace('+', "-").replace('/', "_"), form])
            .find_map(|form| text.find(&form))?;
        let line = text[..found].rfind('\n').map_or(0, |end| end + 1);
        let line = &text[line..];
        Some(line.split('\n').next().unwrap_or(line))
    }
}

/// Bytes in base64.
pub(crate) fn base64(bytes: Vec<u8>) -> String {
    let value = serde_json::to_value(ByteString(bytes)).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_secret_is_recognised_in_every_form() {
    let secret = Secret::plant("a password", "Recognise");
    let json = serde_json::to_string(&secret.value).unwrap();
    let url: String = url::form_urlencoded::byte_serialize(secret.value.as_bytes()).collect();
    let mut forms = vec![secret.value.clone(), json, url, format!("{:?}", secret.value)];
    for before in ["", "u", "us", "usr", "user:", "laurel:"] {
        forms.push(base64(format!("{before}{} and more", secret.value).into_bytes()));
        forms.push(base64(format!("{before}{}", secret.value).into_bytes()));
    }
    for form in forms {
        assert!(secret.shown_in(&format!("one\n{form}\ntwo")).is_some_and(|line| line == form), "{form}");
    }
    assert_eq!(secret.shown_in("one\nRecogniseZq7\ntwo"), None);
}
