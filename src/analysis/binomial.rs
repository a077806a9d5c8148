//! Logarithms of binomial probabilities without cancellation, also for counts of 10^12.
//!
//! `ln Γ` of such counts is about 10^13, so a difference of them keeps no more than three decimals. Here
//! every term is small when the probability is large: the error of Stirling's formula, and the deviance
//! between a count and its mean (C. Loader, "Fast and accurate computation of binomial probabilities", 2000).

use std::f64::consts::TAU;

/// From here on five terms of the series are exact to the last bit.
const SERIES_FROM: f64 = 16.0;

/// `ln Γ(x + 1) − [½ ln(2πx) + x ln x − x]`: what Stirling's formula lacks. For `x > 0`.
pub(super) fn stirling_error(x: f64) -> f64 {
    // The error at x from the error at x + 1, until the series is exact.
    let mut raised = x;
    let mut sum = 0.0;
    while raised < SERIES_FROM {
        sum += (raised + 0.5) * (1.0 / raised).ln_1p() - 1.0;
        raised += 1.0;
    }
    let square = raised * raised;
    let series = (1.0 / 12.0
        - (1.0 / 360.0 - (1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / 1188.0 / square) / square) / square) / square)
        / raised;
    sum + series
}

/// `x ln(x / mean) + mean − x`: half the deviance of a count from its mean. 0 where they are equal.
pub(super) fn deviance(x: f64, mean: f64) -> f64 {
    if x <= 0.0 {
        return mean;
    }
    let distance = x - mean;
    if distance.abs() >= 0.1 * (x + mean) {
        return x * (x / mean).ln() - distance;
    }
    // ln(x / mean) = 2 artanh(v), as a series in v² of which the first terms cancel with `distance`.
    let v = distance / (x + mean);
    let mut sum = distance * v;
    let mut power = 2.0 * x * v;
    let mut divisor = 1.0;
    loop {
        power *= v * v;
        divisor += 2.0;
        let next = sum + power / divisor;
        // Also ends when the terms vanish: `next` is then equal.
        if next.to_bits() == sum.to_bits() {
            return sum;
        }
        sum = next;
    }
}

/// The odds of an outcome as its probability and the complement, both exact when tiny.
#[derive(Clone, Copy)]
pub(super) struct Probability {
    of: f64,
    not: f64,
}

impl Probability {
    pub(super) fn from_odds(odds: f64) -> Self {
        Self { of: odds / (1.0 + odds), not: 1.0 / (1.0 + odds) }
    }

    /// The variance of the number of successes in `n` trials.
    pub(super) fn variance(self, n: f64) -> f64 {
        n * self.of * self.not
    }

    /// The mean of the number of successes in `n` trials.
    pub(super) fn mean(self, n: f64) -> f64 {
        n * self.of
    }

    /// `ln P(x successes in n trials)`.
    pub(super) fn ln_binomial(self, x: f64, n: f64) -> f64 {
        if n <= 0.0 {
            return 0.0;
        }
        if x <= 0.0 {
            return n * ln_of_complement(self.not, self.of);
        }
        if x >= n {
            return n * ln_of_complement(self.of, self.not);
        }
        let rest = n - x;
        let errors = stirling_error(n) - stirling_error(x) - stirling_error(rest);
        let fit = deviance(x, n * self.of) + deviance(rest, n * self.not);
        errors - fit - 0.5 * (TAU * x * (rest / n)).ln()
    }
}

/// `ln p`, where the complement of p may be too small to be seen in p.
fn ln_of_complement(p: f64, complement: f64) -> f64 {
    if complement < 0.5 { (-complement).ln_1p() } else { p.ln() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-14 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn the_error_of_stirlings_formula() {
        // ln n! − (½ ln 2πn + n ln n − n), from 50 decimals.
        close(stirling_error(1.0), 0.081_061_466_795_327_26);
        close(stirling_error(10.0), 0.008_330_563_433_362_87);
        close(stirling_error(1e9), 1.0 / 12e9);
        close(stirling_error(0.5), 0.153_426_409_720_027_35);
    }

    #[test]
    fn the_deviance_of_a_count() {
        close(deviance(7.0, 7.0), 0.0);
        close(deviance(0.0, 3.0), 3.0);
        close(deviance(5.0, 10.0), 5.0 * 0.5_f64.ln() + 5.0);
        close(deviance(11.0, 10.0), 11.0 * 1.1_f64.ln() - 1.0);
        // 1/2m − 1/6m², where the plain formula would cancel to nothing.
        close(deviance(1e12 + 1.0, 1e12) * 1e12, 0.5 - 1.0 / 6e12);
    }

    #[test]
    fn binomial_probabilities() {
        let fair = Probability::from_odds(1.0);
        close(fair.ln_binomial(2.0, 4.0), 0.375_f64.ln());
        close(fair.ln_binomial(0.0, 4.0), 0.0625_f64.ln());
        close(fair.ln_binomial(4.0, 4.0), 0.0625_f64.ln());
        close(fair.ln_binomial(0.0, 0.0), 0.0);
        close(Probability::from_odds(1e20).ln_binomial(0.0, 2.0), -2.0 * 1e20_f64.ln());
        close(Probability::from_odds(1e-20).ln_binomial(2.0, 2.0), -2.0 * 1e20_f64.ln());
        // From 60 decimals.
        close(fair.ln_binomial(5e11, 1e12), -14.041_301_910_609_252);
    }
}
