//! Good versions: how soon they are called no worse, and versions at the margin: how many are.

use crate::{
    Options,
    analysis::live::Verdict,
    simulation::{
        promotion::{Until, Verdicts, promote, rules},
        random::Random,
        traffic::{Failures, Rates, Traffic},
    },
};

const DAY: u64 = 1440;

/// Prints the table.
pub fn print(options: Options) {
    println!("Good versions: until they are called no worse (margin 2, α = 1 %), within a day");
    println!("{:54}{:>10}{:>10}{:>12}{:>14}", "", "median", "requests", "of 1,000", "called worse");
    let options = Options { runs: (options.runs / 4).max(1), ..options };
    let cases: [(&str, f64, f64, Rates); 8] = [
        ("1 % of 60 a minute, 50:50", 60.0, 0.5, |_| (0.01, 0.01)),
        ("1 % of 60 a minute, 90:10", 60.0, 0.1, |_| (0.01, 0.01)),
        ("1 % of 60 a minute, 95:5", 60.0, 0.05, |_| (0.01, 0.01)),
        ("1 → 0.5 %, 60 a minute, 50:50", 60.0, 0.5, |_| (0.01, 0.005)),
        ("none fails, 60 a minute, 95:5", 60.0, 0.05, |_| (0.0, 0.0)),
        ("0.001 % of 600 a minute, 90:10", 600.0, 0.1, |_| (0.000_01, 0.000_01)),
        ("1 % of 2 a minute, 50:50", 2.0, 0.5, |_| (0.01, 0.01)),
        ("at the margin: 1 → 2 %, 60 a minute, 50:50", 60.0, 0.5, |_| (0.01, 0.02)),
    ];
    for (name, per_minute, share, rates) in cases {
        let traffic = Traffic { per_minute, share, rates, failures: Failures::Independent };
        println!("{}", row(name, &traffic, options));
    }
    println!("bound: 900 of 1,000 for versions that are alike, 10 of 1,000 for one at the margin\n");
}

fn row(name: &str, traffic: &Traffic, options: Options) -> String {
    let rules = rules(None);
    let once = |run| promote(traffic, &rules, true, DAY, Until::Any, &mut Random::new(options.seed, run));
    let runs: Vec<Verdicts> = (0..options.runs).map(once).collect();
    let count = |verdict| runs.iter().filter(|it| it.verdict == verdict).count() as u64;
    let mut good: Vec<_> = runs.iter().filter(|it| it.verdict == Verdict::NoWorse).collect();
    good.sort_unstable_by_key(|it| it.minutes);
    let (minutes, requests) = match good.get(good.len() / 2) {
        Some(median) => (format!("{} min", median.minutes), median.requests.to_string()),
        None => ("-".to_owned(), "-".to_owned()),
    };
    format!(
        "{name:54}{minutes:>10}{requests:>10}{:>12.0}{:>14.1}",
        options.per_thousand(count(Verdict::NoWorse)),
        options.per_thousand(count(Verdict::Worse)),
    )
}
