//! What a watch finds: keys, guards, the split, absolute bounds.

use pretty_assertions::assert_eq;
use strum::IntoEnumIterator;

use super::support::{batch, batch_alone, key, pair, rules, sticky, tally, watched};
use crate::analysis::{
    Pair,
    ledger::Gap,
    live::{Check, Data, Finding, LiveRules, OnRegression, Reason, Verdict, Watch, WatchKey, judge},
};

fn found(rules: &LiveRules, pairs: &[Pair]) -> Finding {
    judge(&watched(rules, pairs), rules, Data::Arriving).remove(0)
}

fn verdict(rules: &LiveRules, pairs: &[Pair]) -> (Verdict, Reason) {
    let finding = found(rules, pairs);
    (finding.verdict, finding.reason)
}

fn with(check: Check) -> LiveRules {
    LiveRules::new(vec![check])
}

fn at_most(max: f64) -> LiveRules {
    with(Check { max: Some(max), ..Check::new("failures") })
}

#[test]
fn a_version_that_only_fails_is_worse() {
    let finding = found(&rules(), &[pair((0, 20), (20, 20))]);
    assert_eq!((finding.verdict, finding.reason), (Verdict::Worse, Reason::Regressed));
    assert!(finding.evidence >= finding.needed);
    assert_eq!(
        finding.message,
        "failures: 100 % of 20 against 0 % of 20, a difference of 100 points (77.2 to 100, 95 % interval of \
         a single look); evidence 21.3 of 4.6 that it is worse, -3.5 of 4.6 that it is no worse"
    );
}

#[test]
fn one_failure_decides_nothing() {
    for share in [[0.5, 0.5], [0.99, 0.01]] {
        let mut watch = Watch::new(key(Some("4")), &rules());
        watch.add(&batch(0, pair((0, 9_900), (1, 100)), share), &rules());
        let finding = &judge(&watch, &rules(), Data::Arriving)[0];
        assert!(finding.verdict != Verdict::Worse && finding.evidence.is_finite(), "{finding:?}");
    }
    // One of ten thousand, and none of as many: undecided, for a ratio that cannot be computed.
    assert_eq!(verdict(&rules(), &[pair((0, 10_000), (1, 10_000))]), (Verdict::Undecided, Reason::Watching));
    let rare = with(Check { negligible: 1e-6, ..Check::new("failures") });
    assert_eq!(verdict(&rare, &[pair((0, 10_000), (1, 10_000))]), (Verdict::Undecided, Reason::Watching));
}

#[test]
fn the_retries_of_one_client_decide_nothing() {
    let failures = |count| [pair((0, 990), (count, 10))];
    let strict = rules();
    let evidence = found(&strict, &failures(4));
    assert!(evidence.evidence > evidence.needed, "{evidence:?}");
    assert_eq!(verdict(&strict, &failures(4)), (Verdict::Undecided, Reason::NotEnoughTraffic));
    assert_eq!(verdict(&strict, &failures(5)).0, Verdict::Worse);
    let message = evidence.message;
    assert!(message.ends_with("a verdict takes 200 requests, and 5 failures if it is worse"), "{message}");
}

#[test]
fn alike_is_no_worse_once_there_is_enough_traffic() {
    let alike = pair((26, 2600), (26, 2600));
    assert_eq!(verdict(&rules(), &[alike; 2]), (Verdict::NoWorse, Reason::NoWorse));
    assert_eq!(verdict(&rules(), &[pair((10, 100_000), (1, 199))]).1, Reason::NotEnoughTraffic);
}

#[test]
fn flawless_versions_are_no_worse_after_536_requests() {
    let flawless = |n| [pair((0, 1000), (0, n))];
    assert_eq!(verdict(&rules(), &flawless(535)), (Verdict::Undecided, Reason::Watching));
    assert_eq!(verdict(&rules(), &flawless(536)), (Verdict::NoWorse, Reason::NoWorse));
    // A failure of the other one in a million requests does not make it worse, but then it takes the smaller
    // share.
    let almost = |n| [pair((1, 1_000_000), (0, n))];
    assert_eq!(verdict(&rules(), &almost(5379)).0, Verdict::Undecided);
    assert_eq!(verdict(&rules(), &almost(5380)).0, Verdict::NoWorse);
}

