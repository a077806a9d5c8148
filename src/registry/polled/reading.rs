//! How a poll reads the models: in chunks, each of which may fail for itself.
//!
//! If a server fails at a chunk, its models are read one by one: the one that it chokes on is named and does
//! not condemn the others. If it does not answer at all, the poll ends, and the next one follows soon.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use futures::{StreamExt, stream};

use super::{
    PolledRegistry,
    memory::{FAILURES, ModelRead},
};
use crate::{
    api::{condition::ReasonMessage, names::ModelName},
    registry::{Registry, RegistryError, limiter::Priority},
};

/// How many models are read with one call.
const CHUNK: usize = 100;

/// How many models of a chunk are read at a time.
const AT_ONCE: usize = 8;

/// After how many chunks without an answer a poll ends: the first may be due to one of its models.
const SILENCES: usize = 2;

/// The pause after a first failure. It doubles with each further one, until the registry counts as failing.
const RETRY: Duration = Duration::from_secs(1);

/// What a poll read beside the models.
#[derive(Debug, Default)]
pub(super) struct ModelsRead {
    pub(super) server_version: Option<String>,
    /// The models of the chunks that could not be read.
    pub(super) failed: BTreeMap<ModelName, ReasonMessage>,
}

/// Why a poll read nothing.
#[derive(Debug)]
pub(super) struct PollFailure {
    pub(super) cause: ReasonMessage,
    /// Whether the registry was not even asked, so that asking again does not help.
    pub(super) is_certain: bool,
}

/// Whether an error is about what was requested only, and not about the registry, which has just answered.
fn is_about_request(error: &RegistryError) -> bool {
    match error {
        RegistryError::Forbidden { .. }
        | RegistryError::Rejected { .. }
        | RegistryError::ServerFailed { .. }
        | RegistryError::NotARegistry { .. } => true,
        RegistryError::Unreachable { .. }
        | RegistryError::TimedOut { .. }
        | RegistryError::Unauthorized { .. }
        | RegistryError::HostRefused { .. }
        | RegistryError::WorkspaceRefused { .. }
        | RegistryError::RateLimited { .. } => false,
    }
}

/// Whether the server itself failed at a request or refused it, which one of the requested objects may have
/// caused.
fn is_refusal(error: &RegistryError) -> bool {
    is_about_request(error) && !matches!(error, RegistryError::NotARegistry { .. })
}

/// How long to wait for the next poll. Polls of many registries, and of many operators, are spread.
pub(super) fn pause_after(failed_polls: u32, interval: Duration) -> Duration {
    let pause = match failed_polls {
        1..FAILURES => RETRY.saturating_mul(1 << (failed_polls - 1)).min(interval),
        _ => interval,
    };
    spread(pause, 10)
}

/// Returns a pause that is at most so many per cent shorter or longer.
#[must_use]
pub fn spread(pause: Duration, per_cent: u32) -> Duration {
    let width = u64::from(per_cent.min(100)) * 20 + 1;
    let random = u32::try_from(RandomState::new().hash_one(()) % width).unwrap_or_default();
    let share = 1000 - per_cent.min(100) * 10 + random;
    pause.saturating_mul(share) / 1000
}

/// Reads these models, and passes on each chunk. One that fails hides no other.
pub(super) async fn read_models(
    registry: &PolledRegistry,
    watched: &BTreeSet<ModelName>,
    mut chunk_read: impl FnMut(BTreeMap<ModelName, ModelRead>),
) -> Result<ModelsRead, PollFailure> {
    let client = registry.client(Priority::Poll).map_err(|cause| PollFailure { cause, is_certain: true })?;
    let failure =
        |error: &RegistryError| PollFailure { cause: registry.explain(None, error), is_certain: false };
    let known_version = registry.memory().server_version.is_some();
    let mut read = ModelsRead::default();
    if !known_version || watched.is_empty() {
        read.server_version = client.probe().await.map_err(|error| failure(&error))?;
    }
    let names: Vec<&ModelName> = watched.iter().collect();
    let (mut silences, mut is_answered) = (Vec::new(), false);
    for chunk in names.chunks(CHUNK) {
        let chunk: BTreeSet<ModelName> = chunk.iter().map(|name| (*name).clone()).collect();
        // A server that does not answer is not asked for every chunk.
        let answer = match &silences[..] {
            [.., error] if silences.len() >= SILENCES => Err(RegistryError::clone(error)),
            _ => read_chunk(registry, client.as_ref(), &chunk).await,
        };
        match answer {
            Ok(models) => {
                is_answered = true;
                registry.read_ahead(client.as_ref(), &models).await;
                chunk_read(models);
            }
            Err(error) => {
                let cause = registry.explain(None, &error);
                read.failed.extend(chunk.into_iter().map(|name| (name, cause.clone())));
                silences.extend(Some(error).filter(|error| !is_about_request(error)));
            }
        }
    }
    match read.failed.values().next() {
        Some(cause) if !is_answered => Err(PollFailure { cause: cause.clone(), is_certain: false }),
        _ => Ok(read),
    }
}

async fn read_chunk(
    registry: &PolledRegistry,
    client: &dyn Registry,
    chunk: &BTreeSet<ModelName>,
) -> Result<BTreeMap<ModelName, ModelRead>, RegistryError> {
    let begun = registry.begin();
    let mut is_listed = true;
    let (mut read, rest) = match client.models(chunk).await {
        Ok(found) => {
            // Missing from a listing is not absent: the listing is paged by offset, so a concurrent delete
            // hides others.
            let rest: Vec<ModelName> =
                chunk.iter().filter(|name| !found.contains_key(*name)).cloned().collect();
            (found.into_iter().map(|(name, facts)| (name, (begun, Ok(Some(facts))))).collect(), rest)
        }
        Err(error) if is_refusal(&error) => {
            tracing::warn!(registry = %registry.key, %error, "models cannot be listed, reading them one by one");
            is_listed = false;
            (BTreeMap::new(), chunk.iter().cloned().collect())
        }
        Err(error) => return Err(error),
    };
    let reads = stream::iter(rest).map(async |name| {
        let begun = registry.begin();
        let answer = client.model(&name).await;
        (name, begun, answer)
    });
    let mut reads = reads.buffer_unordered(AT_ONCE);
    let mut failed = None;
    while let Some((name, begun, answer)) = reads.next().await {
        let answer = match answer {
            Ok(facts) => Ok(facts),
            Err(error) if is_about_request(&error) => {
                let cause = registry.explain(Some(&name), &error);
                failed = Some(error);
                Err(cause)
            }
            Err(error) => return Err(error),
        };
        read.insert(name, (begun, answer));
    }
    // If they fail together and each alone, the cause is none of them.
    match failed {
        Some(error) if !is_listed && read.values().all(|(_, answer)| answer.is_err()) => Err(error),
        _ => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_failure_is_followed_by_a_poll_soon_and_polls_are_spread() {
        let interval = Duration::from_secs(30);
        let around = |failed, seconds: u64| {
            let pauses: BTreeSet<Duration> = (0..50).map(|_| pause_after(failed, interval)).collect();
            let middle = Duration::from_secs(seconds);
            let is_near = |pause: &Duration| *pause >= middle * 9 / 10 && *pause <= middle * 11 / 10;
            assert!(pauses.len() > 10 && pauses.iter().all(is_near), "{pauses:?}");
        };
        around(0, 30);
        around(1, 1);
        around(2, 2);
        around(3, 30);
        assert!(pause_after(2, RETRY) <= RETRY * 11 / 10, "never later than the next poll");
    }
}
