//! Bad versions: how soon they are called worse, and how many answers were bad until then.

use crate::{
    Options,
    analysis::live::{Assignment, LiveRules, Verdict},
    float,
    simulation::{
        promotion::{Until, Verdicts, promote, rules},
        random::Random,
        traffic::{Failures, Rates, Traffic},
    },
};

struct Case {
    name: &'static str,
    traffic: Traffic,
    rules: LiveRules,
    has_baseline: bool,
    /// When it becomes bad.
    from: u64,
    /// How many minutes it may take at most for 95 of 100.
    bound: u64,
}

fn case(name: &'static str, per_minute: f64, share: f64, rates: Rates, bound: u64) -> Case {
    let traffic = Traffic { per_minute, share, rates, failures: Failures::Independent };
    Case { name, traffic, rules: rules(None), has_baseline: true, from: 0, bound }
}

fn cases() -> Vec<Case> {
    let assignment = Assignment { is_sticky: true, design_effect: Some(5.0) };
    let sticky = LiveRules { assignment, ..rules(None) };
    let bursts = case("bursts of 5, design effect 5: 1 → 5 %, 50:50", 60.0, 0.5, |_| (0.01, 0.05), 240);
    let alone = |case: Case| Case { rules: rules(Some(0.05)), has_baseline: false, ..case };
    vec![
        case("1 → 2 %, 60 a minute, 50:50", 60.0, 0.5, |_| (0.01, 0.02), 360),
        case("1 → 5 %, 60 a minute, 90:10", 60.0, 0.1, |_| (0.01, 0.05), 60),
        Case {
            rules: LiveRules { false_alarm: 0.05, ..rules(None) },
            ..case("1 → 5 %, 60 a minute, 90:10, α = 5 %", 60.0, 0.1, |_| (0.01, 0.05), 60)
        },
        case("1 → 5 %, 60 a minute, 95:5", 60.0, 0.05, |_| (0.01, 0.05), 120),
        case("0.1 → 50 %, 60 a minute, 90:10", 60.0, 0.1, |_| (0.001, 0.5), 5),
        case("only fails, 60 a minute, 95:5", 60.0, 0.05, |_| (0.01, 1.0), 3),
        case("only fails, 60 a minute, 50:50", 60.0, 0.5, |_| (0.01, 1.0), 2),
        case("1 → 20 %, 2 a minute, 50:50", 2.0, 0.5, |_| (0.01, 0.2), 240),
        case("only fails, 2 a minute, 50:50", 2.0, 0.5, |_| (0.01, 1.0), 30),
        case(
            "0.2 → 10 %, with an outage of 20 % at once, 50:50",
            60.0,
            0.5,
            |minute| if minute < 30 { (0.2, 0.3) } else { (0.002, 0.1) },
            60,
        ),
        Case {
            from: 10,
            ..case(
                "after 10 min 0.1 → 50 %, 60 a minute, 50:50",
                60.0,
                0.5,
                |minute| if minute < 10 { (0.001, 0.001) } else { (0.001, 0.5) },
                2,
            )
        },
        Case {
            from: 360,
            ..case(
                "after 6 h 1 → 50 %, 600 a minute, 50:50",
                600.0,
                0.5,
                |minute| if minute < 360 { (0.01, 0.01) } else { (0.01, 0.5) },
                2,
            )
        },
        Case {
            from: 360,
            ..case(
                "after 6 h 1 → 5 %, 600 a minute, 90:10",
                600.0,
                0.1,
                |minute| if minute < 360 { (0.01, 0.01) } else { (0.01, 0.05) },
                30,
            )
        },
        Case {
            traffic: Traffic { failures: Failures::Bursts(5), ..bursts.traffic },
            rules: sticky,
            ..bursts
        },
        alone(case("no baseline, at most 5 %: only fails", 60.0, 1.0, |_| (0.0, 1.0), 3)),
        alone(case("no baseline, at most 5 %: 20 %", 60.0, 1.0, |_| (0.0, 0.2), 15)),
        Case {
            from: 360,
            ..alone(case(
                "no baseline, at most 5 %: after 6 h 50 %, 600 a min",
                600.0,
                1.0,
                |minute| (0.0, if minute < 360 { 0.001 } else { 0.5 }),
                3,
            ))
        },
    ]
}

/// Prints the table.
pub fn print(options: Options) {
    println!("Bad versions: from the first bad minute to the verdict, with the rules' defaults (α = 1 %)");
    println!(
        "{:54}{:>8}{:>8}{:>8}{:>10}{:>8}{:>7}{:>7}",
        "", "median", "90 %", "95 %", "requests", "bad", "bound", "ratio"
    );
    // Medians need fewer runs than rare events.
    let options = Options { runs: (options.runs / 4).max(1), ..options };
    for case in cases() {
        println!("{}", row(&case, options));
    }
    println!("requests and bad: of the candidate, median; bound: minutes for 95 of 100, ratio: 95 % to it\n");
}

fn row(case: &Case, options: Options) -> String {
    let horizon = case.from + case.bound * 20;
    let once = |run| {
        let random = &mut Random::new(options.seed, run);
        promote(&case.traffic, &case.rules, case.has_baseline, horizon, Until::Worse, random)
    };
    let runs: Vec<Verdicts> = (0..options.runs).map(once).collect();
    let early = runs.iter().filter(|it| it.verdict == Verdict::Worse && it.minutes <= case.from).count();
    let mut minutes: Vec<Option<u64>> = runs
        .iter()
        .filter(|it| it.minutes > case.from)
        .map(|it| (it.verdict == Verdict::Worse).then(|| it.minutes - case.from))
        .collect();
    // Those that were not found last the longest.
    minutes.sort_unstable_by_key(|minutes| minutes.unwrap_or(u64::MAX));
    let at =
        |per_cent: usize| minutes.get((minutes.len() * per_cent).div_ceil(100).max(1) - 1).copied().flatten();
    let text =
        |minutes: Option<u64>| minutes.map_or_else(|| format!(">{}", case.bound * 20), |it| it.to_string());
    let ratio = at(95).map_or_else(|| "-".to_owned(), |it| format!("{:.2}", float(it) / float(case.bound)));
    let early = if early > 0 { format!("  ({early} too early)") } else { String::new() };
    format!(
        "{:54}{:>8}{:>8}{:>8}{:>10}{:>8}{:>7}{:>7}{early}",
        case.name,
        text(at(50)),
        text(at(90)),
        text(at(95)),
        median(&runs, |it| it.requests),
        median(&runs, |it| it.bad),
        case.bound,
        ratio,
    )
}

fn median(runs: &[Verdicts], of: impl Fn(&Verdicts) -> u64) -> u64 {
    let mut values: Vec<u64> = runs.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}
