//! The world stands in for the smoke tests of the operator. The two keep their tests in the same way
//! ([`SmokeTestSlot`](crate::decide::SmokeTestSlot)); here it is shown that the same circumstances come to the same.

use wiremock::ResponseTemplate;

use super::world::{Event, Fate, Registers, World, version};
use crate::{
    decide::{SmokeReport, StrategyIntent},
    state::smoke_tests::tests::Bench,
};

/// The same circumstances for the operator: what the pod and the registry answer, and what comes of it.
async fn of_the_operator(fate: Fate, registers: Registers) -> SmokeReport {
    let mut bench = Bench::new().await;
    match registers {
        Registers::Fine => bench.logged("{}").await,
        Registers::Away => bench.registry_answers(ResponseTemplate::new(503)).await,
        Registers::Forbids => bench.registry_answers(ResponseTemplate::new(403)).await,
        Registers::HidesExamples => bench.registry_answers(ResponseTemplate::new(500)).await,
        other => unreachable!("{other:?} is not about examples"),
    }
    match fate {
        Fate::Good => bench.answers(ResponseTemplate::new(200)).await,
        Fate::FailsSmokeTest => bench.answers(ResponseTemplate::new(500)).await,
        // Nothing listens there.
        Fate::Unreachable => bench.behind(1),
        other => unreachable!("{other:?} is not about smoke tests"),
    }
    bench.begin("1");
    bench.outcome().await
}

/// The same for the world.
fn of_the_world(fate: Fate, registers: Registers) -> SmokeReport {
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.live(20);
    world.happen(&Event::Pods { of: 1, are: fate });
    world.happen(&Event::Registry(registers));
    let mut report = SmokeReport::Running(None);
    for _ in 0..3 {
        if matches!(report, SmokeReport::Running(_)) {
            report = world.smoke_test(version(1), &report);
        }
    }
    report
}

#[tokio::test]
async fn promise_6_the_world_and_the_operator_agree_on_what_a_smoke_test_comes_to() {
    for fate in [Fate::Good, Fate::FailsSmokeTest, Fate::Unreachable] {
        for registers in [Registers::Fine, Registers::Away, Registers::Forbids, Registers::HidesExamples] {
            let (real, simulated) = (of_the_operator(fate, registers).await, of_the_world(fate, registers));
            assert_eq!(
                std::mem::discriminant(&real),
                std::mem::discriminant(&simulated),
                "{fate:?}, {registers:?}: {real:?}, but the world says {simulated:?}"
            );
        }
    }
}
