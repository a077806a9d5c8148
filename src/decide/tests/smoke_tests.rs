//! The world's smoke test, for the test that compares it with the operator's (`state::smoke_tests`).

use super::world::{Event, Fate, Registers, World, version};
use crate::decide::{SmokeReport, StrategyIntent};

/// What the pods do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pods {
    Answer,
    AnswerWithErrors,
    CannotBeReached,
}

/// What the registry does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Registry {
    Answers,
    IsAway,
    HidesExamples,
}

/// Returns the first report other than that the test is running.
pub(crate) fn simulated(pods: Pods, registry: Registry) -> SmokeReport {
    let fate = match pods {
        Pods::Answer => Fate::Good,
        Pods::AnswerWithErrors => Fate::FailsSmokeTest,
        Pods::CannotBeReached => Fate::Unreachable,
    };
    let registers = match registry {
        Registry::Answers => Registers::Fine,
        Registry::IsAway => Registers::Away,
        Registry::HidesExamples => Registers::HidesExamples,
    };
    let mut world = World::new(StrategyIntent::BlueGreen, 1);
    world.live(20);
    world.happen(&Event::Pods { of: 1, are: fate });
    world.happen(&Event::Registry(registers));
    let mut report = SmokeReport::Running(None);
    while matches!(report, SmokeReport::Running(_)) {
        report = world.smoke_test(version(1), &report);
    }
    report
}
