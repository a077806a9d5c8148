//! The signature of a delivery: MLflow's variant of Standard Webhooks.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

/// The header with a delivery's id. A repetition has the same id.
pub const ID: &str = "x-mlflow-delivery-id";
/// The header with the second in which the delivery was first sent.
pub const TIMESTAMP: &str = "x-mlflow-timestamp";
/// The header with the delivery's signature.
pub const SIGNATURE: &str = "x-mlflow-signature";

/// The only signature version in use.
const VERSION: &str = "v1,";

/// Maximum difference between a delivery's time and ours. MLflow repeats a delivery, with its original time,
/// for about ten seconds.
pub const WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// Maximum length of an id. MLflow's are UUIDs.
const ID_MAX: usize = 64;

/// A delivery's headers, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: String,
    timestamp: String,
    sent: Timestamp,
    signature: Vec<u8>,
}

impl Delivery {
    /// Parses the three headers; returns `None` if one is missing or malformed.
    pub fn read<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Option<Self> {
        let (id, timestamp, signature) = (header(ID)?, header(TIMESTAMP)?, header(SIGNATURE)?);
        let is_plain = |text: &str, max| {
            (1..=max).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.')
        };
        if !is_plain(id, ID_MAX) || !timestamp.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            id: id.to_owned(),
            timestamp: timestamp.to_owned(),
            sent: Timestamp::from_second(timestamp.parse().ok()?).ok()?,
            signature: BASE64_STANDARD.decode(signature.strip_prefix(VERSION)?).ok()?,
        })
    }

    /// Whether the delivery with this body is signed with this secret. Compares in constant time.
    #[must_use]
    pub fn is_signed_with(&self, secret: &[u8], body: &[u8]) -> bool {
        // Cannot fail: a key may have any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
        for part in [self.id.as_bytes(), b".", self.timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac.verify_slice(&self.signature).is_ok()
    }

    /// Whether it was sent within [`WINDOW`] of this time.
    #[must_use]
    pub fn is_recent(&self, now: Timestamp) -> bool {
        now.duration_since(self.sent).abs() <= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A delivery in the format that MLflow documents. The signature was made with Python's hmac:
    /// `base64.b64encode(hmac.new(b"wonderland", b"ID.TIMESTAMP.BODY", "sha256").digest())`.
    const SECRET: &[u8] = b"wonderland";
    const BODY: &[u8] = br#"{"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-22T00:54:50.464881+00:00", "data": {"name": "iris", "alias": "champion", "version": "1"}}"#;
    const SENT: i64 = 1_795_308_890;
    const HEADERS: [(&str, &str); 3] = [
        (ID, "0a5263d2-4e38-4093-bdd2-c5efbe647403"),
        (TIMESTAMP, "1795308890"),
        (SIGNATURE, "v1,NVaZybwKTi+VL0SoTkAntFt+soXjpGvomD5kDWCNmEw="),
    ];

    fn read(headers: &[(&str, &str)]) -> Option<Delivery> {
        Delivery::read(|name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    fn with(name: &str, value: &str) -> Option<Delivery> {
        let mut headers = HEADERS;
        headers.iter_mut().filter(|(known, _)| *known == name).for_each(|header| header.1 = value);
        read(&headers)
    }

    #[test]
    fn a_delivery_signed_by_mlflow_is_accepted_with_its_secret_only() {
        let delivery = read(&HEADERS).unwrap();
        assert!(delivery.is_signed_with(SECRET, BODY));
        for other in [&b"wonderlan"[..], b"wonderland\n", b"", b"Wonderland"] {
            assert!(!delivery.is_signed_with(other, BODY), "{other:?}");
        }
    }

    #[test]
    fn a_delivery_may_be_five_minutes_early_or_late() {
        let delivery = read(&HEADERS).unwrap();
        for (off, expected) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
            assert_eq!(delivery.is_recent(Timestamp::from_second(SENT + off).unwrap()), expected, "{off}");
        }
    }

    #[test]
    fn headers_that_mlflow_does_not_send_are_rejected() {
        for missing in 0..3 {
            let mut headers = HEADERS.to_vec();
            headers.remove(missing);
            assert_eq!(read(&headers), None);
        }
        for (name, value) in [
            (ID, ""),
            (ID, "with.dot"),
            (ID, "with space"),
            (ID, "0123456789012345678901234567890123456789012345678901234567890123x"),
            (TIMESTAMP, ""),
            (TIMESTAMP, "-1795308890"),
            (TIMESTAMP, "1795308890.5"),
            (TIMESTAMP, "99999999999999999999"),
            (SIGNATURE, "NVaZybwKTi+VL0SoTkAntFt+soXjpGvomD5kDWCNmEw="),
            (SIGNATURE, "v2,NVaZybwKTi+VL0SoTkAntFt+soXjpGvomD5kDWCNmEw="),
            (SIGNATURE, "v1,***"),
            (SIGNATURE, "v1"),
        ] {
            assert_eq!(with(name, value), None, "{name}: {value:?}");
        }
        assert!(!with(SIGNATURE, "v1,").unwrap().is_signed_with(SECRET, BODY));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_in_the_body_is_detected(index in 0..BODY.len(), bit in 0..8u8) {
            let mut body = BODY.to_vec();
            body[index] ^= 1 << bit;
            prop_assert!(!read(&HEADERS).unwrap().is_signed_with(SECRET, &body));
        }

        #[test]
        fn any_flipped_bit_in_a_header_is_detected(which in 0..3usize, index in 0..64usize, bit in 0..7u8) {
            let (name, value) = HEADERS[which];
            let mut bytes = value.as_bytes().to_vec();
            let index = index % bytes.len();
            bytes[index] ^= 1 << bit;
            let value = String::from_utf8(bytes).unwrap();
            let delivery = with(name, &value);
            let is_accepted = delivery.is_some_and(|delivery| delivery.is_signed_with(SECRET, BODY));
            prop_assert!(!is_accepted, "{}: {:?}", name, value);
        }

        #[test]
        fn a_shortened_or_extended_body_is_detected(cut in 0..BODY.len(), more in any::<u8>()) {
            let delivery = read(&HEADERS).unwrap();
            prop_assert!(!delivery.is_signed_with(SECRET, &BODY[..cut]));
            prop_assert!(!delivery.is_signed_with(SECRET, &[BODY, &[more]].concat()));
        }
    }
}
