//! The registry: two aliases, versions, and how it responds. Others may write to it at any time.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::{audit::Reported, rules::Merits, uri, version};
use crate::{
    api::{
        condition::{Reason, ReasonMessage},
        names::{ModelUri, Version},
    },
    decide::{AliasRole, RegistryView, VersionView},
};

/// What the registry holds of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::decide::tests) struct Facts {
    pub(in crate::decide::tests) alias: Option<Version>,
    pub(in crate::decide::tests) previous_alias: Option<Version>,
    pub(in crate::decide::tests) versions: Arc<BTreeMap<Version, ModelUri>>,
    pub(in crate::decide::tests) merits: Merits,
}

impl Facts {
    pub(super) fn named(&mut self, role: AliasRole) -> &mut Option<Version> {
        match role {
            AliasRole::Main => &mut self.alias,
            AliasRole::Previous | AliasRole::Former => &mut self.previous_alias,
        }
    }
}

/// A write in progress. As in the operator, it runs beside the reconciles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) role: AliasRole,
    /// `None` deletes the alias.
    pub(super) version: Option<Version>,
    pub(super) replaces: Option<Version>,
    pub(super) lands: Timestamp,
    /// Whether the operator that began it is still running and learns of its end.
    pub(super) is_heard: bool,
    /// Whether the status that it was written down in is still there.
    pub(super) is_written_down: bool,
}

/// The registry, and what the operator has seen of it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(in crate::decide::tests) struct Registry {
    pub(in crate::decide::tests) truth: Facts,
    /// Why it does not answer, if so.
    pub(in crate::decide::tests) error: Option<Reason>,
    /// Polls return old data.
    pub(in crate::decide::tests) lags: bool,
    /// Writes are slow.
    pub(in crate::decide::tests) is_slow: bool,
    /// Runs cannot be read, everything else can.
    pub(in crate::decide::tests) hides_runs: bool,
    /// Artifacts cannot be read.
    pub(in crate::decide::tests) hides_examples: bool,
    /// Its lists lack the newest version.
    pub(in crate::decide::tests) lists_partly: bool,
    /// The operator has just started and has read nothing yet.
    pub(super) is_unread: bool,
    pub(super) seen: Facts,
    pub(super) writes: Vec<Write>,
    /// The version that an operator let the previous alias name, while it still does, and while the operator
    /// knew of it.
    pub(super) previous_is_ours: Option<Version>,
    /// The audit log in the tags of the versions.
    pub(super) log: BTreeMap<Timestamp, Reported>,
    /// The versions that this operator last set the aliases to.
    pub(super) written: BTreeMap<bool, Version>,
}

/// The key of a role in a map.
pub(super) fn is_main(role: AliasRole) -> bool {
    role == AliasRole::Main
}

impl Registry {
    pub(super) fn new(versions: u32) -> Self {
        let versions: BTreeMap<_, _> = (1..=versions).map(|number| (version(number), uri(number))).collect();
        let versions = Arc::new(versions);
        let facts = Facts { alias: None, previous_alias: None, versions, merits: Merits::default() };
        Self {
            truth: facts.clone(),
            error: None,
            lags: false,
            is_slow: false,
            hides_runs: false,
            hides_examples: false,
            lists_partly: false,
            is_unread: false,
            seen: facts,
            writes: Vec::new(),
            previous_is_ours: None,
            log: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// Why the operator cannot read it now.
    pub(super) fn silence(&self) -> Option<Reason> {
        self.error.or_else(|| self.is_unread.then_some(Reason::RegistryNotRead))
    }

    /// Returns what the operator sees of it and of these versions.
    pub(super) fn view(&self, wanted: impl IntoIterator<Item = Version>) -> RegistryView {
        if let Some(reason) = self.silence() {
            let error = ReasonMessage::new(reason, "the registry does not respond properly");
            return RegistryView { error: Some(error), ..RegistryView::default() };
        }
        let facts = &self.seen;
        let text = |version: Version| match facts.versions.get(&version) {
            Some(model_uri) => {
                VersionView::Ready { model_uri: model_uri.clone(), was_live: self.was_live(version) }
            }
            None => VersionView::Absent,
        };
        RegistryView {
            error: None,
            alias: facts.alias,
            previous_alias: facts.previous_alias,
            versions: wanted.into_iter().map(|version| (version, text(version))).collect(),
            written: self.written.get(&true).copied(),
            previous_written: self.written.get(&false).copied(),
            writing: self.writes.iter().filter(|write| write.is_heard).map(|write| write.role).collect(),
            ..RegistryView::default()
        }
    }

    /// Whether the log shows that a version was live.
    pub(super) fn was_live(&self, version: Version) -> bool {
        self.log.values().any(|reported| reported.version == version && reported.has_served)
    }

    /// The status is lost, so nobody knows any more what an operator wrote.
    pub(super) fn forget_status(&mut self) {
        self.previous_is_ours = None;
        for write in &mut self.writes {
            write.is_written_down = false;
        }
    }

    /// The next poll.
    pub(super) fn poll(&mut self) {
        if !self.lags && self.error.is_none() {
            self.seen.clone_from(&self.truth);
            self.is_unread = false;
        }
    }

    /// Whether the operator knows of a write of the alias that is running.
    pub(in crate::decide::tests) fn is_writing(&self, role: AliasRole) -> bool {
        self.writes.iter().any(|write| write.role == role && write.is_heard)
    }

    /// Completes due writes, unless the alias has moved since they were decided.
    pub(super) fn land(&mut self, now: Timestamp) {
        let (due, running) =
            std::mem::take(&mut self.writes).into_iter().partition(|write| write.lands <= now);
        self.writes = running;
        for write in Vec::from_iter::<Vec<Write>>(due) {
            self.land_one(&write);
        }
    }

    fn land_one(&mut self, write: &Write) {
        if self.error.is_some() {
            return;
        }
        let is_possible = write.version.is_none_or(|version| self.truth.versions.contains_key(&version));
        if *self.truth.named(write.role) != write.replaces {
            if write.is_heard {
                self.seen.clone_from(&self.truth);
            }
        } else if is_possible {
            *self.truth.named(write.role) = write.version;
            if write.role != AliasRole::Main {
                self.previous_is_ours = write.version.filter(|_| write.is_heard && write.is_written_down);
            }
            if write.is_heard {
                *self.seen.named(write.role) = write.version;
                match write.version {
                    Some(version) => drop(self.written.insert(is_main(write.role), version)),
                    None => drop(self.written.remove(&is_main(write.role))),
                }
            }
        }
    }

    /// A new operator knows only what it reads; a write in progress continues.
    pub(super) fn forget(&mut self) {
        self.written.clear();
        self.is_unread = true;
        self.seen.clone_from(&self.truth);
        for mut write in std::mem::take(&mut self.writes) {
            write.is_heard = false;
            // The same write twice has no further effect.
            if !self.writes.contains(&write) {
                self.writes.push(write);
            }
        }
    }
}