#[test]
fn a_share_that_does_not_matter_hides_nothing_that_is_worse() {
    // 0.05 % instead of 0.0001 %: below the negligible share, and still proven to be worse.
    let seen = verdict(&rules(), &[pair((1, 1_000_000), (50, 100_000))]);
    assert_eq!(seen, (Verdict::Worse, Reason::Regressed));
}

#[test]
fn tolerated_is_not_worse() {
    let twice = [pair((100, 10_000), (200, 10_000)); 2];
    assert_eq!(verdict(&rules(), &twice).0, Verdict::Worse);
    let tolerant = with(Check { tolerate: 2.5, margin: 5.0, ..Check::new("failures") });
    assert_eq!(verdict(&tolerant, &twice).0, Verdict::NoWorse);
}

#[test]
fn an_outage_that_both_share_is_no_regression() {
    let outage = vec![pair((1, 900), (0, 100)), pair((450, 900), (50, 100)), pair((900, 900), (100, 100))];
    assert_ne!(verdict(&rules(), &outage).0, Verdict::Worse);
    // Nor with an absolute bound, and the bound does not remember the outage afterwards.
    let mut with_bound = [outage.clone(), outage.clone()].concat();
    with_bound.extend([pair((40, 900), (6, 100)); 3]);
    assert_ne!(verdict(&at_most(0.05), &with_bound).0, Verdict::Worse);
}

#[test]
fn a_wrong_split_is_not_judged() {
    let rules = rules();
    let mut watch = Watch::new(key(Some("4")), &rules);
    // Planned 90:10, and half and half came.
    watch.add(&batch(0, pair((0, 500), (400, 500)), [0.9, 0.1]), &rules);
    let finding = &judge(&watch, &rules, Data::Arriving)[0];
    assert_eq!((finding.verdict, finding.reason), (Verdict::Untrusted, Reason::SplitMismatch));
    assert!(
        finding.message.ends_with("not shared as planned: 50 % of 90 %, 50 % of 10 %"),
        "{}",
        finding.message
    );
}

#[test]
fn sticky_users_are_counted_and_not_judged() {
    let bad = [pair((0, 1000), (500, 1000))];
    assert_eq!(verdict(&sticky(None), &bad), (Verdict::NotJudged, Reason::StickyAssignment));
    assert_eq!(found(&sticky(None), &bad).counted, bad[0]);
    assert_eq!(verdict(&sticky(Some(5.0)), &bad).0, Verdict::Worse);
    let few = [pair((0, 20), (6, 20))];
    assert_eq!(
        (verdict(&rules(), &few).0, verdict(&sticky(Some(5.0)), &few).0),
        (Verdict::Undecided, Verdict::Undecided)
    );
    assert!(found(&sticky(Some(5.0)), &few).evidence < found(&rules(), &few).evidence);
}

fn alone(rules: &LiveRules, tallies: &[(u64, u64)]) -> Finding {
    let mut watch = Watch::new(key(None), rules);
    for (index, (bad, total)) in tallies.iter().enumerate() {
        watch.add(&batch_alone(index, tally(*bad, *total)), rules);
    }
    judge(&watch, rules, Data::Arriving).remove(0)
}

#[test]
fn without_a_baseline_only_a_bound_judges() {
    let finding = alone(&rules(), &[(50, 100)]);
    assert_eq!((finding.verdict, finding.reason), (Verdict::NotJudged, Reason::NoBaseline));
    let bad = [(10, 20); 3];
    assert_eq!(alone(&at_most(0.05), &bad).verdict, Verdict::Worse);
    assert_eq!(alone(&at_most(0.05), &[(0, 105); 2]).verdict, Verdict::NoWorse);
}

