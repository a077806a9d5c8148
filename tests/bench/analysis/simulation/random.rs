//! Random numbers of its own, so that no update of a dependency changes a figure.

/// `SplitMix64` (G. Steele et al., "Fast splittable pseudorandom number generators", 2014).
pub struct Random(u64);

impl Random {
    /// A stream of its own for each run of each scenario.
    pub fn new(seed: u64, run: u64) -> Self {
        let mut random = Self(seed ^ run.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "52 bits")]
        let bits = (self.next() >> 12) as f64;
        (bits + 0.5) / 4_503_599_627_370_496.0
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    /// Standard normal (G. Box, M. Muller).
    pub fn normal(&mut self) -> f64 {
        (2.0 * self.exponential()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Gamma with mean 1 and a squared coefficient of variation of `1 / shape`, for a whole shape.
    pub fn gamma(&mut self, shape: u32) -> f64 {
        (0..shape).map(|_| self.exponential()).sum::<f64>() / f64::from(shape)
    }

    /// Poisson: how many arrivals with exponential distances there are.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        // In parts, so that the product of uniform numbers does not underflow.
        const PART: f64 = 64.0;
        let mut left = mean;
        let mut count = 0;
        while left > 0.0 {
            let limit = (-left.min(PART)).exp();
            let mut product = self.uniform();
            while product > limit {
                count += 1;
                product *= self.uniform();
            }
            left -= PART;
        }
        count
    }

    /// Binomial: how many of `n` have an outcome of that probability. Counts the distances between them.
    pub fn binomial(&mut self, n: u64, probability: f64) -> u64 {
        if probability > 0.5 {
            return n - self.binomial(n, 1.0 - probability);
        }
        if probability <= 0.0 {
            return 0;
        }
        let ln_not = (-probability).ln_1p();
        let mut count = 0;
        let mut at = 0;
        loop {
            let distance = self.uniform().ln() / ln_not;
            // Whatever is beyond the end.
            if distance >= 1e15 {
                return count;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10^15")]
            let skipped = distance as u64;
            at += skipped + 1;
            if at > n {
                return count;
            }
            count += 1;
        }
    }
}
