//! What happened when: printed as it happens, and kept to be listed again around a loss.

use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A moment and what happened then.
pub(super) type Line = (Instant, String);

/// The lines of the story, and what time is counted from.
pub(super) struct Story {
    began: Instant,
    clock: Timestamp,
    lines: Mutex<Vec<Line>>,
}

impl Story {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), clock: Timestamp::now(), lines: Mutex::default() }
    }

    /// Something that happens now.
    pub(super) fn log(&self, line: impl Into<String>) {
        let (now, line) = (Instant::now(), line.into());
        println!("{} {line}", self.when(now));
        self.lines.lock().push((now, line));
    }

    /// Seconds since the beginning, and the time of day, to be found in logs.
    pub(super) fn when(&self, moment: Instant) -> String {
        let since = moment.saturating_duration_since(self.began);
        let clock = self.clock.checked_add(since).unwrap_or(self.clock);
        format!("{:8.3} s {}", since.as_secs_f64(), clock.strftime("%H:%M:%S"))
    }

    /// The lines of `others` and the story's own from some seconds before `from` until some after `to`.
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
