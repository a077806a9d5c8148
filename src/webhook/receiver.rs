//! Checks the deliveries for one registry: its secrets, and the deliveries seen.

use std::time::{Duration, Instant};

use jiff::{Timestamp, TimestampRound, Unit};
use parking_lot::{Mutex, MutexGuard};
use secrecy::{ExposeSecret, SecretString};

use super::{replay::ReplayCache, signature::Delivery};

/// How long the previous secret is accepted. MLflow caches its webhooks for a minute, and changing the secret
/// by hand on both ends takes longer.
const OVERLAP: Duration = Duration::from_mins(10);

/// Minimum time between two reads of the Secret caused by deliveries with a wrong signature.
const REREAD_AFTER: Duration = Duration::from_secs(30);

/// The outcome of a delivery. The names are the values of a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryOutcome {
    /// Valid: what it is about is read now.
    Accepted,
    /// It was delivered before, and has no effect.
    Replayed,
    /// It lacks a delivery's headers.
    Unsigned,
    /// It is not signed with a known secret.
    WrongSignature,
    /// Its timestamp is too far from the current time.
    WrongTime,
    /// No receiver has this path.
    UnknownPath,
    /// It is not a POST.
    WrongMethod,
    /// Its body is too large.
    TooLarge,
    /// It was not completed, or not in time.
    Broken,
}

/// Why deliveries are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidDelivery {
    /// They are not signed with a known secret.
    WrongSignature,
    /// Their timestamp is too far from the current time.
    WrongTime,
}

/// The deliveries since the secret last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The hour of the last accepted delivery.
    pub hour: Option<Timestamp>,
    /// Why the last delivery is invalid, as long as none was accepted.
    pub invalid: Option<InvalidDelivery>,
}

/// The receiver of one registry.
#[derive(Debug, Default)]
pub struct Receiver(Mutex<ReceiverState>);

#[derive(Debug, Default)]
struct ReceiverState {
    secret: Option<SecretString>,
    previous: Option<(SecretString, Instant)>,
    replay_cache: ReplayCache,
    seen: Seen,
    secret_reread: Option<Instant>,
}

/// The outcome of a delivery, and whether the status may have to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The outcome.
    pub outcome: DeliveryOutcome,
    /// Whether the object needs a reconcile: to update its status, or to read the Secret again.
    pub needs_reconcile: bool,
}

impl From<DeliveryOutcome> for Received {
    fn from(outcome: DeliveryOutcome) -> Self {
        Self { outcome, needs_reconcile: false }
    }
}

impl Receiver {
    fn state(&self) -> MutexGuard<'_, ReceiverState> {
        self.0.lock()
    }

    /// Sets the secret as just read; with `None`, no delivery is accepted. The previous secret is accepted
    /// for a while.
    pub fn set_secret(&self, secret: Option<SecretString>, at: Instant) {
        // Reject an empty HMAC key.
        let secret = secret.filter(|secret| !secret.expose_secret().is_empty());
        let mut state = self.state();
        let same = |one: &Option<SecretString>, other: &Option<SecretString>| {
            one.as_ref().map(ExposeSecret::expose_secret) == other.as_ref().map(ExposeSecret::expose_secret)
        };
        if same(&state.secret, &secret) {
            return;
        }
        state.previous = match &secret {
            Some(_) => state.secret.take().map(|before| (before, at)),
            None => None,
        };
        state.secret = secret;
        state.seen = Seen::default();
    }

    /// Returns the deliveries seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.state().seen
    }

    /// Checks a delivery. The signature comes first, so that a client without the secret learns nothing else.
    pub fn receive(&self, delivery: &Delivery, body: &[u8], now: Timestamp, at: Instant) -> Received {
        let mut state = self.state();
        let state = &mut *state;
        let previous = state.previous.as_ref().filter(|(_, since)| at.duration_since(*since) < OVERLAP);
        let mut secrets = state.secret.iter().chain(previous.map(|(secret, _)| secret));
        if !secrets.any(|secret| delivery.is_signed_with(secret.expose_secret().as_bytes(), body)) {
            let is_due = state.secret_reread.is_none_or(|last| at.duration_since(last) >= REREAD_AFTER);
            if is_due {
                state.secret_reread = Some(at);
            }
            state.set_invalid(InvalidDelivery::WrongSignature);
            return Received { outcome: DeliveryOutcome::WrongSignature, needs_reconcile: is_due };
        }
        if !delivery.is_recent(now) {
            let needs_reconcile = state.set_invalid(InvalidDelivery::WrongTime);
            return Received { outcome: DeliveryOutcome::WrongTime, needs_reconcile };
        }
        if state.replay_cache.is_replayed(&delivery.id) {
            return DeliveryOutcome::Replayed.into();
        }
        let seen = Seen { hour: hour(now), invalid: None };
        let needs_reconcile = std::mem::replace(&mut state.seen, seen) != seen;
        Received { outcome: DeliveryOutcome::Accepted, needs_reconcile }
    }
}

