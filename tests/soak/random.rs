//! Random choices from a seed: `SplitMix64`, which is short and good enough.

use std::time::Duration;

/// A stream of choices.
pub(super) struct Random(u64);

impl Random {
    /// Creates an independent stream, so that choices in one do not affect the others.
    pub(super) fn of(seed: u64, who: u64) -> Self {
        let mut random = Self(seed ^ who.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.next();
        random
    }

    /// Returns any number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns true in `percent` of 100 cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// Returns one of several.
    pub(super) fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let choice = self.next() % choices.len() as u64;
        &choices[usize::try_from(choice).unwrap_or(0)]
    }

    /// Returns a duration up to `longest`.
    pub(super) fn up_to(&mut self, longest: Duration) -> Duration {
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.next() % longest.max(1))
    }
}
