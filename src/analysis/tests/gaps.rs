//! What is late, missing, partial or ambiguous is unknown: no evidence, no verdict, and no time that counts.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use pretty_assertions::assert_eq;
use strum::IntoEnumIterator;

use super::support::{batch, key, pair, rules, seconds};
use crate::analysis::{
    ledger::{Arm, Counters, Dropped, Folded, Gap, Ledger, LedgerSettings, Outcomes, PodUid, Round, Scrape},
    live::{Data, Reason, Verdict, Watch, judge},
};

fn ledger() -> Ledger {
    let arms = ["4", "5"].map(|arm| Arm(arm.to_owned())).to_vec();
    let settings = LedgerSettings {
        warm_up: SignedDuration::ZERO,
        ..LedgerSettings::new(arms, vec!["failures".to_owned()])
    };
    Ledger::new(settings, seconds(0))
}

fn scrape(arm: &str, pod: &str, at: i64, (bad, total): (u64, u64)) -> Scrape {
    let checks = BTreeMap::from([("failures".to_owned(), Outcomes { bad, total })]);
    Scrape {
        arm: Arm(arm.to_owned()),
        pod: PodUid(pod.to_owned()),
        started_at: seconds(-100),
        at: seconds(at),
        counters: Ok(Counters { requests: total, checks, values: BTreeMap::new() }),
    }
}

/// A round in which every pod of version 4 and 5 has answered a request a second.
fn round(at: i64) -> Round {
    let total = u64::try_from(at).unwrap();
    let scrapes = vec![scrape("4", "a", at, (0, total)), scrape("5", "b", at, (0, total))];
    Round { at: seconds(at), weights: vec![0.5, 0.5], scrapes }
}

/// Every way in which a round can be useless.
fn useless(at: i64) -> Vec<(Gap, Round)> {
    let with = |change: fn(&mut Vec<Scrape>)| {
        let mut round = round(at);
        change(&mut round.scrapes);
        round
    };
    let failed = |gap: Gap| {
        let mut round = round(at);
        round.scrapes[1].counters = Err(gap);
        round
    };
    let mut rounds: Vec<(Gap, Round)> = Gap::iter().map(|gap| (gap, failed(gap))).collect();
    rounds.extend([
        (Gap::Missing, with(|scrapes| scrapes.truncate(1))),
        (Gap::Missing, with(Vec::clear)),
        (Gap::Missing, with(|scrapes| scrapes[1].counters = Ok(Counters::default()))),
        (Gap::Ambiguous, with(|scrapes| scrapes.push(scrapes[1].clone()))),
        (Gap::Ambiguous, with(|scrapes| scrapes[1].arm = Arm("4".to_owned()))),
        (Gap::Late, with(|scrapes| scrapes[1].at -= SignedDuration::from_secs(3))),
        (
            Gap::Inconsistent,
            with(|scrapes| {
                let counters = scrapes[1].counters.as_mut().unwrap();
                counters.checks.insert("failures".to_owned(), Outcomes { bad: 1_000_000, total: 100 });
            }),
        ),
    ]);
    rounds
}

#[test]
fn a_round_that_lacks_something_is_unknown_and_closes_nothing() {
    for (gap, lacking) in useless(30) {
        let mut ledger = ledger();
        assert_eq!(ledger.fold(&round(15)), Folded::Opened);
        assert_eq!(ledger.fold(&lacking), Folded::Unknown(gap), "{lacking:?}");
        assert_eq!(
            ledger.outage().map(|outage| (outage.since, outage.rounds, outage.gap)),
            Some((seconds(30), 1, gap))
        );
    }
}

#[test]
fn after_a_gap_both_versions_are_compared_over_the_same_minutes() {
    let mut ledger = ledger();
    ledger.fold(&round(15));
    let mut lacking = round(30);
    lacking.scrapes[1].counters = Err(Gap::Unreachable);
    ledger.fold(&lacking);
    let Folded::Batch(batch) = ledger.fold(&round(45)) else { panic!("not a batch") };
    assert_eq!((batch.from, batch.to), (seconds(15), seconds(45)));
    assert_eq!([batch.arms[0].requests, batch.arms[1].requests], [30, 30]);
    assert_eq!(ledger.outage(), None);
}

#[test]
fn what_happened_in_a_long_gap_is_counted_for_neither_version() {
    let mut ledger = ledger();
    ledger.fold(&round(15));
    for at in (30..3600).step_by(15) {
        let mut lacking = round(at);
        lacking.scrapes[1].counters = Err(Gap::Unreachable);
        assert_eq!(ledger.fold(&lacking), Folded::Unknown(Gap::Unreachable));
    }
    assert_eq!(ledger.fold(&round(3600)), Folded::Dropped(Dropped::ReadAgain));
    let Folded::Batch(batch) = ledger.fold(&round(3615)) else { panic!("not a batch") };
    assert_eq!([batch.arms[0].requests, batch.arms[1].requests], [15, 15]);
}

