//! The story: lines printed as they happen, and kept to be listed again around a loss.

use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A time and what happened then.
pub(super) type Line = (Instant, String);

/// The lines of the story, and its start.
pub(super) struct Story {
    began: Instant,
    clock: Timestamp,
    lines: Mutex<Vec<Line>>,
}

impl Story {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), clock: Timestamp::now(), lines: Mutex::default() }
    }

    /// Adds and prints a line.
    pub(super) fn log(&self, line: impl Into<String>) {
        let (now, line) = (Instant::now(), line.into());
        println!("{} {line}", self.when(now));
        self.lines.lock().push((now, line));
    }

    /// Formats a time as seconds since the start, and as the time of day to find it in logs.
    pub(super) fn when(&self, moment: Instant) -> String {
        let since = moment.saturating_duration_since(self.began);
        let clock = self.clock.checked_add(since).unwrap_or(self.clock);
        format!("{:8.3} s {}", since.as_secs_f64(), clock.strftime("%H:%M:%S"))
    }

    /// Returns the lines of `others` and of the story from a few seconds before `from` to a few after `to`.
    pub(super) fn around(&self, (from, to): (Instant, Instant), others: Vec<Line>) -> String {
        const MARGIN: Duration = Duration::from_secs(10);
        let mut lines = self.lines.lock().clone();
        lines.extend(others);
        lines.retain(|(at, _)| *at + MARGIN >= from && *at <= to + MARGIN);
        lines.sort_by_key(|(at, _)| *at);
        let lines: Vec<String> =
            lines.into_iter().map(|(at, line)| format!("{} {line}", self.when(at))).collect();
        lines.join("\n")
    }
}
