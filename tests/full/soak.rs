//! Promise 2 under chaos: a short soak. `make soak` is the long one.

use crate::{
    fixture::alone,
    soaking::{Enough, Options, soak},
};

/// The default seed, unless the variable sets another.
const SEED: u64 = 20_261_122;

#[test]
fn promise_2_fifty_promotions_and_rollbacks_lose_nothing_while_the_operator_and_mlflow_are_killed() {
    let seed = std::env::var("LAUREL_SOAK_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    alone(soak(Options { seed, enough: Enough::Changes(50), stays_on_failure: false, evicts: false }));
}
