//! Sums of values, from which means and variances follow, and ratios of two sums.

use serde::{Deserialize, Serialize};

use super::numbers::float;

/// The number, the sum and the sum of squares of some values, all finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Sums", into = "Sums")]
pub struct Moments {
    n: u64,
    sum: f64,
    squares: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sums {
    n: u64,
    sum: f64,
    squares: f64,
}

impl TryFrom<Sums> for Moments {
    type Error = &'static str;

    fn try_from(sums: Sums) -> Result<Self, Self::Error> {
        Self::new(sums.n, sums.sum, sums.squares).ok_or("not the sums of finite values")
    }
}

impl From<Moments> for Sums {
    fn from(Moments { n, sum, squares }: Moments) -> Self {
        Self { n, sum, squares }
    }
}

/// How the values of some [`Moments`] differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// They seem not to: the variance is exactly 0, as it also is where rounding lost all of it.
    None,
    /// The sample variance.
    Variance(f64),
    /// The variance is too small beside the mean to be distinguished from rounding: the values would have to
    /// be centred.
    Lost,
}

/// A variance is trusted if at least so many digits of the sum of squares are left of it: 2^-32.
const LEFT: f64 = 2.3e-10;

impl Moments {
    /// Returns `None` unless the sums can be those of `n` finite values.
    #[must_use]
    pub fn new(n: u64, sum: f64, squares: f64) -> Option<Self> {
        let is_possible = sum.is_finite()
            && squares.is_finite()
            && squares >= 0.0
            && n <= super::numbers::MAX_COUNT
            && (n > 0 || (sum == 0.0 && squares == 0.0))
            && (sum * sum).is_finite();
        is_possible.then_some(Self { n, sum, squares })
    }

    /// The sums of some values; `None` if one of them is not finite.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let squares = values.iter().map(|value| value * value).sum();
        Self::new(values.len() as u64, values.iter().sum(), squares)
    }

    /// How many values there are.
    #[must_use]
    pub const fn n(self) -> u64 {
        self.n
    }

    pub(super) fn n_float(self) -> f64 {
        float(self.n)
    }

    /// The sum of the values.
    #[must_use]
    pub const fn sum(self) -> f64 {
        self.sum
    }

    /// The sum of their squares.
    #[must_use]
    pub const fn squares(self) -> f64 {
        self.squares
    }

    /// The mean; `None` without values.
    #[must_use]
    pub fn mean(self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / float(self.n))
    }

    /// How the values differ; `None` for fewer than two.
    #[must_use]
    pub fn spread(self) -> Option<Spread> {
        if self.n < 2 {
            return None;
        }
        let about_mean = self.squares - self.sum * (self.sum / float(self.n));
        if about_mean == 0.0 {
            return Some(Spread::None);
        }
        if about_mean < LEFT * self.squares {
            return Some(Spread::Lost);
        }
        Some(Spread::Variance(about_mean / (float(self.n) - 1.0)))
    }

    /// What was added since `earlier`. `None` if there are fewer values now.
    pub(super) fn since(self, earlier: Self) -> Option<Self> {
        let n = self.n.checked_sub(earlier.n)?;
        if n == 0 {
            return Some(Self::default());
        }
        // A sum of squares only grows, but for rounding.
        Self::new(n, self.sum - earlier.sum, (self.squares - earlier.squares).max(0.0))
    }

    /// Both together. Stays as it is where the sums would leave the range of finite numbers.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::new(self.n + other.n, self.sum + other.sum, self.squares + other.squares).unwrap_or(self)
    }
}

/// Sums over units (users, buckets of users) that have x requests and y events each, for the ratio Σy/Σx.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitSums {
    /// How many units there are.
    pub n: u64,
    /// Σx.
    pub x: f64,
    /// Σy.
    pub y: f64,
    /// Σx².
    pub xx: f64,
    /// Σy².
    pub yy: f64,
    /// Σxy.
    pub xy: f64,
}

impl UnitSums {
    /// The ratio R = Σy/Σx and its variance by the delta method: `(s_y² − 2R s_xy + R² s_x²)/(n x̄²)`, which
    /// is the variance of `y − Rx` (A. Deng et al., "Applying the delta method in metric analytics", 2018).
    ///
    /// `None` for fewer than two units, without requests, and unless all is finite.
    #[must_use]
    pub fn ratio(&self) -> Option<(f64, f64)> {
        if self.n < 2 || self.x <= 0.0 {
            return None;
        }
        let n = float(self.n);
        let ratio = self.y / self.x;
        let centred = |product: f64, one: f64, other: f64| (product - one * (other / n)) / (n - 1.0);
        let variance_y = centred(self.yy, self.y, self.y);
        let variance_x = centred(self.xx, self.x, self.x);
        let covariance = centred(self.xy, self.x, self.y);
        let residual = (variance_y - 2.0 * ratio * covariance + ratio * ratio * variance_x).max(0.0);
        let variance = residual / n / (self.x / n).powi(2);
        (ratio.is_finite() && variance.is_finite()).then_some((ratio, variance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_lost_the_variance_are_refused() {
        // A mean of 10^9 with a standard deviation of 1: the sums give 131.
        let far = Moments::new(1000, 1_000_000_000_038.601_7, 1.000_000_000_077_203_5e21).unwrap();
        assert_eq!(far.spread(), Some(Spread::Lost));
        assert_eq!(Moments::of(&[2.0; 4]).and_then(Moments::spread), Some(Spread::None));
        assert_eq!(Moments::of(&[1.0, 3.0]).and_then(Moments::spread), Some(Spread::Variance(2.0)));
        assert_eq!(Moments::of(&[1.0]).and_then(Moments::spread), None);
        assert_eq!(Moments::of(&[f64::NAN]), None);
        assert_eq!(Moments::new(1, 1e200, 1e300), None);
        assert_eq!(Moments::new(0, 1.0, 1.0), None);
    }

    #[test]
    fn a_ratio_has_the_variance_of_its_residuals() {
        let units = [(3.0, 1.0), (10.0, 2.0), (1.0, 0.0), (4.0, 4.0)];
        let mut sums = UnitSums { n: 4, ..UnitSums::default() };
        for (x, y) in units {
            sums.x += x;
            sums.y += y;
            sums.xx += x * x;
            sums.yy += y * y;
            sums.xy += x * y;
        }
        let (ratio, variance) = sums.ratio().unwrap();
        let residuals: f64 = units.iter().map(|(x, y)| (y - ratio * x).powi(2)).sum();
        assert!((variance - residuals / 3.0 / 4.0 / (sums.x / 4.0).powi(2)).abs() < 1e-12);
    }
}
