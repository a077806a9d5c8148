//! The continued fraction of the incomplete beta function.

/// No partial denominator is nearer to 0.
const TINY: f64 = 1e-300;
/// It takes about `√max(a, b)` steps: 70,000 for 10^10 degrees of freedom.
const MOST_STEPS: u32 = 200_000;

/// The fraction with which `I_x(a, b) = x^a (1 − x)^b / (a B(a, b)) · fraction`, for `x < (a + 1)/(a + b +
/// 2)`, by Lentz's method (DLMF 8.17.22; W. Press et al., "Numerical Recipes", 6.4).
pub(super) fn fraction(x: f64, a: f64, b: f64) -> f64 {
    let not_zero = |value: f64| if value.abs() > TINY { value } else { TINY };
    // The ratios of successive numerators, and of successive denominators turned over.
    let mut upper = 1.0;
    let mut lower = 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = lower;
    for step in (1..=MOST_STEPS).map(f64::from) {
        let to = a + 2.0 * step;
        let even = step * (b - step) * x / ((to - 1.0) * to);
        let odd = -(a + step) * (a + b + step) * x / (to * (to + 1.0));
        for coefficient in [even, odd] {
            lower = 1.0 / not_zero(1.0 + coefficient * lower);
            upper = not_zero(1.0 + coefficient / upper);
            fraction *= upper * lower;
        }
        if (upper * lower - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    fraction
}