#[test]
fn a_bound_takes_batches_in_a_row() {
    assert_eq!(alone(&at_most(0.05), &[(10, 20); 2]).verdict, Verdict::Undecided);
    assert_eq!(alone(&at_most(0.05), &[(10, 20), (0, 20), (10, 20), (10, 20)]).verdict, Verdict::Undecided);
    // A batch without requests does not end the row.
    assert_eq!(alone(&at_most(0.05), &[(10, 20), (0, 0), (10, 20), (10, 20)]).verdict, Verdict::Worse);
}

#[test]
fn a_version_that_becomes_bad_late_is_found_at_once() {
    // Six hours of 600 good requests a minute, then half of them fail.
    let mut tallies = vec![(0, 150); 6 * 240];
    tallies.extend([(75, 150); 3]);
    assert_eq!(alone(&at_most(0.05), &tallies).verdict, Verdict::Worse);
}

#[test]
fn a_version_that_becomes_worse_late_is_found_soon() {
    // Six hours of 600 requests a minute, of which 1 % fail; then 5 % of the version's, for four minutes.
    let mut pairs = [pair((1, 135), (0, 15)), pair((2, 135), (0, 15)), pair((1, 135), (1, 15))].repeat(480);
    pairs.extend([pair((1, 135), (1, 15)); 16]);
    assert_eq!(verdict(&rules(), &pairs).0, Verdict::Worse);
}

#[test]
fn unknown_is_neither_good_nor_what_was_found_before() {
    let rules = rules();
    let good = watched(&rules, &[pair((26, 2600), (26, 2600)); 2]);
    let bad = watched(&rules, &[pair((0, 20), (20, 20))]);
    for gap in Gap::iter() {
        assert_eq!(judge(&good, &rules, Data::Absent(gap))[0].verdict, Verdict::Unknown);
        // What is proven stays proven.
        assert_eq!(judge(&bad, &rules, Data::Absent(gap))[0].verdict, Verdict::Worse);
    }
}

#[test]
fn evidence_is_about_one_version_one_model_and_one_attempt() {
    let rules = rules();
    let stored = watched(&rules, &[pair((0, 20), (20, 20))]);
    let original = key(Some("4"));
    assert_eq!(Watch::restored(Some(stored.clone()), original.clone(), &rules), stored);
    let others = [
        WatchKey { version: "50".to_owned(), ..original.clone() },
        WatchKey { against: Some("3".to_owned()), ..original.clone() },
        WatchKey { against: None, ..original.clone() },
        WatchKey { model_uri: "models:/m-2".to_owned(), ..original.clone() },
        WatchKey { fingerprint: "g".to_owned(), ..original.clone() },
        WatchKey { attempt: "2".to_owned(), ..original.clone() },
    ];
    for other in others {
        let restored = Watch::restored(Some(stored.clone()), other.clone(), &rules);
        assert_eq!(restored, Watch::new(other, &rules));
    }
    let renamed = with(Check::new("slow"));
    assert_eq!(Watch::restored(Some(stored), original.clone(), &renamed), Watch::new(original, &renamed));
}

#[test]
fn alarms_share_the_chance_of_a_false_one() {
    let three = LiveRules::new(vec![
        Check { max: Some(0.05), ..Check::new("failures") },
        Check { on_regression: Some(OnRegression::Report), ..Check::new("slow") },
    ]);
    assert_eq!(three.alarms(), 3);
    let needed = found(&three, &[]).needed;
    assert!((needed - 300.0_f64.ln()).abs() < 1e-12, "{needed}");
}

#[test]
fn rules_that_make_no_sense_are_invalid() {
    assert!(rules().is_valid());
    for check in [
        Check { tolerate: 0.9, ..Check::new("a") },
        Check { tolerate: 2.0, ..Check::new("a") },
        Check { margin: f64::NAN, ..Check::new("a") },
        Check { margin: f64::INFINITY, ..Check::new("a") },
        Check { max: Some(0.0), ..Check::new("a") },
        Check { max: Some(1.0), ..Check::new("a") },
        Check { negligible: 0.0, ..Check::new("a") },
    ] {
        assert!(!with(check.clone()).is_valid(), "{check:?}");
    }
    assert!(!LiveRules { false_alarm: 0.0, ..rules() }.is_valid());
    assert!(!LiveRules::new(Vec::new()).is_valid());
}
