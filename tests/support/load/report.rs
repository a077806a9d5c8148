//! Outcomes of requests, and statistics about them.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::time::Instant;

/// How a request is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Connection {
    /// Over a new TCP connection.
    Fresh,
    /// Over a kept connection, if the server left it open.
    KeepAlive,
}

/// Why a request counts as lost: anything that a caller without retries would see as an error. A server that
/// closes an idle connection before a request is written to it loses nothing; see `Client::answer`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// A status other than 2xx.
    Status(u16),
    /// The connection was refused.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed after the request was written and before its response was complete.
    Closed,
    /// No complete response in time.
    Timeout,
    /// Any other error.
    Other(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::Closed => f.write_str("closed before the answer"),
            Self::Timeout => f.write_str("timeout"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With 2xx, by the version that the response names.
    Answered {
        /// The version, if the response names one.
        version: Option<String>,
    },
    /// Not with 2xx.
    Lost(Loss),
    /// This client could not send it in time: a gap in the measurement, not a loss.
    NotSent,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// When it was due. Latency counts from here, so that a client that falls behind hides nothing.
    pub(crate) due: Instant,
    /// When its response was complete, or its loss known.
    pub(crate) ended: Instant,
    /// How it was connected.
    pub(crate) connection: Connection,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

impl Sample {
    /// Whether it was answered with 2xx.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered { .. })
    }

    /// Returns the version that answered, if the response names one.
    pub(crate) fn version(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Answered { version } => version.as_deref(),
            _ => None,
        }
    }
}

/// Samples, and statistics about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    samples: Vec<Sample>,
}

impl Report {
    pub(crate) fn new(samples: Vec<Sample>) -> Self {
        Self { samples }
    }

    /// Merges several reports.
    pub(crate) fn of_all(reports: impl IntoIterator<Item = Self>) -> Self {
        Self::new(reports.into_iter().flat_map(|report| report.samples).collect())
    }

    /// Every request.
    pub(crate) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Returns the samples that match `keep`.
    pub(crate) fn only(&self, keep: impl Fn(&Sample) -> bool) -> Self {
        Self::new(self.samples.iter().filter(|sample| keep(sample)).cloned().collect())
    }

    /// Returns the requests that were due in a span of time.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Self {
        self.only(|sample| from <= sample.due && sample.due < to)
    }

    /// Returns the requests with one kind of connection.
    pub(crate) fn over(&self, connection: Connection) -> Self {
        self.only(|sample| sample.connection == connection)
    }

    /// How many requests were sent.
    pub(crate) fn sent(&self) -> usize {
        self.samples.len() - self.not_sent()
    }

    /// Returns how many requests could not be sent in time.
    pub(crate) fn not_sent(&self) -> usize {
        self.samples.iter().filter(|sample| sample.outcome == Outcome::NotSent).count()
    }

    /// Returns how many requests were answered with 2xx, by version; `?` if the response names none.
    pub(crate) fn answered(&self) -> BTreeMap<String, usize> {
        let mut answered = BTreeMap::new();
        for sample in &self.samples {
            if let Outcome::Answered { version } = &sample.outcome {
                *answered.entry(version.clone().unwrap_or_else(|| "?".to_owned())).or_default() += 1;
            }
        }
        answered
    }

    /// Returns the share of the answers that came from a version, in per cent.
    #[expect(clippy::cast_precision_loss, reason = "the number of requests is far below 2^52")]
    pub(crate) fn share(&self, version: &str) -> f64 {
        let answered = self.answered();
        let all: usize = answered.values().sum();
        100.0 * answered.get(version).copied().unwrap_or_default() as f64 / all.max(1) as f64
    }

    /// How many requests were lost, by kind.
    pub(crate) fn losses(&self) -> BTreeMap<Loss, usize> {
        let mut losses = BTreeMap::new();
        for sample in &self.samples {
            if let Outcome::Lost(loss) = &sample.outcome {
                *losses.entry(loss.clone()).or_default() += 1;
            }
        }
        losses
    }

    /// How many requests were lost.
    pub(crate) fn lost(&self) -> usize {
        self.losses().values().sum()
    }

    /// Returns the time of a version's first complete response.
    pub(crate) fn first_answer_by(&self, version: &str) -> Option<Instant> {
        self.answers_by(version).min()
    }

    /// Returns the time of a version's last complete response.
    pub(crate) fn last_answer_by(&self, version: &str) -> Option<Instant> {
        self.answers_by(version).max()
    }

    fn answers_by(&self, version: &str) -> impl Iterator<Item = Instant> {
        self.samples.iter().filter(move |sample| sample.version() == Some(version)).map(|sample| sample.ended)
    }

    /// Returns the latency within which the fastest `share` (0 to 1) of the answered requests were answered.
    pub(crate) fn latency(&self, share: f64) -> Option<Duration> {
        let times =
            self.samples.iter().filter(|sample| sample.is_answered()).map(|sample| sample.ended - sample.due);
        quantile(times.collect(), share)
    }
}

/// Returns the smallest of `values` that at least the given `share` (0 to 1) of them does not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rank between 0 and the number of requests, which is far below 2^52"
)]
pub(crate) fn quantile<T: Ord + Copy>(mut values: Vec<T>, share: f64) -> Option<T> {
    values.sort_unstable();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |share| self.latency(share).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
        let answered: Vec<String> =
            self.answered().iter().map(|(version, count)| format!("v{version}: {count}")).collect();
        write!(f, "{} sent, answered {}, lost {}", self.sent(), answered.join(" "), self.lost())?;
        for (loss, count) in self.losses() {
            write!(f, " ({count} {loss})")?;
        }
        if self.not_sent() > 0 {
            write!(f, ", {} due but not sent", self.not_sent())?;
        }
        write!(f, ", p50 {:.1} ms, p99 {:.1} ms", milliseconds(0.5), milliseconds(0.99))
    }
}
