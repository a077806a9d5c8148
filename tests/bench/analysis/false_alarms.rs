//! Good versions: how many of 1,000 would be called worse.

use crate::{
    Options,
    analysis::live::{Assignment, LiveRules, Verdict},
    simulation::{
        classical::peeked,
        promotion::{Until, bounded, compare, is_split_alarmed, promote, rules},
        traffic::{Failures, Rates, Traffic},
    },
};

struct Case {
    name: &'static str,
    traffic: Traffic,
    minutes: u64,
    rules: LiveRules,
    has_baseline: bool,
}

fn case(name: &'static str, per_minute: f64, share: f64, rates: Rates) -> Case {
    let traffic = Traffic { per_minute, share, rates, failures: Failures::Independent };
    Case { name, traffic, minutes: 1440, rules: rules(None), has_baseline: true }
}

/// For half an hour, both fail a hundred times more often.
fn outage(minute: u64) -> (f64, f64) {
    let rate = if (600..630).contains(&minute) { 0.2 } else { 0.002 };
    (rate, rate)
}

/// So many failures come together, and the rules declare it.
fn declared(design_effect: f64) -> LiveRules {
    let assignment = Assignment { is_sticky: true, design_effect: Some(design_effect) };
    LiveRules { assignment, ..rules(None) }
}

fn cases() -> Vec<Case> {
    let alike: Rates = |_| (0.01, 0.01);
    let varying = Failures::Varying(1);
    let bursts = Failures::Bursts(5);
    let with_failures = |case: Case, failures| Case { traffic: Traffic { failures, ..case.traffic }, ..case };
    vec![
        case("1 % of 20 a minute, 50:50", 20.0, 0.5, alike),
        case("1 % of 60 a minute, 95:5", 60.0, 0.05, alike),
        case("1 % of 2 a minute, 50:50", 2.0, 0.5, alike),
        Case { minutes: 720, ..case("0.01 % of 600 a minute, 90:10", 600.0, 0.1, |_| (0.0001, 0.0001)) },
        case("shared outage: 20 % for 30 min, 50:50", 60.0, 0.5, outage),
        case("shared outage: 20 % for 30 min, 95:5", 60.0, 0.05, outage),
        with_failures(case("rate varies each minute, 50:50", 60.0, 0.5, alike), varying),
        with_failures(case("rate varies each minute, 95:5", 60.0, 0.05, alike), varying),
        with_failures(case("bursts of 2, not declared, 50:50", 20.0, 0.5, alike), Failures::Bursts(2)),
        Case {
            rules: declared(2.0),
            ..with_failures(
                case("bursts of 2, design effect 2, 50:50", 20.0, 0.5, alike),
                Failures::Bursts(2),
            )
        },
        with_failures(case("bursts of 5, not declared, 50:50", 20.0, 0.5, alike), bursts),
        Case {
            rules: declared(5.0),
            ..with_failures(case("bursts of 5, design effect 5, 50:50", 20.0, 0.5, alike), bursts)
        },
        Case {
            rules: rules(Some(0.05)),
            has_baseline: false,
            ..case("no baseline, at most 5 %: 1 %", 60.0, 1.0, |_| (0.0, 0.01))
        },
        Case {
            rules: rules(Some(0.05)),
            has_baseline: false,
            ..case("no baseline, at most 5 %: 5 %", 60.0, 1.0, |_| (0.0, 0.05))
        },
        Case {
            rules: rules(Some(0.05)),
            has_baseline: false,
            ..case("no baseline, at most 5 %: outage", 60.0, 1.0, outage)
        },
        Case { rules: rules(Some(0.05)), ..case("baseline and at most 5 %: outage", 60.0, 0.5, outage) },
    ]
}

/// Prints the table.
pub fn print(options: Options) {
    println!("Good versions: false alarms of 1,000, and their ratio to the bound");
    println!("{:42}{:>6}{:>18}{:>18}{:>10}", "", "looks", "comparison α=5 %", "rules α=1 %", "z-test");
    for case in cases() {
        println!("{}", row(&case, options));
    }
    let split =
        Traffic { per_minute: 60.0, share: 0.1, rates: |_| (0.0, 0.0), failures: Failures::Independent };
    let alarms =
        |share| options.count(|random| is_split_alarmed(&split, share, 1440, 0.001, random).is_some());
    let at_bound =
        Traffic { per_minute: 60.0, share: 1.0, rates: |_| (0.0, 0.05), failures: Failures::Independent };
    let over = options.count(|random| bounded(&at_bound, 0.05, 1440, 0.05, random).is_some());
    println!(
        "bound of 5 %, exactly at it, α = 5 %: {} of 1,000",
        with_bound(options.per_thousand(over), 0.05)
    );
    println!(
        "split 90:10 as planned: {:.1} of 1,000 (ratio {:.2}); half and half instead: {:.0} of 1,000\n",
        options.per_thousand(alarms(0.1)),
        options.per_thousand(alarms(0.1)),
        options.per_thousand(alarms(0.5)),
    );
}

fn row(case: &Case, options: Options) -> String {
    let Case { name, traffic, minutes, rules, has_baseline } = case;
    let is_rolled_back = |random: &mut _| {
        let seen = promote(traffic, rules, *has_baseline, *minutes, Until::Worse, random);
        seen.verdict == Verdict::Worse
    };
    let rolled_back = with_bound(options.per_thousand(options.count(is_rolled_back)), rules.false_alarm);
    let (alone, usual) = if *has_baseline {
        let alone = options.count(|random| compare(traffic, *minutes, 0.05, random).is_some());
        let usual = options.count(|random| peeked(traffic, *minutes, 0.05, random).is_some());
        (with_bound(options.per_thousand(alone), 0.05), format!("{:.0}", options.per_thousand(usual)))
    } else {
        ("-".to_owned(), "-".to_owned())
    };
    format!("{name:42}{minutes:>6}{alone:>18}{rolled_back:>18}{usual:>10}")
}

fn with_bound(per_thousand: f64, alpha: f64) -> String {
    format!("{per_thousand:.1} ({:.2})", per_thousand / (alpha * 1000.0))
}
