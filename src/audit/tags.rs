//! One entry of the history as tags.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{
    condition::{CONTAINER_OUTPUT, shortened},
    model_alias::{Approval, Cause, HistoryEntry, Outcome},
    model_experiment::VERDICT_TAG,
    names::{AliasName, Version},
};

/// The prefix of all tags of the audit log.
const AUDIT: &str = "laurel.";

/// The prefix of the key of every log entry.
pub(super) const LOG: &str = "laurel.log.";

const PROMOTED_AT: &str = "laurel.promoted_at";
const PROMOTED_AS: &str = "laurel.promoted_as";
const PROMOTED_BY: &str = "laurel.promoted_by";
const PROMOTED_FROM: &str = "laurel.promoted_from";
const REJECTED: &str = "laurel.rejected";
const REJECTED_AT: &str = "laurel.rejected_at";
const ROLLED_BACK_AT: &str = "laurel.rolled_back_at";

/// Whether a tag belongs to the audit log: an entry of it, or one of the latest facts for people.
#[must_use]
pub fn is_log_tag(key: &str) -> bool {
    let facts = [PROMOTED_AT, PROMOTED_AS, PROMOTED_BY, PROMOTED_FROM, REJECTED, REJECTED_AT, ROLLED_BACK_AT];
    key.starts_with(LOG) || facts.contains(&key)
}

/// MLflow accepts keys of at most 250 characters, and an alias may have 255; the value contains it in full.
const ALIAS_MAX: usize = 160;
/// MLflow before 3 accepts values of at most 5000 characters.
const WHO_MAX: usize = 300;

/// One log entry, the value of its tag: a small JSON object. Fields of later releases are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// The alias.
    pub alias: AliasName,
    /// The outcome for the version.
    pub outcome: Outcome,
    /// Time of the event.
    pub at: Timestamp,
    /// The version that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
    /// What requested it.
    pub cause: Cause,
    /// Who requested it.
    pub requested_by: String,
    /// The Git commit that requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Who approved it in which step of its canary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// Time since the version's start, for instance `41s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// The reason of a rejection, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The message of a rejection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The ModelAlias, as `namespace/name`.
    pub model_alias: String,
}

impl LogEntry {
    /// Creates the log entry for an entry of this ModelAlias's history.
    #[must_use]
    pub fn new(alias: &AliasName, model_alias: &str, entry: &HistoryEntry) -> Self {
        let duration = entry.duration.map(|duration| serde_json::to_value(duration).unwrap_or_default());
        Self {
            alias: alias.clone(),
            outcome: entry.outcome,
            at: entry.at,
            from: entry.from,
            cause: entry.cause,
            requested_by: shortened(&entry.requested_by, WHO_MAX),
            commit: entry.commit.as_ref().map(|commit| shortened(commit, WHO_MAX)),
            approvals: entry.approvals.clone(),
            duration: duration.and_then(|duration| duration.as_str().map(str::to_owned)),
            reason: entry.reason.map(|reason| reason.to_string()),
            message: entry.message.as_ref().map(|message| in_public(message, model_alias)),
            model_alias: model_alias.to_owned(),
        }
    }

    /// Returns the key of its tag.
    #[must_use]
    pub fn key(&self) -> String {
        let outcome: &str = self.outcome.into();
        // Not every MLflow server accepts a colon in a key.
        let at = self.at.to_string().replace(':', "");
        format!("{LOG}{}.{at}.{outcome}", shortened_plainly(self.alias.as_str(), ALIAS_MAX))
    }

    /// Returns who requested it, in one line.
    #[must_use]
    pub fn who(&self) -> String {
        match &self.commit {
            Some(commit) => format!("{}, commit {commit}", self.requested_by),
            None => self.requested_by.clone(),
        }
    }

    /// Whether the version had pods that took traffic. Where only the alias is kept, nothing is ever started
    /// or rolled back.
    fn has_served(&self) -> bool {
        match self.outcome {
            Outcome::Promoted => self.duration.is_some(),
            Outcome::RolledBack => true,
            Outcome::Rejected | Outcome::Unknown => false,
        }
    }

    fn took_traffic(&self) -> bool {
        matches!(self.outcome, Outcome::Promoted | Outcome::RolledBack)
    }
}

/// Returns a message without what a container wrote. Registries have other readers than namespaces, and a log
/// may hold anything.
fn in_public(message: &str, model_alias: &str) -> String {
    let quotation = |marker: &&str| {
        let marked = message.find(marker)?;
        Some(marked + message.get(marked..)?.find(": ")? + ": ".len())
    };
    match CONTAINER_OUTPUT.iter().filter_map(quotation).min() {
        None => message.to_owned(),
        Some(end) => format!("{}(see the status of the ModelAlias {model_alias})", &message[..end]),
    }
}

