//! The audit log in the registry: one entry for every change and failed attempt, none twice.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::World;
use crate::{
    api::{
        model_alias::{HistoryEntry, Outcome, Recorded},
        names::Version,
    },
    decide::{Lifecycle, Observed, Outbox},
};

/// A history entry of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reported {
    pub(super) version: Version,
    outcome: Outcome,
    /// Whether pods were started for it, or it had served before: more than the alias named it.
    pub(super) has_served: bool,
}

impl Reported {
    fn of(entry: &HistoryEntry) -> Self {
        let has_served = match entry.outcome {
            Outcome::Promoted => entry.duration.is_some(),
            Outcome::RolledBack => true,
            Outcome::Rejected | Outcome::Unknown => false,
        };
        Self { version: entry.version, outcome: entry.outcome, has_served }
    }
}

impl World {
    /// What the operator knows of its writes beyond the status.
    pub(super) fn outbox(&self) -> Outbox {
        let pending = self.pending();
        let settled = self.operator.settled.iter().filter(|(at, _)| pending.contains_key(at));
        Outbox { settled: settled.map(|(at, recorded)| (*at, *recorded)).collect(), error: None }
    }

    /// Returns the entries that are pending in the status.
    fn pending(&self) -> BTreeMap<Timestamp, Reported> {
        let pending = self.status.history.iter().filter(|entry| entry.recorded == Recorded::Pending);
        pending.map(|entry| (entry.at, Reported::of(entry))).collect()
    }

    /// After a write of the status: its entries have to reach the registry eventually, except those that
    /// cannot be written.
    pub(super) fn remember_told(&mut self) {
        for entry in &self.status.history {
            match entry.recorded {
                Recorded::Pending => {
                    let reported = Reported::of(entry);
                    self.reported.entry(entry.at).or_insert(reported);
                }
                Recorded::Impossible => drop(self.reported.remove(&entry.at)),
                Recorded::Written | Recorded::Unknown => {}
            }
        }
    }

    /// The status is lost, and with it its pending entries.
    pub(super) fn forget_pending(&mut self) {
        for at in self.pending().into_keys().filter(|at| !self.registry.log.contains_key(at)) {
            self.reported.remove(&at);
        }
    }

    /// One audit write. It comes after traffic and the alias, and its entry is in the status.
    pub(super) fn write_audit(&mut self, version: Version, at: Timestamp, observed: &Observed) {
        self.promise(self.registry.silence().is_none(), |_| "no write to an unreachable registry".into());
        let reported =
            observed.status.history.iter().find(|entry| entry.at == at && entry.version == version);
        let reported = reported.map(Reported::of);
        self.promise(reported.is_some(), |_| format!("the status has no entry for version {version}"));
        let Some(reported) = reported else { return };
        let loaded = observed.remembered(version).and_then(|held| held.model_uri.as_ref());
        let exists = match self.registry.truth.versions.get(&version) {
            Some(registered) => loaded.is_none_or(|loaded| loaded == registered),
            None => false,
        };
        if exists {
            let before = self.registry.log.insert(at, reported);
            self.promise(before.is_none_or(|before| before == reported), |_| {
                "a log entry never changes".into()
            });
        }
        let recorded = if exists { Recorded::Written } else { Recorded::Impossible };
        self.operator.settled.insert(at, recorded);
    }

    /// At rest, with a registry that answers: the log has every reported entry once, and no other.
    pub(super) fn recorded_at_rest(&self) -> Result<(), String> {
        let is_free = self.intent.lifecycle == Lifecycle::Active && self.intent.blocker.is_none();
        let mut reported = self.reported.clone();
        // An entry of the same second may be the one that was written before, and went with the model.
        reported.retain(|at, _| self.registry.log.contains_key(at) || Some(*at) != self.model_recreated_at);
        if !is_free || self.registry.error.is_some() {
            let log = &self.registry.log;
            reported.retain(|at, _| log.contains_key(at));
        } else if !self.pending().is_empty() {
            return Err(format!("not yet in the registry: {:?}", self.pending()));
        }
        let log = &self.registry.log;
        (reported == *log).then_some(()).ok_or_else(|| format!("the log has {log:?} instead of {reported:?}"))
    }
}
