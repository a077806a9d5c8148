//! What two versions do, minute by minute.

use super::{
    super::analysis::{Pair, Tally},
    random::Random,
};

/// The shares of failures of baseline and candidate in a minute.
pub type Rates = fn(minute: u64) -> (f64, f64);

/// How failures come.
#[derive(Clone, Copy)]
pub enum Failures {
    /// Independent of each other.
    Independent,
    /// As many in a row, by one user who stays with one version.
    Bursts(u64),
    /// Independent, at a rate that changes every minute for both: a gamma distribution with this shape.
    Varying(u32),
}

/// Traffic of a service with two versions.
#[derive(Clone, Copy)]
pub struct Traffic {
    /// The mean number of requests in a minute; Poisson.
    pub per_minute: f64,
    /// The share of the candidate.
    pub share: f64,
    /// The share of failures of both.
    pub rates: Rates,
    /// How failures come.
    pub failures: Failures,
}

impl Traffic {
    /// The requests of one minute.
    pub fn minute(&self, minute: u64, random: &mut Random) -> Pair {
        let (baseline, candidate) = (self.rates)(minute);
        let factor = match self.failures {
            Failures::Varying(shape) => random.gamma(shape),
            Failures::Independent | Failures::Bursts(_) => 1.0,
        };
        let n_candidate = random.poisson(self.per_minute * self.share);
        let n_baseline = random.poisson(self.per_minute * (1.0 - self.share));
        Pair {
            baseline: self.tally(n_baseline, baseline * factor, random),
            candidate: self.tally(n_candidate, candidate * factor, random),
        }
    }

    fn tally(&self, n: u64, rate: f64, random: &mut Random) -> Tally {
        let bad = match self.failures {
            Failures::Bursts(size) => {
                // As many failures in all, a burst at a time.
                #[expect(clippy::cast_precision_loss, reason = "small")]
                let bursts = random.binomial(n, (rate / size as f64).min(1.0));
                (bursts * size).min(n)
            }
            Failures::Independent | Failures::Varying(_) => random.binomial(n, rate.min(1.0)),
        };
        Tally::new(bad, n).unwrap_or_default()
    }
}
