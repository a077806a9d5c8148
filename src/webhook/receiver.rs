//! What is let in for one registry: its secrets, and what came.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{Timestamp, TimestampRound, Unit};
use secrecy::{ExposeSecret, SecretString};

use super::{replay::ReplayCache, signature::Delivery};

/// How long the secret before the last change is accepted. MLflow keeps what it read of its webhooks for a minute, and who
/// changes the secret by hand on both ends needs some more.
const OVERLAP: Duration = Duration::from_mins(10);

/// How often a delivery with a strange signature asks for the Secret to be read again, at most.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// What became of a delivery. The names are the values of a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryOutcome {
    /// The registry is read now.
    Accepted,
    /// It came before, and wakes nobody.
    Replayed,
    /// The headers are not those of a delivery.
    Unsigned,
    /// No secret signed it.
    WrongSignature,
    /// It was signed at another time.
    WrongTime,
    /// Nobody accepts deliveries there.
    UnknownPath,
    /// It is no POST.
    WrongMethod,
    /// Its body is too long.
    TooLarge,
    /// It did not come to its end, or not in time.
    Broken,
}

/// Why deliveries were not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No secret signed them.
    WrongSignature,
    /// They were signed at another time.
    WrongTime,
}

/// What is known of the deliveries since the secret was last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The hour of the last one that was let in.
    pub hour: Option<Timestamp>,
    /// Why the last one was not, as long as none was.
    pub refused: Option<Refused>,
}

/// One registry's door.
#[derive(Debug, Default)]
pub struct Receiver(Mutex<ReceiverState>);

#[derive(Debug, Default)]
struct ReceiverState {
    secret: Option<SecretString>,
    previous: Option<(SecretString, Instant)>,
    replay_cache: ReplayCache,
    seen: Seen,
    asked_again: Option<Instant>,
}

/// What became of a delivery, and whether the status may have to say something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// What became of it.
    pub outcome: DeliveryOutcome,
    /// Whether the object is to be looked at: there is something new to tell, or the Secret to be read again.
    pub is_new: bool,
}

impl From<DeliveryOutcome> for Received {
    fn from(outcome: DeliveryOutcome) -> Self {
        Self { outcome, is_new: false }
    }
}

impl Receiver {
    fn state(&self) -> MutexGuard<'_, ReceiverState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the secret as it was just read; `None` lets nothing in. The one before it is accepted for a while.
    pub fn set_secret(&self, secret: Option<SecretString>, at: Instant) {
        // What is signed with nothing is not signed.
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

    /// What is known of the deliveries so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.state().seen
    }

    /// Takes a delivery in, or not. Its signature is looked at first: who cannot sign learns nothing else.
    pub fn receive(&self, delivery: &Delivery, body: &[u8], now: Timestamp, at: Instant) -> Received {
        let mut state = self.state();
        let state = &mut *state;
        let previous = state.previous.as_ref().filter(|(_, since)| at.duration_since(*since) < OVERLAP);
        let mut secrets = state.secret.iter().chain(previous.map(|(secret, _)| secret));
        if !secrets.any(|secret| delivery.is_signed_with(secret.expose_secret().as_bytes(), body)) {
            let is_due = state.asked_again.is_none_or(|last| at.duration_since(last) >= READ_AGAIN);
            if is_due {
                state.asked_again = Some(at);
            }
            state.refuse(Refused::WrongSignature);
            return Received { outcome: DeliveryOutcome::WrongSignature, is_new: is_due };
        }
        if !delivery.is_of(now) {
            let is_new = state.refuse(Refused::WrongTime);
            return Received { outcome: DeliveryOutcome::WrongTime, is_new };
        }
        if state.replay_cache.is_replayed(&delivery.id) {
            return DeliveryOutcome::Replayed.into();
        }
        let seen = Seen { hour: hour(now), refused: None };
        let is_new = std::mem::replace(&mut state.seen, seen) != seen;
        Received { outcome: DeliveryOutcome::Accepted, is_new }
    }
}

impl ReceiverState {
    /// Notes a refusal; whether there is something new to tell. Once a delivery was let in, anybody may send others without
    /// that being news.
    fn refuse(&mut self, refused: Refused) -> bool {
        if self.seen.hour.is_some() {
            return false;
        }
        self.seen.refused.replace(refused) != Some(refused)
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
    fn what_is_signed_now_is_let_in_once() {
        let at = Instant::now();
        let receiver = receiver("s", at);
        let receive = |secret, id, sent| receiver.receive(&delivery(secret, id, sent), b"{}", now(), at);
        assert_eq!(receive("s", "1", NOW), Received { outcome: DeliveryOutcome::Accepted, is_new: true });
        assert_eq!(receive("s", "1", NOW), DeliveryOutcome::Replayed.into());
        assert_eq!(receive("s", "2", NOW), DeliveryOutcome::Accepted.into());
        assert_eq!(receive("s", "3", NOW - 301), DeliveryOutcome::WrongTime.into());
        assert_eq!(receive("other", "4", NOW).outcome, DeliveryOutcome::WrongSignature);
        assert_eq!(
            receiver.seen(),
            Seen { hour: Some("2026-11-22T00:00:00Z".parse().unwrap()), refused: None }
        );
        // What was refused did not take its id.
        assert_eq!(receive("s", "4", NOW), DeliveryOutcome::Accepted.into());
    }

    #[test]
    fn without_a_secret_nothing_is_let_in_not_even_what_nothing_signed() {
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
    fn the_secret_before_is_accepted_for_a_while() {
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
    fn strangers_cause_no_news_but_a_rare_second_look_at_the_secret() {
        let at = Instant::now();
        let receiver = receiver("s", at);
        let strange = |later| receiver.receive(&delivery("x", "1", NOW), b"{}", now(), at + later);
        let looked: Vec<bool> = (0..61).map(|second| strange(Duration::from_secs(second)).is_new).collect();
        assert_eq!(looked.iter().filter(|looked| **looked).count(), 3);
        assert_eq!(receiver.seen().refused, Some(Refused::WrongSignature));
        assert!(receiver.receive(&delivery("s", "2", NOW), b"{}", now(), at).is_new);
        strange(Duration::ZERO);
        assert_eq!(receiver.seen().refused, None, "once it works, a stranger changes nothing");
    }
}
