//! The difference of the primary metric between two arms, with an interval that holds at any time.

use super::{
    evidence::Sums,
    rules::{ExperimentRules, Kind},
};
use crate::analysis::{
    Tally,
    moments::{Moments, Spread},
    numbers::float,
    sequential::{Interval, MIN_EVENTS, MIN_UNITS},
};

/// The challenger's value minus the champion's. `None` before there are enough values, events, or any spread.
///
/// The standard error is `√(s_a²/n_a + s_b²/n_b)`, for shares with `s² = p(1 − p)`, times `√design_effect`.
#[must_use]
pub fn difference(
    champion: &Sums,
    challenger: &Sums,
    rules: &ExperimentRules,
    alpha: f64,
) -> Option<Interval> {
    let kind = rules.primary.kind;
    let one = Estimate::of(champion, kind)?;
    let other = Estimate::of(challenger, kind)?;
    let variance = one.squared_error + other.squared_error;
    let standard_error = (variance * rules.assignment.design_effect()?).sqrt();
    Interval::new(other.mean - one.mean, standard_error, one.n + other.n, alpha)
}

struct Estimate {
    mean: f64,
    squared_error: f64,
    n: f64,
}

impl Estimate {
    fn of(sums: &Sums, kind: Kind) -> Option<Self> {
        if sums.samples(kind) < MIN_UNITS {
            return None;
        }
        match kind {
            Kind::Share => Self::of_share(sums.tally),
            Kind::Mean => Self::of_mean(sums.moments),
        }
    }

    fn of_share(tally: Tally) -> Option<Self> {
        let mean = tally.share().filter(|_| tally.bad() >= MIN_EVENTS && tally.good() >= MIN_EVENTS)?;
        let n = float(tally.total());
        Some(Self { mean, squared_error: mean * (float(tally.good()) / n) / n, n })
    }

    fn of_mean(moments: Moments) -> Option<Self> {
        let n = float(moments.n());
        let variance = match moments.spread()? {
            Spread::Variance(variance) => variance,
            Spread::None => 0.0,
            Spread::Lost => return None,
        };
        Some(Self { mean: moments.mean()?, squared_error: variance / n, n })
    }
}
