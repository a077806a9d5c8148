//! A registry's errors for people: a reason, and a message that names the registry and the next step.

use std::time::{Duration, Instant};

use url::Url;

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::ModelName,
    },
    registry::RegistryError,
};

/// How long a message is kept.
const KEPT: Duration = Duration::from_mins(10);
/// Minimum length of a word with a digit that may differ in the next response: a time, or the number of a
/// request. A shorter one is a version, a status or a part of a date.
const VARIABLE_WORD: usize = 6;
/// How many messages are kept at most.
const MESSAGES_MAX: usize = 100;

/// The latest messages, each with its model; without one, it is about the registry itself.
#[derive(Debug, Default)]
pub(super) struct StableMessages(Vec<(Option<ModelName>, ReasonMessage, Instant)>);

impl StableMessages {
    /// Returns this message, or a recent one about the same that differs only in variable words.
    pub(super) fn stabilize(
        &mut self,
        about: Option<&ModelName>,
        message: ReasonMessage,
        now: Instant,
    ) -> ReasonMessage {
        self.0.retain(|(_, _, last)| now.duration_since(*last) < KEPT);
        let same = |known: &&mut (Option<ModelName>, ReasonMessage, Instant)| {
            known.0.as_ref() == about && are_alike(&known.1, &message)
        };
        if let Some((_, known, last)) = self.0.iter_mut().find(same) {
            *last = now;
            return known.clone();
        }
        if self.0.len() >= MESSAGES_MAX {
            self.0.remove(0);
        }
        self.0.push((about.cloned(), message.clone(), now));
        message
    }
}

/// Whether two messages are equal except for variable words.
fn are_alike(one: &ReasonMessage, other: &ReasonMessage) -> bool {
    fn words(message: &ReasonMessage) -> impl Iterator<Item = Option<&str>> {
        let is_variable =
            |word: &&str| word.len() >= VARIABLE_WORD && word.contains(|c: char| c.is_ascii_digit());
        message.message.split_whitespace().map(move |word| Some(word).filter(|word| !is_variable(word)))
    }
    one.reason == other.reason && words(one).eq(words(other))
}

/// Returns the reason and message of a registry's error.
pub(super) fn explain(url: &Url, error: &RegistryError) -> ReasonMessage {
    let (reason, next) = match error {
        RegistryError::Unreachable { .. } | RegistryError::TimedOut { .. } => (
            Reason::RegistryUnreachable,
            "; check that it is running, that its URL is right, and that no NetworkPolicy blocks the \
             connection",
        ),
        RegistryError::Unauthorized { .. } => (
            Reason::RegistryUnauthorized,
            "; correct the Secret that spec.auth of the ModelRegistry names, or add spec.auth",
        ),
        RegistryError::Forbidden { .. } => (
            Reason::RegistryForbidden,
            "; grant this login permission to read the model and its versions and to set aliases",
        ),
        RegistryError::HostRefused { .. } => (Reason::RegistryHostRefused, ""),
        RegistryError::WorkspaceRefused { .. } => (
            Reason::RegistryWorkspaceRefused,
            "; correct or remove spec.mlflow.workspace of the ModelRegistry, or create the workspace",
        ),
        RegistryError::Rejected { .. } => (Reason::RegistryRefused, ""),
        RegistryError::RateLimited { .. } => (
            Reason::RegistryFailing,
            "; retrying later; if it persists, set a longer pollInterval or a higher limit on the server",
        ),
        RegistryError::ServerFailed { .. } => {
            (Reason::RegistryFailing, "; retrying; if it persists, see the server's log")
        }
        RegistryError::NotARegistry { .. } => (Reason::RegistryFailing, ""),
    };
    let has_url = matches!(
        error,
        RegistryError::Unreachable { .. }
            | RegistryError::TimedOut { .. }
            | RegistryError::NotARegistry { .. }
    );
    let prefix = if has_url { String::new() } else { format!("{url}: ") };
    ReasonMessage::new(reason, format!("{prefix}{error}{next}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(detail: &str) -> ReasonMessage {
        let error = RegistryError::ServerFailed { status: 502, detail: detail.to_owned() };
        explain(&"http://mlflow:5000".parse().unwrap(), &error)
    }

    #[test]
    fn every_message_names_the_registry() {
        let text = || "some detail".to_owned();
        let url: Url = "http://mlflow:5000".parse().unwrap();
        let errors = [
            RegistryError::Unreachable { url: url.to_string(), cause: text() },
            RegistryError::TimedOut { url: url.to_string(), limit: Duration::from_secs(10) },
            RegistryError::Unauthorized { detail: text() },
            RegistryError::Forbidden { detail: text() },
            RegistryError::HostRefused { host: "mlflow:5000".to_owned() },
            RegistryError::WorkspaceRefused { workspace: text(), detail: text() },
            RegistryError::Rejected { detail: text() },
            RegistryError::RateLimited { retry_after: None },
            RegistryError::ServerFailed { status: 500, detail: text() },
            RegistryError::NotARegistry { url: format!("{url}api"), detail: text() },
        ];
        for error in errors {
            let message = explain(&url, &error).message;
            assert_eq!(message.matches("http://mlflow:5000/").count(), 1, "{message}");
        }
    }

    #[test]
    fn words_that_vary_with_every_response_do_not_change_the_message() {
        let mut messages = StableMessages::default();
        let (fraud, iris): (ModelName, ModelName) = ("fraud".parse().unwrap(), "iris".parse().unwrap());
        let now = Instant::now();
        let first = messages.stabilize(Some(&fraud), failing("request 8f3a-11 at 09:15:40 on 22 Nov"), now);
        let again = |messages: &mut StableMessages, about, detail, later| {
            messages.stabilize(about, failing(detail), now + later).message.contains("8f3a-11")
        };
        let soon = Duration::from_secs(5);
        assert!(first.message.contains("8f3a-11"));
        assert!(again(&mut messages, Some(&fraud), "request 77aa-12 at 09:15:45 on 22 Nov", soon));
        assert!(!again(&mut messages, Some(&iris), "request 77aa-12 at 09:15:45 on 22 Nov", soon));
        assert!(!again(&mut messages, None, "request 77aa-12 at 09:15:45 on 22 Nov", soon));
        assert!(!again(&mut messages, Some(&fraud), "request 77aa-12 at 09:15:45 on 23 Nov", soon));
        assert!(!again(&mut messages, Some(&fraud), "disk full", soon));
        assert!(!again(&mut messages, Some(&fraud), "request 77aa-12 at 09:15:45 on 22 Nov", soon + KEPT));
    }
}