impl ReceiverState {
    /// Remembers an invalid delivery and returns whether that changes the status. After an accepted delivery
    /// it does not: any client can send invalid ones.
    fn set_invalid(&mut self, invalid: InvalidDelivery) -> bool {
        if self.seen.hour.is_some() {
            return false;
        }
        self.seen.invalid.replace(invalid) != Some(invalid)
    }
}

fn hour(now: Timestamp) -> Option<Timestamp> {
    now.round(TimestampRound::new().smallest(Unit::Hour).mode(jiff::RoundMode::Trunc)).ok()
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::Sha256;

    use super::*;
    use crate::webhook::signature::{ID, SIGNATURE, TIMESTAMP};

    const NOW: i64 = 1_795_308_890;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn delivery(secret: &str, id: &str, sent: i64) -> Delivery {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{id}.{sent}.{{}}").as_bytes());
        let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
        let sent = sent.to_string();
        let headers = [(ID, id), (TIMESTAMP, &sent), (SIGNATURE, &signature)];
        Delivery::read(|name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
            .unwrap()
    }

    fn receiver(secret: &str, at: Instant) -> Receiver {
        let receiver = Receiver::default();
        receiver.set_secret(Some(secret.into()), at);
        receiver
    }

    #[test]
    fn a_valid_delivery_is_accepted_once() {
        let at = Instant::now();
        let receiver = receiver("s", at);
        let receive = |secret, id, sent| receiver.receive(&delivery(secret, id, sent), b"{}", now(), at);
        let first = Received { outcome: DeliveryOutcome::Accepted, needs_reconcile: true };
        assert_eq!(receive("s", "1", NOW), first);
        assert_eq!(receive("s", "1", NOW), DeliveryOutcome::Replayed.into());
        assert_eq!(receive("s", "2", NOW), DeliveryOutcome::Accepted.into());
        assert_eq!(receive("s", "3", NOW - 301), DeliveryOutcome::WrongTime.into());
        assert_eq!(receive("other", "4", NOW).outcome, DeliveryOutcome::WrongSignature);
        assert_eq!(
            receiver.seen(),
            Seen { hour: Some("2026-11-22T00:00:00Z".parse().unwrap()), invalid: None }
        );
        // An invalid delivery does not use up its id.
        assert_eq!(receive("s", "4", NOW), DeliveryOutcome::Accepted.into());
    }

    #[test]
    fn without_a_secret_no_delivery_is_accepted_not_even_one_signed_with_an_empty_key() {
        let at = Instant::now();
        let receiver = Receiver::default();
        assert_eq!(
            receiver.receive(&delivery("", "1", NOW), b"{}", now(), at).outcome,
            DeliveryOutcome::WrongSignature
        );
        receiver.set_secret(Some("s".into()), at);
        receiver.set_secret(None, at);
        assert_eq!(
            receiver.receive(&delivery("s", "1", NOW), b"{}", now(), at).outcome,
            DeliveryOutcome::WrongSignature
        );
    }

    #[test]
    fn the_previous_secret_is_accepted_for_a_while() {
        let at = Instant::now();
        let receiver = receiver("old", at);
        receiver.set_secret(Some("new".into()), at);
        receiver.set_secret(Some("new".into()), at + OVERLAP);
        let receive = |secret, id, later| {
            receiver.receive(&delivery(secret, id, NOW), b"{}", now(), at + later).outcome
        };
        assert_eq!(receive("old", "1", OVERLAP / 2), DeliveryOutcome::Accepted);
        assert_eq!(receive("new", "2", OVERLAP / 2), DeliveryOutcome::Accepted);
        assert_eq!(receive("old", "3", OVERLAP), DeliveryOutcome::WrongSignature);
    }

    #[test]
    fn unsigned_deliveries_are_ignored_and_the_secret_is_reread_at_most_rarely() {
        let at = Instant::now();
        let receiver = receiver("s", at);
        let send_unsigned = |later| receiver.receive(&delivery("x", "1", NOW), b"{}", now(), at + later);
        let rereads =
            (0..61).filter(|second| send_unsigned(Duration::from_secs(*second)).needs_reconcile).count();
        assert_eq!(rereads, 3);
        assert_eq!(receiver.seen().invalid, Some(InvalidDelivery::WrongSignature));
        assert!(receiver.receive(&delivery("s", "2", NOW), b"{}", now(), at).needs_reconcile);
        send_unsigned(Duration::ZERO);
        assert_eq!(receiver.seen().invalid, None, "ignored after an accepted delivery");
    }
}
