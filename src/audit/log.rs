//! The audit log, read back from the tags of all versions.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Serialize;

use super::{LogEntry, tags::LOG};
use crate::{
    api::{
        model_alias::Outcome,
        names::{AliasName, Version},
    },
    registry::VersionFacts,
};

/// One entry of the log, with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The version.
    pub version: Version,
    /// The event.
    #[serde(flatten)]
    pub entry: LogEntry,
    /// When another version replaced it; `None` while it is live, and for a rejected version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Line {
    /// Whether the version got the traffic.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.entry.outcome, Outcome::Promoted | Outcome::RolledBack)
    }
}

/// The audit log of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Log {
    /// The entries, newest first.
    pub entries: Vec<Line>,
    /// Number of tags that look like entries but cannot be parsed.
    pub unreadable: usize,
}

/// A point in time, or a whole day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its start.
    pub from: Timestamp,
    /// Its end; equal to the start for a point in time.
    pub to: Timestamp,
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self { from: at, to: at });
        }
        let day = || {
            let day: Date = text.parse().ok()?;
            let from = day.to_zoned(TimeZone::UTC).ok()?.timestamp();
            let to = day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
            // A day ends just before the next one begins.
            Some(Self { from, to: to.checked_sub(jiff::SignedDuration::from_nanos(1)).ok()? })
        };
        // A date with a time but no zone parses as a date alone, which might mean a different day than
        // intended.
        let day = (text.len() == "2026-11-22".len()).then(day).flatten();
        day.ok_or_else(|| {
            "neither a day (2026-11-22, in UTC) nor a time with a zone (2026-11-22T14:00:00Z)".to_owned()
        })
    }
}

impl Log {
    /// Reads the log from the tags of a model's versions.
    #[must_use]
    pub fn of(versions: &[VersionFacts]) -> Self {
        let mut log = Self::default();
        for facts in versions {
            for (_, value) in facts.tags.iter().filter(|(key, _)| key.starts_with(LOG)) {
                match serde_json::from_str(value) {
                    Ok(entry) => log.entries.push(Line { version: facts.version, entry, until: None }),
                    Err(_) => log.unreadable += 1,
                }
            }
        }
        log.entries.sort_by(|one, other| {
            let key = |line: &Line| (line.entry.at, line.entry.alias.to_string(), line.version);
            key(other).cmp(&key(one))
        });
        let mut replaced: BTreeMap<AliasName, Timestamp> = BTreeMap::new();
        for line in log.entries.iter_mut().filter(|line| line.is_live()) {
            line.until = replaced.insert(line.entry.alias.clone(), line.entry.at);
        }
        log
    }

    /// Keeps only the entries about an alias.
    #[must_use]
    pub fn about(mut self, alias: &AliasName) -> Self {
        self.entries.retain(|line| line.entry.alias == *alias);
        self
    }

    /// Keeps only the versions that were live at that time.
    #[must_use]
    pub fn live_at(mut self, span: Span) -> Self {
        self.entries.retain(|line| {
            line.is_live() && line.entry.at <= span.to && line.until.is_none_or(|until| until > span.from)
        });
        self
    }
}
