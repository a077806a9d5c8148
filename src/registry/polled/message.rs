//! What keeps a registry from answering, for a person: a reason, and a sentence that names the registry and the next step.

use std::time::{Duration, Instant};

use url::Url;

use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::ModelName,
    },
    registry::RegistryError,
};

/// How long the words are kept in which something was said last.
const KEPT: Duration = Duration::from_mins(10);
/// A word with a digit in it that is at least so long may be another one in the next answer: a time, or the number of a request.
/// A shorter one is a version, a status or a part of a date.
const RESTLESS: usize = 6;
/// How many notes are kept at most.
const NOTES_MAX: usize = 100;

/// What was said lately, and of which model; all others mean the registry itself.
#[derive(Debug, Default)]
pub(super) struct StableMessages(Vec<(Option<ModelName>, ReasonMessage, Instant)>);

impl StableMessages {
    /// The note, in the words in which the same was said lately.
    pub(super) fn steadily(
        &mut self,
        about: Option<&ModelName>,
        cause: ReasonMessage,
        now: Instant,
    ) -> ReasonMessage {
        self.0.retain(|(_, _, last)| now.duration_since(*last) < KEPT);
        let same = |said: &&mut (Option<ModelName>, ReasonMessage, Instant)| {
            said.0.as_ref() == about && are_alike(&said.1, &cause)
        };
        if let Some((_, said, last)) = self.0.iter_mut().find(same) {
            *last = now;
            return said.clone();
        }
        if self.0.len() >= NOTES_MAX {
            self.0.remove(0);
        }
        self.0.push((about.cloned(), cause.clone(), now));
        cause
    }
}

/// Whether two notes say the same, but for words that differ from one answer to the next.
fn are_alike(one: &ReasonMessage, other: &ReasonMessage) -> bool {
    fn words(cause: &ReasonMessage) -> impl Iterator<Item = Option<&str>> {
        let is_restless = |word: &&str| word.len() >= RESTLESS && word.contains(|c: char| c.is_ascii_digit());
        cause.message.split_whitespace().map(move |word| Some(word).filter(|word| !is_restless(word)))
    }
    one.reason == other.reason && words(one).eq(words(other))
}

/// A registry's refusal as a reason and a sentence.
pub(super) fn explain(url: &Url, error: &RegistryError) -> ReasonMessage {
    let (reason, next) = match error {
        RegistryError::Unreachable { .. } | RegistryError::TimedOut { .. } => (
            Reason::RegistryUnreachable,
            "; check that it runs, its URL, and that no NetworkPolicy stands between",
        ),
        RegistryError::Unauthorized { .. } => (
            Reason::RegistryUnauthorized,
            "; correct the Secret that spec.auth of the ModelRegistry names, or add spec.auth",
        ),
        RegistryError::Forbidden { .. } => (
            Reason::RegistryForbidden,
            "; give this login the right to read the model and its versions and to set aliases",
        ),
        RegistryError::HostRefused { .. } => (Reason::RegistryHostRefused, ""),
        RegistryError::WorkspaceRefused { .. } => (
            Reason::RegistryWorkspaceRefused,
            "; correct spec.mlflow.workspace of the ModelRegistry, or make the workspace there",
        ),
        RegistryError::Refused { .. } => (Reason::RegistryRefused, ""),
        RegistryError::RateLimited { .. } => (
            Reason::RegistryFailing,
            "; it is asked again later, and if that does not help, set a longer pollInterval, or a higher limit there",
        ),
        RegistryError::ServerFailed { .. } => {
            (Reason::RegistryFailing, "; it is asked again, and if it does not pass, its log says why")
        }
        RegistryError::NotARegistry { .. } => (Reason::RegistryFailing, ""),
    };
    let names_it = matches!(
        error,
        RegistryError::Unreachable { .. }
            | RegistryError::TimedOut { .. }
            | RegistryError::NotARegistry { .. }
    );
    let place = if names_it { String::new() } else { format!("{url}: ") };
    ReasonMessage::new(reason, format!("{place}{error}{next}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(detail: &str) -> ReasonMessage {
        let error = RegistryError::ServerFailed { status: 502, detail: detail.to_owned() };
        explain(&"http://mlflow:5000".parse().unwrap(), &error)
    }

    #[test]
    fn every_refusal_names_the_registry() {
        let text = || "what it said".to_owned();
        let url: Url = "http://mlflow:5000".parse().unwrap();
        let errors = [
            RegistryError::Unreachable { url: url.to_string(), cause: text() },
            RegistryError::TimedOut { url: url.to_string(), limit: Duration::from_secs(10) },
            RegistryError::Unauthorized { detail: text() },
            RegistryError::Forbidden { detail: text() },
            RegistryError::HostRefused { host: "mlflow:5000".to_owned() },
            RegistryError::WorkspaceRefused { workspace: text(), detail: text() },
            RegistryError::Refused { detail: text() },
            RegistryError::RateLimited { retry_after: None },
            RegistryError::ServerFailed { status: 500, detail: text() },
            RegistryError::NotARegistry { url: format!("{url}api"), detail: text() },
        ];
        for error in errors {
            let said = explain(&url, &error).message;
            assert_eq!(said.matches("http://mlflow:5000/").count(), 1, "{said}");
        }
    }

    #[test]
    fn what_differs_in_every_answer_is_no_news() {
        let mut said = StableMessages::default();
        let (fraud, iris): (ModelName, ModelName) = ("fraud".parse().unwrap(), "iris".parse().unwrap());
        let now = Instant::now();
        let first = said.steadily(Some(&fraud), failing("request 8f3a-11 at 09:15:40 on 22 Nov"), now);
        let again = |said: &mut StableMessages, about, detail, later| {
            said.steadily(about, failing(detail), now + later).message.contains("8f3a-11")
        };
        let soon = Duration::from_secs(5);
        assert!(first.message.contains("8f3a-11"));
        assert!(again(&mut said, Some(&fraud), "request 77aa-12 at 09:15:45 on 22 Nov", soon));
        assert!(!again(&mut said, Some(&iris), "request 77aa-12 at 09:15:45 on 22 Nov", soon));
        assert!(!again(&mut said, None, "request 77aa-12 at 09:15:45 on 22 Nov", soon));
        assert!(!again(&mut said, Some(&fraud), "request 77aa-12 at 09:15:45 on 23 Nov", soon));
        assert!(!again(&mut said, Some(&fraud), "disk full", soon));
        assert!(!again(&mut said, Some(&fraud), "request 77aa-12 at 09:15:45 on 22 Nov", soon + KEPT));
    }
}
