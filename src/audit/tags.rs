//! One entry of the history as tags.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{
    condition::shortened,
    model_alias::{Cause, HistoryEntry, Outcome},
    names::{AliasName, Version},
};

/// What the key of every line of the log begins with.
pub(super) const LOG: &str = "laurel.log.";

const PROMOTED_AT: &str = "laurel.promoted_at";
const PROMOTED_AS: &str = "laurel.promoted_as";
const PROMOTED_BY: &str = "laurel.promoted_by";
const PROMOTED_FROM: &str = "laurel.promoted_from";
const REJECTED: &str = "laurel.rejected";
const REJECTED_AT: &str = "laurel.rejected_at";
const ROLLED_BACK_AT: &str = "laurel.rolled_back_at";

/// `MLflow` takes keys of at most 250 characters, and an alias may have 255; the value says it in full.
const ALIAS_MAX: usize = 160;
/// `MLflow` before 3 takes values of at most 5000 characters.
const WHO_MAX: usize = 300;

/// One line of the log, the value of its tag: small JSON. What a later release adds is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// The alias.
    pub alias: AliasName,
    /// What happened to the version.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// The version that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Version>,
    /// What asked for it.
    pub cause: Cause,
    /// Who asked for it.
    pub requested_by: String,
    /// The Git commit that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// How long it took from the version's start, for instance `41s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Why it was rejected, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it was rejected, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The `ModelAlias`, as `namespace/name`.
    pub model_alias: String,
}

impl LogEntry {
    /// What the log says of an entry of the history of this `ModelAlias`.
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
            duration: duration.and_then(|duration| duration.as_str().map(str::to_owned)),
            reason: entry.reason.map(|reason| reason.to_string()),
            message: entry.message.clone(),
            model_alias: model_alias.to_owned(),
        }
    }

    /// The key of its tag.
    #[must_use]
    pub fn key(&self) -> String {
        let outcome: &str = self.outcome.into();
        // Not every MLflow server takes a colon in a key.
        let at = self.at.to_string().replace(':', "");
        format!("{LOG}{}.{at}.{outcome}", shortened_plainly(self.alias.as_str(), ALIAS_MAX))
    }

    /// Who asked for it, in one line.
    #[must_use]
    pub fn who(&self) -> String {
        match &self.commit {
            Some(commit) => format!("{}, commit {commit}", self.requested_by),
            None => self.requested_by.clone(),
        }
    }

    /// Whether the version had pods that took traffic. Where only the alias is kept, nothing is ever started or rolled back.
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

/// The first `max` characters; without an ellipsis, which no key may have.
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

/// The tags that a version has.
type Tags = BTreeMap<String, String>;

/// Whether the log has this entry already.
#[must_use]
pub fn is_logged(entry: &LogEntry, tags: &Tags) -> bool {
    tags.contains_key(&entry.key())
}

/// Whether the log says that the version has served under this alias: not only that the alias named it.
#[must_use]
pub fn was_live(alias: &AliasName, tags: &Tags) -> bool {
    let lines = tags.iter().filter(|(key, _)| key.starts_with(LOG));
    let entries = lines.filter_map(|(_, line)| serde_json::from_str::<LogEntry>(line).ok());
    entries.into_iter().any(|entry| entry.alias == *alias && entry.has_served())
}

/// The changes that write an entry into the tags of its version. The line of the log comes last: where it stands, all the rest
/// was done.
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
        // What was said of the version before is not so any more; the log keeps it.
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

/// The changes that say on the version before that traffic went back from it.
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

/// The latest facts, for a person.
struct Facts<'a> {
    tags: &'a Tags,
    changes: Vec<Change>,
}

impl Facts<'_> {
    /// Whether what happened at this time is newer than what the tags say. What is late never takes the place of newer facts.
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
