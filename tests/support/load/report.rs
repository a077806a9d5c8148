//! What became of the requests, and questions about it.

use std::{collections::BTreeMap, fmt, time::Duration};

use tokio::time::Instant;

/// How a request is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Connection {
    /// Over a new TCP connection.
    Fresh,
    /// Over a connection that answered before, where the server left it open.
    KeepAlive,
}

/// Why a request counts as lost: everything that a caller without retries would have seen as an error. A
/// server that closes an idle connection before a request is written to it loses nothing; see
/// `Client::answer`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// An answer other than 2xx.
    Status(u16),
    /// Nothing listened.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed after the request was written and before its answer was complete.
    Closed,
    /// No complete answer in time.
    Timeout,
    /// Anything else, in the system's words.
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
    /// With 2xx, by the version that the answer names.
    Answered {
        /// The version, where the answer names one.
        version: Option<String>,
    },
    /// Not with 2xx.
    Lost(Loss),
    /// It was due, but this client could not send it in time: a gap in the measurement, not a loss.
    NotSent,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// When it was to be sent. Latency counts from here, so that a client that falls behind hides nothing.
    pub(crate) due: Instant,
    /// When its answer was complete, or its loss known.
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

    /// The version that answered, where the answer names one.
    pub(crate) fn version(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Answered { version } => version.as_deref(),
            _ => None,
        }
    }
}

/// Records, and questions about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    samples: Vec<Sample>,
}

impl Report {
    pub(crate) fn new(samples: Vec<Sample>) -> Self {
        Self { samples }
    }

    /// Several as one.
    pub(crate) fn of_all(reports: impl IntoIterator<Item = Self>) -> Self {
        Self::new(reports.into_iter().flat_map(|report| report.samples).collect())
    }

    /// Every request.
    pub(crate) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The part of it that `keep` holds for.
    pub(crate) fn only(&self, keep: impl Fn(&Sample) -> bool) -> Self {
        Self::new(self.samples.iter().filter(|sample| keep(sample)).cloned().collect())
    }

    /// The requests that were due in a span of time.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Self {
        self.only(|sample| from <= sample.due && sample.due < to)
    }

    /// The requests with one kind of connection.
    pub(crate) fn over(&self, connection: Connection) -> Self {
        self.only(|sample| sample.connection == connection)
    }

    /// How many requests were sent.
    pub(crate) fn sent(&self) -> usize {
        self.samples.len() - self.not_sent()
    }

    /// How many requests were due and could not be sent in time.
    pub(crate) fn not_sent(&self) -> usize {
        self.samples.iter().filter(|sample| sample.outcome == Outcome::NotSent).count()
    }

    /// How many requests were answered with 2xx, by version; `?` where the answer names none.
    pub(crate) fn answered(&self) -> BTreeMap<String, usize> {
        let mut answered = BTreeMap::new();
        for sample in &self.samples {
            if let Outcome::Answered { version } = &sample.outcome {
                *answered.entry(version.clone().unwrap_or_else(|| "?".to_owned())).or_default() += 1;
            }
        }
        answered
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

    /// When the first complete answer of a version was here.
    pub(crate) fn first_answer_by(&self, version: &str) -> Option<Instant> {
        self.answers_by(version).min()
    }

    /// When the last complete answer of a version was here.
    pub(crate) fn last_answer_by(&self, version: &str) -> Option<Instant> {
        self.answers_by(version).max()
    }

    fn answers_by(&self, version: &str) -> impl Iterator<Item = Instant> {
        self.samples.iter().filter(move |sample| sample.version() == Some(version)).map(|sample| sample.ended)
    }

    /// The time within which the `share` (0 to 1) fastest of the answered requests were answered.
    pub(crate) fn latency(&self, share: f64) -> Option<Duration> {
        let times =
            self.samples.iter().filter(|sample| sample.is_answered()).map(|sample| sample.ended - sample.due);
        quantile(times.collect(), share)
    }
}

/// The smallest of `values` that at least the `share` (0 to 1) of them does not exceed.
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