#[test]
fn a_version_that_was_never_read_brings_nothing_along() {
    let mut ledger = ledger();
    for at in (15..3600).step_by(15) {
        let mut lacking = round(at);
        lacking.scrapes[1].counters = Err(Gap::Unreachable);
        // It started after the watch began.
        ledger.fold(&lacking);
    }
    let young = |at| {
        let mut round = round(at);
        round.scrapes[1].started_at = seconds(10);
        round
    };
    let folded = [ledger.fold(&young(3600)), ledger.fold(&young(3615))];
    let requests = folded.iter().filter_map(|folded| match folded {
        Folded::Batch(batch) => Some(batch.arms[1].requests),
        _ => None,
    });
    assert!(requests.sum::<u64>() <= 15, "{folded:?}");
}

#[test]
fn other_weights_begin_another_batch() {
    let mut ledger = ledger();
    ledger.fold(&round(15));
    let other = Round { weights: vec![0.9, 0.1], ..round(30) };
    assert_eq!(ledger.fold(&other), Folded::Dropped(Dropped::OtherWeights));
    let Folded::Batch(batch) = ledger.fold(&Round { weights: vec![0.9, 0.1], ..round(45) }) else {
        panic!("not a batch")
    };
    assert_eq!((batch.from, batch.weights), (seconds(30), vec![0.9, 0.1]));
}

#[test]
fn copies_are_not_taken_for_a_share_in_the_next_step() {
    let mut ledger = ledger();
    let copied = |at| Round { weights: Vec::new(), ..round(at) };
    ledger.fold(&copied(15));
    assert!(matches!(ledger.fold(&copied(30)), Folded::Batch(_)));
    let shared = Round { weights: vec![0.95, 0.05], ..round(45) };
    assert_eq!(ledger.fold(&shared), Folded::Dropped(Dropped::OtherWeights));
}

#[test]
fn a_day_without_data_is_unknown_after_two_rounds_and_changes_nothing() {
    let rules = rules();
    for (gap, reason) in [
        (Gap::Unreachable, Reason::MetricsUnreachable),
        (Gap::Missing, Reason::MetricsMissing),
        (Gap::Partial, Reason::MetricsMissing),
        (Gap::NotACount, Reason::MetricsMissing),
        (Gap::Ambiguous, Reason::MetricsAmbiguous),
    ] {
        let mut ledger = ledger();
        let mut watch = Watch::new(key(Some("4")), &rules);
        ledger.fold(&round(15));
        if let Folded::Batch(batch) = ledger.fold(&round(30)) {
            watch.add(&batch, &rules);
        }
        let known = watch.clone();
        for (index, at) in (45..24 * 3600).step_by(15).enumerate() {
            let mut lacking = round(at);
            lacking.scrapes[0].counters = Err(gap);
            assert_eq!(ledger.fold(&lacking), Folded::Unknown(gap));
            let data = Data::at(seconds(at), ledger.outage(), &watch, &rules);
            let finding = &judge(&watch, &rules, data)[0];
            if index >= 1 {
                assert_eq!((finding.verdict, finding.reason), (Verdict::Unknown, reason), "at {at}");
            }
        }
        assert_eq!(watch, known);
    }
}

#[test]
fn rounds_that_stop_coming_are_unknown_as_well() {
    let rules = rules();
    let mut watch = Watch::new(key(Some("4")), &rules);
    watch.add(&batch(0, pair((0, 10), (0, 10)), [0.5, 0.5]), &rules);
    assert_eq!(Data::at(seconds(60), None, &watch, &rules), Data::Arriving);
    assert_eq!(Data::at(seconds(600), None, &watch, &rules), Data::Absent(Gap::Unreachable));
}

#[test]
fn no_traffic_is_known_and_is_not_a_gap() {
    let rules = rules();
    let mut ledger = ledger();
    let mut watch = Watch::new(key(Some("4")), &rules);
    for at in (15..24 * 3600).step_by(15) {
        let still = Round { at: seconds(at), ..round(15) };
        let scrapes = still.scrapes.into_iter().map(|it| Scrape { at: seconds(at), ..it }).collect();
        if let Folded::Batch(batch) = ledger.fold(&Round { scrapes, ..round(at) }) {
            watch.add(&batch, &rules);
        }
    }
    assert_eq!(watch.covered(), SignedDuration::from_secs(24 * 3600 - 30));
    let finding = &judge(&watch, &rules, Data::Arriving)[0];
    assert_eq!((finding.verdict, finding.reason), (Verdict::Undecided, Reason::NotEnoughTraffic));
    assert!(finding.message.contains("no requests"), "{}", finding.message);
}
