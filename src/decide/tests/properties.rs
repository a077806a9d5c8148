//! What holds for every story: wishes, faults and crashes in any order. The promises themselves are checked by the
//! [world](super::world), at each single write and at rest.

use proptest::prelude::*;

use super::random::scenario;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// From any state it reaches the wish or a stated refusal, also when it is killed after any write, and then writes
    /// nothing, however much time goes by.
    #[test]
    fn promise_7_it_converges_and_then_stays_quiet(story in scenario(30)) {
        let broken = story.broken();
        prop_assert!(broken.is_empty(), "{}\n{}", broken.join("\n"), story.yaml());
    }
}
