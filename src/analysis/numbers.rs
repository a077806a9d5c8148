//! Counts as floating-point numbers, and sums of exponentials.

/// The largest count that is taken: every smaller whole number is exact in an `f64`.
pub const MAX_COUNT: u64 = 1_000_000_000_000_000;

/// A count as a number. Exact up to [`MAX_COUNT`].
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53, rounded by less than 1e-16 above")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// The number of elements as a number.
pub(super) fn len<T>(items: &[T]) -> f64 {
    float(items.len() as u64)
}

/// Reads a sample of a counter from a text format: a whole number from 0 to [`MAX_COUNT`].
///
/// `NaN`, infinities, negative values and fractions (which an extrapolated `increase()` returns) are no
/// count.
#[must_use]
pub fn count(value: f64) -> Option<u64> {
    let is_count = (0.0..=float(MAX_COUNT)).contains(&value) && value.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a count")]
    is_count.then_some(value as u64)
}

/// `ln(mean(exp(terms)))`, without overflow. 0 for no terms.
pub(super) fn ln_mean_exp(terms: &[f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if terms.is_empty() || largest == 0.0 && terms.iter().all(|term| *term == 0.0) {
        return 0.0;
    }
    if largest == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let sum: f64 = terms.iter().map(|term| (term - largest).exp()).sum();
    largest + (sum / len(terms)).ln()
}

/// `ln(exp(a) + exp(b))`, without overflow.
pub(super) fn ln_add_exp(a: f64, b: f64) -> f64 {
    let (large, small) = if a >= b { (a, b) } else { (b, a) };
    if small == f64::NEG_INFINITY { large } else { large + (small - large).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_whole_number_that_is_not_negative() {
        assert_eq!([0.0, 3.0, 1e15].map(count), [Some(0), Some(3), Some(MAX_COUNT)]);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.5, 1e16] {
            assert_eq!(count(value), None, "{value}");
        }
    }

    #[test]
    fn sums_of_exponentials_do_not_overflow() {
        assert_eq!(ln_mean_exp(&[]).to_bits(), 0.0_f64.to_bits());
        assert_eq!(ln_mean_exp(&[0.0; 8]).to_bits(), 0.0_f64.to_bits());
        assert!(ln_mean_exp(&[f64::NEG_INFINITY; 2]).is_infinite());
        assert!((ln_mean_exp(&[1e6, 1e6 - 800.0]) - (1e6 - 2.0_f64.ln())).abs() < 1e-9);
        assert!((ln_add_exp(-1e6, -1e6) - (-1e6 + 2.0_f64.ln())).abs() < 1e-9);
        assert_eq!(ln_add_exp(f64::NEG_INFINITY, 3.0).to_bits(), 3.0_f64.to_bits());
    }
}
