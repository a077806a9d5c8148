//! False alarms and power on simulated traffic: few runs, to be quick. `make bench-analysis` prints many
//! more.

use super::super::{
    self as analysis,
    live::{Assignment, LiveRules, Verdict},
};

#[path = "../../../tests/bench/analysis/simulation/mod.rs"]
mod simulation;

use simulation::{
    classical::peeked,
    experiment::Experiment,
    promotion::{Until, bounded, compare, is_split_alarmed, promote, rules},
    random::Random,
    traffic::{Failures, Rates, Traffic},
};

const SEED: u64 = 20_261_129;

fn traffic(per_minute: f64, share: f64, rates: Rates) -> Traffic {
    Traffic { per_minute, share, rates, failures: Failures::Independent }
}

/// How many of so many runs end in something.
fn count(runs: u64, is_so: impl Fn(&mut Random) -> bool) -> u64 {
    (0..runs).map(|run| u64::from(is_so(&mut Random::new(SEED, run)))).sum()
}

/// As many as chance allows at that level: the mean and three standard deviations more.
fn allowed(runs: u64, alpha: f64) -> u64 {
    let mean = f64::from(u32::try_from(runs).unwrap()) * alpha;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
    let allowed = (mean + 3.0 * (mean * (1.0 - alpha)).sqrt()).floor() as u64;
    allowed
}

/// Fails alike, and for half an hour much more, for a cause that both share.
fn outage(minute: u64) -> (f64, f64) {
    let rate = if (60..90).contains(&minute) { 0.2 } else { 0.002 };
    (rate, rate)
}

#[test]
fn looking_every_minute_raises_no_more_false_alarms_than_allowed() {
    const RUNS: u64 = 100;
    const LOOKS: u64 = 360;
    let cases = [
        traffic(20.0, 0.5, |_| (0.01, 0.01)),
        traffic(60.0, 0.05, |_| (0.01, 0.01)),
        traffic(60.0, 0.5, outage),
        Traffic { failures: Failures::Varying(1), ..traffic(60.0, 0.1, |_| (0.01, 0.01)) },
    ];
    for (index, case) in cases.iter().enumerate() {
        let alarms = count(RUNS, |random| compare(case, LOOKS, 0.05, random).is_some());
        assert!(alarms <= allowed(RUNS, 0.05), "case {index}: {alarms}");
        let rolled_back = count(RUNS, |random| {
            promote(case, &rules(None), true, LOOKS, Until::Worse, random).verdict == Verdict::Worse
        });
        assert!(rolled_back <= allowed(RUNS, 0.01), "case {index}: {rolled_back}");
    }
    // The same traffic and the usual test: the simulation can see false alarms.
    let usual = count(RUNS, |random| peeked(&cases[0], LOOKS, 0.05, random).is_some());
    assert!(usual > RUNS / 5, "{usual}");
}

#[test]
fn more_looks_are_no_more_false_alarms() {
    let alike = traffic(20.0, 0.5, |_| (0.01, 0.01));
    let alarms = |looks| count(100, |random| compare(&alike, looks, 0.05, random).is_some());
    let (half, all) = (alarms(720), alarms(1440));
    assert!(half <= all && all <= allowed(100, 0.05), "{half}, then {all}");
}

#[test]
fn failures_that_come_together_have_to_be_declared() {
    let bursts = Traffic { failures: Failures::Bursts(5), ..traffic(20.0, 0.5, |_| (0.01, 0.01)) };
    let rolled_back = |design_effect| {
        let assignment = Assignment { is_sticky: true, design_effect: Some(design_effect) };
        let rules = LiveRules { assignment, ..rules(None) };
        count(60, |random| {
            promote(&bursts, &rules, true, 720, Until::Worse, random).verdict == Verdict::Worse
        })
    };
    assert!(rolled_back(5.0) <= allowed(60, 0.02));
    // The simulation can see what happens otherwise.
    assert!(rolled_back(1.0) > 10);
}

#[test]
fn a_share_at_its_bound_is_rarely_called_over_it() {
    let at_bound = traffic(60.0, 1.0, |_| (0.0, 0.05));
    let over = count(100, |random| bounded(&at_bound, 0.05, 720, 0.05, random).is_some());
    assert!(over <= allowed(100, 0.05), "{over}");
    // The simulation can see a share that is over it.
    assert!(count(100, |random| bounded(&at_bound, 0.03, 720, 0.05, random).is_some()) > 95);
}

#[test]
fn the_split_raises_no_false_alarm_and_finds_swapped_weights() {
    let case = traffic(60.0, 0.1, |_| (0.0, 0.0));
    let alarm =
        |share: f64| count(100, |random| is_split_alarmed(&case, share, 360, 0.001, random).is_some());
    assert!(alarm(0.1) <= allowed(100, 0.001));
    assert_eq!(alarm(0.9), 100);
    assert!(alarm(0.5) == 100);
}

#[test]
fn regressions_are_found_in_time() {
    const RUNS: u64 = 60;
    let found = |case: &Traffic, minutes| {
        count(RUNS, |random| {
            promote(case, &rules(None), true, minutes, Until::Worse, random).verdict == Verdict::Worse
        })
    };
    assert!(found(&traffic(60.0, 0.1, |_| (0.01, 0.05)), 60) >= RUNS * 85 / 100);
    // It answers three requests a minute, and fails.
    assert!(found(&traffic(60.0, 0.05, |_| (0.01, 1.0)), 4) >= RUNS * 9 / 10);
    // Good for ten minutes, then not.
    let late = |minute| if minute < 10 { (0.001, 0.001) } else { (0.001, 0.5) };
    assert!(found(&traffic(60.0, 0.5, late), 12) >= RUNS * 95 / 100);
}

#[test]
fn a_version_that_is_alike_goes_on_within_a_day() {
    let alike = traffic(60.0, 0.5, |_| (0.01, 0.01));
    let verdicts =
        |random: &mut Random| promote(&alike, &rules(None), true, 1440, Until::Any, random).verdict;
    assert!(count(40, |random| verdicts(random) == Verdict::NoWorse) >= 36);
}

#[test]
fn experiments_find_what_is_there_and_little_else() {
    use analysis::experiment::{Kind, Outcome};
    let share = |challenger| Experiment {
        per_hour: 600.0,
        share: 0.5,
        truth: (0.1, challenger),
        kind: Kind::Share,
        days: 14,
    };
    let outcomes = |experiment: Experiment, outcome: Outcome| {
        count(40, |random| experiment.run(random).1.outcome == outcome)
    };
    assert!(outcomes(share(0.1), Outcome::NoDifference) >= 40 - allowed(40, 0.05));
    assert!(outcomes(share(0.12), Outcome::ChallengerWins) >= 38);
    assert!(outcomes(share(0.08), Outcome::ChampionWins) >= 38);
}