/// Returns the first `max` characters, without an ellipsis, which is not valid in a key.
fn shortened_plainly(text: &str, max: usize) -> &str {
    text.char_indices().nth(max).map_or(text, |(end, _)| &text[..end])
}

/// A change to one tag of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Set it.
    Set(String, String),
    /// Remove it.
    Remove(String),
}

/// The tags of a version.
type Tags = BTreeMap<String, String>;

/// Whether a tag belongs to the audit log. The verdict of an experiment does not: it says something about the
/// version.
#[must_use]
pub fn is_audit_tag(key: &str) -> bool {
    key.starts_with(AUDIT) && !key.starts_with(VERDICT_TAG)
}

/// Whether the log already has this entry.
#[must_use]
pub fn is_logged(entry: &LogEntry, tags: &Tags) -> bool {
    tags.contains_key(&entry.key())
}

/// Whether the log shows that the version served under this alias, and not only that it had the alias.
#[must_use]
pub fn was_live(alias: &AliasName, tags: &Tags) -> bool {
    let lines = tags.iter().filter(|(key, _)| key.starts_with(LOG));
    let entries = lines.filter_map(|(_, line)| serde_json::from_str::<LogEntry>(line).ok());
    entries.into_iter().any(|entry| entry.alias == *alias && entry.has_served())
}

/// Returns the changes that write an entry to the tags of its version. The log entry comes last: if it
/// exists, all other changes were made.
#[must_use]
pub fn of_version(entry: &LogEntry, tags: &Tags) -> Vec<Change> {
    let alias = entry.alias.as_str();
    let mut facts = Facts { tags, changes: Vec::new() };
    if entry.took_traffic() && facts.is_newer_than(PROMOTED_AT, entry.at) {
        facts.set(PROMOTED_AS, alias);
        facts.set(PROMOTED_BY, &entry.who());
        match entry.from {
            Some(from) => facts.set(PROMOTED_FROM, &from.to_string()),
            None => facts.remove(PROMOTED_FROM),
        }
        facts.set(PROMOTED_AT, &entry.at.to_string());
        // These tags are not true any more; the log keeps them.
        if facts.is_newer_than(ROLLED_BACK_AT, entry.at) {
            facts.remove(ROLLED_BACK_AT);
        }
        let was_rejected = tags.get(REJECTED).is_some_and(|why| why.starts_with(&format!("{alias}: ")));
        if was_rejected && facts.is_newer_than(REJECTED_AT, entry.at) {
            facts.remove(REJECTED_AT);
            facts.remove(REJECTED);
        }
    }
    if entry.outcome == Outcome::Rejected && facts.is_newer_than(REJECTED_AT, entry.at) {
        let reason = entry.reason.as_deref().unwrap_or("Unknown");
        let message = entry.message.as_deref().unwrap_or_default();
        facts.set(REJECTED, &format!("{alias}: {reason}: {message}"));
        facts.set(REJECTED_AT, &entry.at.to_string());
    }
    if !is_logged(entry, tags) {
        let line = serde_json::to_string(entry).unwrap_or_default();
        facts.changes.push(Change::Set(entry.key(), line));
    }
    facts.changes
}

/// Returns the changes that mark the previous version as rolled back.
#[must_use]
pub fn of_version_before(entry: &LogEntry, tags: &Tags) -> Vec<Change> {
    let mut facts = Facts { tags, changes: Vec::new() };
    if entry.outcome == Outcome::RolledBack
        && facts.is_newer_than(ROLLED_BACK_AT, entry.at)
        && facts.is_newer_than(PROMOTED_AT, entry.at)
    {
        facts.set(ROLLED_BACK_AT, &entry.at.to_string());
    }
    facts.changes
}

/// The tags with the latest facts, for people.
struct Facts<'a> {
    tags: &'a Tags,
    changes: Vec<Change>,
}

impl Facts<'_> {
    /// Whether an event at this time is newer than the tag. A late event never replaces newer facts.
    fn is_newer_than(&self, key: &str, at: Timestamp) -> bool {
        let known = self.tags.get(key).and_then(|known| known.parse::<Timestamp>().ok());
        known.is_none_or(|known| known <= at)
    }

    fn set(&mut self, key: &str, value: &str) {
        if self.tags.get(key).map(String::as_str) != Some(value) {
            self.changes.push(Change::Set(key.to_owned(), value.to_owned()));
        }
    }

    fn remove(&mut self, key: &str) {
        if self.tags.contains_key(key) {
            self.changes.push(Change::Remove(key.to_owned()));
        }
    }
}
