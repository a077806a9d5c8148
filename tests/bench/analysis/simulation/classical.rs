//! What is usual: the z-test, looked at again and again. Here to show that the simulation can see false
//! alarms.

use super::{
    super::analysis::{Pair, single_look::two_proportions},
    random::Random,
    traffic::Traffic,
};

/// Returns the minute at which a z-test at level `alpha` first calls the candidate worse.
pub fn peeked(traffic: &Traffic, minutes: u64, alpha: f64, random: &mut Random) -> Option<u64> {
    let mut all = Pair::default();
    (0..minutes).find(|minute| {
        all = all.plus(traffic.minute(*minute, random));
        // The normal approximation needs some failures; without the guard it would be worse.
        all.baseline.bad() + all.candidate.bad() >= 10
            && two_proportions(all).is_some_and(|test| test.p_greater < alpha)
    })
}
