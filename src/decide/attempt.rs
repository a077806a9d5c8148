//! One attempt at a version, and its smoke test: plain data.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::names::Version;

/// Identifies one attempt at a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// When its Deployment was last started or updated to new settings.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// The fingerprint of the settings of its pods.
    #[serde(default)]
    pub settings: String,
    /// The value of the retry annotation that applies.
    #[serde(default)]
    pub retry: Option<String>,
    /// When the version was last rejected.
    #[serde(default)]
    pub rejected_at: Option<Timestamp>,
}

/// A version's smoke test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeTest {
    /// The attempt that it belongs to.
    #[serde(default)]
    pub attempt: Attempt,
    /// Its state.
    pub report: SmokeReport,
}

/// The state of a smoke test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SmokeReport {
    /// It is running; the last error, if any.
    Running(Option<String>),
    /// It cannot run at present, which proves nothing about the version. It is retried.
    Unavailable {
        /// When this was first found.
        since: Timestamp,
        /// The cause and the next step.
        why: String,
    },
    /// The pod answered with 2xx.
    Passed,
    /// The model has no input example.
    NoInputExample,
    /// The example is not sent; the cause.
    Skipped(String),
    /// The pod answered with an error; its description.
    Failed(String),
}

/// The smoke test of one ModelAlias. There is one at a time, of the version that is about to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmokeTestSlot(Option<(Version, SmokeTest)>);

impl SmokeTestSlot {
    /// Begins a test and drops any other. Returns false if this one exists already.
    pub fn begin(&mut self, version: Version, attempt: &Attempt) -> bool {
        let is_known = self.holds(version, attempt);
        if !is_known {
            let test = SmokeTest { attempt: attempt.clone(), report: SmokeReport::Running(None) };
            self.0 = Some((version, test));
        }
        !is_known
    }

    /// Drops the test unless it is the desired one. Returns true if it was dropped.
    pub fn keep_only(&mut self, wanted: Option<&(Version, Attempt)>) -> bool {
        let is_needed = wanted.is_some_and(|(version, attempt)| self.holds(*version, attempt));
        !is_needed && self.0.take().is_some()
    }

    /// Stores a test's report. Returns true if it changed anything; a report of another attempt does not.
    pub fn update(&mut self, version: Version, attempt: &Attempt, report: SmokeReport) -> bool {
        let Some((_, test)) = self.0.as_mut().filter(|(known, test)| is_of(*known, test, version, attempt))
        else {
            return false;
        };
        let is_new = test.report != report;
        test.report = report;
        is_new
    }

    /// Returns the version's test.
    #[must_use]
    pub fn of(&self, version: Version) -> Option<&SmokeTest> {
        self.0.as_ref().filter(|(known, _)| *known == version).map(|(_, test)| test)
    }

    /// Returns the test with its version.
    #[must_use]
    pub fn get(&self) -> Option<&(Version, SmokeTest)> {
        self.0.as_ref()
    }

    /// Whether this is the test it holds.
    #[must_use]
    pub fn holds(&self, version: Version, attempt: &Attempt) -> bool {
        self.0.as_ref().is_some_and(|(known, test)| is_of(*known, test, version, attempt))
    }
}

fn is_of(known: Version, test: &SmokeTest, version: Version, attempt: &Attempt) -> bool {
    known == version && test.attempt == *attempt
}
