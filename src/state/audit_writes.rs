//! Audit writes: history entries are written to the tags of versions beside the reconciles, so neither
//! traffic nor the alias waits. The end of a write wakes the ModelAlias, and the next reconcile updates the
//! status.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use super::Effect;
use crate::{
    api::{
        ModelAliasStatus,
        condition::ReasonMessage,
        model_alias::{AliasKey, HistoryEntry, Outcome, Recorded},
        names::{ModelUri, Version},
    },
    audit::{Change, LogEntry, is_logged, of_version, of_version_before},
    cluster::Requeue,
    decide::{Observed, Outbox},
    registry::{Registry, limiter::Priority},
    resolve::{Model, Subject},
};

/// The pause after a failed write; doubled by each further failure, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// Audit writes, by the ModelAlias's UID. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditWrites {
    requeue: Requeue,
    states: Arc<Mutex<HashMap<String, AuditState>>>,
}

#[derive(Debug, Default)]
struct AuditState {
    running: bool,
    /// Results that are not in the status yet.
    settled: BTreeMap<Timestamp, Recorded>,
    failure: Option<FailedAudit>,
}

/// Why the last attempt failed.
#[derive(Debug)]
struct FailedAudit {
    cause: ReasonMessage,
    tries: u32,
    due: Instant,
}

/// One write.
struct AuditWrite {
    uid: String,
    owner: AliasKey,
    model: Model,
    version: Version,
    /// The model that the version's pods loaded. A number that refers to another model by now is not the one
    /// that was live.
    model_uri: Option<ModelUri>,
    entry: LogEntry,
    writes: AuditWrites,
}

impl AuditWrites {
    /// Creates an empty set.
    #[must_use]
    pub fn new(requeue: Requeue) -> Self {
        Self { requeue, states: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, AuditState>> {
        self.states.lock()
    }

    /// Returns the results for entries that are pending in the status.
    #[must_use]
    pub fn outbox(&self, uid: &str, known: &ModelAliasStatus) -> Outbox {
        let mut states = self.lock();
        let Some(state) = states.get_mut(uid) else { return Outbox::default() };
        let is_pending = |at: &Timestamp| {
            known.history.iter().any(|entry| entry.at == *at && entry.recorded == Recorded::Pending)
        };
        state.settled.retain(|at, _| is_pending(at));
        let error = state.failure.as_ref().map(|failure| failure.cause.clone());
        Outbox { settled: state.settled.clone(), error }
    }

    /// Begins the write of an entry, unless one is running or the last one failed a moment ago.
    pub(crate) fn start(
        &self,
        subject: &Subject<'_>,
        model: &Model,
        observed: &Observed,
        at: Timestamp,
    ) -> Effect {
        let find = |entry: &&HistoryEntry| entry.at == at;
        let Some(entry) = observed.status.history.iter().find(find) else { return Effect::UnderWay };
        let uid = subject.uid.clone();
        {
            let mut states = self.lock();
            let state = states.entry(uid.clone()).or_default();
            let is_too_early = state.failure.as_ref().is_some_and(|failure| Instant::now() < failure.due);
            if state.running || is_too_early {
                return Effect::UnderWay;
            }
            state.running = true;
        }
        let owner = subject.key.clone();
        let model_alias = format!("{}/{}", owner.0, owner.1);
        let write = AuditWrite {
            uid,
            owner,
            model: model.clone(),
            version: entry.version,
            model_uri: observed.remembered(entry.version).and_then(|held| held.model_uri.clone()),
            entry: LogEntry::new(&subject.spec().alias, &model_alias, entry),
            writes: self.clone(),
        };
        tokio::spawn(write.run());
        Effect::Begun
    }

    /// Forgets the writes of a ModelAlias that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }
}

impl AuditWrite {
    async fn run(self) {
        let ended = self.once().await;
        let (model, version) = (self.model.name.as_str(), self.version);
        {
            let mut states = self.writes.lock();
            // A ModelAlias that was forgotten in the meantime is not added again.
            let Some(state) = states.get_mut(&self.uid) else { return };
            state.running = false;
            match ended {
                Ok(recorded) => {
                    tracing::info!(model, %version, ?recorded, "audit log written to the version's tags");
                    state.settled.insert(self.entry.at, recorded);
                    state.failure = None;
                }
                Err(cause) => {
                    tracing::warn!(model, %version, reason = %cause.reason, message = cause.message, "audit \
                         log not written to the version's tags");
                    let tries = state.failure.take().map_or(0, |failure| failure.tries);
                    let pause = PAUSE.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX);
                    state.failure =
                        Some(FailedAudit { cause, tries: tries + 1, due: Instant::now() + pause });
                }
            }
        }
        self.writes.requeue.alias(&self.owner);
    }

    async fn once(&self) -> Result<Recorded, ReasonMessage> {
        let client = self.model.registry.client(Priority::Display)?;
        if !client.capabilities().tags {
            return Ok(Recorded::Impossible);
        }
        let name = &self.model.name;
        let reported = |error| self.model.registry.explain(Some(name), &error);
        let Some(facts) = client.version(name, self.version).await.map_err(reported)? else {
            return Ok(Recorded::Impossible);
        };
        if self.model_uri.as_ref().is_some_and(|loaded| *loaded != facts.model_uri) {
            return Ok(Recorded::Impossible);
        }
        if is_logged(&self.entry, &facts.tags) {
            return Ok(Recorded::Written);
        }
        // Only a rollback says something about the version of before.
        if let Some(from) = self.entry.from.filter(|_| self.entry.outcome == Outcome::RolledBack)
            && let Some(before) = client.version(name, from).await.map_err(reported)?
        {
            self.change(client.as_ref(), from, of_version_before(&self.entry, &before.tags)).await?;
        }
        self.change(client.as_ref(), self.version, of_version(&self.entry, &facts.tags)).await?;
        Ok(Recorded::Written)
    }

    async fn change(
        &self,
        client: &dyn Registry,
        version: Version,
        changes: Vec<Change>,
    ) -> Result<(), ReasonMessage> {
        let name = &self.model.name;
        for change in changes {
            let done = match &change {
                Change::Set(key, value) => client.set_version_tag(name, version, key, value).await,
                Change::Remove(key) => client.delete_version_tag(name, version, key).await,
            };
            done.map_err(|error| self.model.registry.explain(Some(name), &error))?;
        }
        Ok(())
    }
}
