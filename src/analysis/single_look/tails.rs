//! Tail probabilities and quantiles, as `Option`: what is not a number never leaves.
//!
//! `erfc` is the one of the crate `libm`. The rest are short: the number of arms makes χ² one of few closed
//! forms, and Student's t needs the incomplete beta function for `b = ½` only.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI, TAU};

use libm::erfc;

use super::incomplete_beta::fraction;
use crate::analysis::binomial::stirling_error;

/// With more degrees of freedom than this, Student's t is normal to ten digits.
const NORMAL_FROM: f64 = 1e10;
/// The most degrees of freedom of χ²: it has a term for every second one.
const MOST_TERMS: f64 = 1000.0;

fn probability(value: f64) -> Option<f64> {
    value.is_finite().then(|| value.clamp(0.0, 1.0))
}

/// `P(Z > z)` for a standard normal Z; accurate relative to itself far into the tail.
#[must_use]
pub fn normal_tail(z: f64) -> Option<f64> {
    probability(0.5 * erfc(z * FRAC_1_SQRT_2))
}

/// `P(|Z| > |z|)`.
#[must_use]
pub fn two_sided_normal(z: f64) -> Option<f64> {
    normal_tail(z.abs()).map(|tail| 2.0 * tail)
}

/// The z with `P(Z < z) = probability`, for a probability between 0 and 1.
#[must_use]
pub fn normal_quantile(probability: f64) -> Option<f64> {
    if !(0.0 < probability && probability < 1.0) {
        return None;
    }
    if probability < 0.5 {
        return upper_quantile(probability).map(|z| -z);
    }
    upper_quantile(1.0 - probability)
}

/// The z with `P(Z > z) = tail`, for a tail of at most ½: Newton's method on the logarithm of the tail. That
/// is concave, and it begins at or above the solution, so it never leaves that side.
fn upper_quantile(tail: f64) -> Option<f64> {
    const MOST: usize = 100;
    let mut z = (-2.0 * (2.0 * tail).ln()).max(0.0).sqrt();
    for _ in 0..MOST {
        let at_z = normal_tail(z)?;
        let density = (-0.5 * z * z).exp() / TAU.sqrt();
        let step = (at_z / tail).ln() * at_z / density;
        z += step;
        if step.abs() <= f64::EPSILON * z.abs().max(1.0) {
            break;
        }
    }
    z.is_finite().then_some(z)
}

/// `P(T > t)` for Student's T with `df` degrees of freedom: `½ I_x(df/2, ½)` with `x = df/(df + t²)`.
#[must_use]
pub fn student_tail(t: f64, df: f64) -> Option<f64> {
    if t.is_nan() || !is_df(df) {
        return None;
    }
    if df > NORMAL_FROM {
        return normal_tail(t);
    }
    let a = df / 2.0;
    let ratio = t * (t / df);
    let (x, rest) = (1.0 / (1.0 + ratio), 1.0 / (1.0 + 1.0 / ratio));
    let front = (-a * ratio.ln_1p() + 0.5 * rest.ln() - ln_beta_half(a)).exp();
    let half = if x < (a + 1.0) / (a + 2.5) {
        0.5 * front * fraction(x, a, 0.5) / a
    } else {
        0.5 - front * fraction(rest, 0.5, a)
    };
    probability(if t > 0.0 { half } else { 1.0 - half })
}

/// `ln B(a, ½)`, without the cancellation between two `ln Γ`.
fn ln_beta_half(a: f64) -> f64 {
    let errors = stirling_error(a + 0.5) - stirling_error(a);
    0.5 * PI.ln() - (a * (0.5 / a).ln_1p() + 0.5 * a.ln() - 0.5 + errors)
}

/// `P(X > x)` for χ² with `df` degrees of freedom, a whole number up to 1,000:
/// `Q_{k+2} = Q_k + (x/2)^{k/2} e^{−x/2} / Γ(k/2 + 1)`.
#[must_use]
pub fn chi_square_tail(x: f64, df: f64) -> Option<f64> {
    if x.is_nan() || !is_df(df) || df.fract() != 0.0 || df > MOST_TERMS {
        return None;
    }
    let half = x.max(0.0) / 2.0;
    let exp = (-half).exp();
    let is_odd = df % 2.0 != 0.0;
    let (mut sum, mut term, mut k) = if is_odd {
        (erfc(half.sqrt()), exp * half.sqrt() * FRAC_2_SQRT_PI, 1.0)
    } else {
        (exp, exp * half, 2.0)
    };
    while k < df {
        sum += term;
        k += 2.0;
        term *= half / (k / 2.0);
    }
    // An infinite x makes terms of 0 · ∞.
    if half.is_infinite() { Some(0.0) } else { probability(sum) }
}

fn is_df(df: f64) -> bool {
    df.is_finite() && df > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(actual: Option<f64>, expected: f64) {
        let actual = actual.unwrap();
        assert!((actual - expected).abs() <= 1e-12 * expected.abs(), "{actual} is not {expected}");
    }

    #[test]
    fn quantiles() {
        close(normal_quantile(0.975), 1.959_963_984_540_054);
        close(normal_quantile(0.025), -1.959_963_984_540_054);
        close(normal_quantile(0.5).map(|z| z + 1.0), 1.0);
        for probability in [1e-300, 1e-17, 0.2, 0.999_999] {
            let z = normal_quantile(probability).unwrap();
            close(normal_tail(-z), probability);
        }
    }

    #[test]
    fn tails_that_have_a_formula() {
        // One degree of freedom is Cauchy's distribution, two have a square root.
        close(student_tail(3.0, 1.0), 0.5 - 3.0_f64.atan() / PI);
        close(student_tail(2.0, 2.0), 0.5 - 1.0 / 6.0_f64.sqrt());
        close(student_tail(-2.0, 2.0), 0.5 + 1.0 / 6.0_f64.sqrt());
        close(student_tail(0.0, 7.0), 0.5);
        // As many degrees of freedom as a day has requests: nearly normal.
        let (student, normal) = (student_tail(1.96, 1e8).unwrap(), normal_tail(1.96).unwrap());
        assert!((student / normal - 1.0).abs() < 1e-7 && student > normal, "{student} {normal}");
        close(chi_square_tail(3.0, 4.0), 2.5 * (-1.5_f64).exp());
        close(chi_square_tail(3.0, 3.0), erfc(1.5_f64.sqrt()) + (6.0 / PI).sqrt() * (-1.5_f64).exp());
    }

    #[test]
    fn what_is_not_a_number_never_leaves() {
        assert_eq!(normal_tail(f64::NAN), None);
        assert_eq!(two_sided_normal(f64::INFINITY), Some(0.0));
        assert_eq!([0.0, 1.0, f64::NAN].map(normal_quantile), [None; 3]);
        assert_eq!(student_tail(f64::NAN, 3.0), None);
        assert_eq!([0.0, f64::NAN, f64::INFINITY].map(|df| student_tail(1.0, df)), [None; 3]);
        assert_eq!(student_tail(f64::INFINITY, 3.0), Some(0.0));
        assert_eq!([0.0, 1.5, f64::NAN, 1e6].map(|df| chi_square_tail(1.0, df)), [None; 4]);
        assert_eq!(chi_square_tail(f64::NAN, 1.0), None);
        assert_eq!(chi_square_tail(f64::INFINITY, 5.0), Some(0.0));
    }
}
