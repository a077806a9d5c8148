//! Experiments: wrong winners, and how long it takes to find the right one.

use crate::{
    Options,
    analysis::experiment::{Kind, Outcome},
    simulation::{experiment::Experiment, random::Random},
};

/// Prints the table.
pub fn print(options: Options) {
    println!(
        "Experiments of 1 to 4 weeks with a look every hour: outcomes of 1,000 (α = 5 %, margin a tenth)"
    );
    println!("{:46}{:>12}{:>10}{:>14}{:>14}", "", "challenger", "champion", "no difference", "median days");
    let share = |truth, share| Experiment { per_hour: 300.0, share, truth, kind: Kind::Share, days: 28 };
    let mean = |truth, share| Experiment { per_hour: 60.0, share, truth, kind: Kind::Mean, days: 28 };
    let cases = [
        ("share of 10 %, alike, 50:50", share((0.1, 0.1), 0.5)),
        ("share of 10 %, alike, 90:10", share((0.1, 0.1), 0.1)),
        ("share of 1 %, alike, 90:10", share((0.01, 0.01), 0.1)),
        ("share of 10 → 11 %, 50:50", share((0.1, 0.11), 0.5)),
        ("share of 10 → 11 %, 90:10", share((0.1, 0.11), 0.1)),
        ("share of 10 → 9 %, 90:10", share((0.1, 0.09), 0.1)),
        ("mean of skewed values, alike, 50:50", mean((1.0, 1.0), 0.5)),
        ("mean of skewed values, alike, 90:10", mean((1.0, 1.0), 0.1)),
        ("mean of skewed values, 1 → 1.1, 50:50", mean((1.0, 1.1), 0.5)),
    ];
    let options = Options { runs: (options.runs / 4).max(1), ..options };
    for (name, experiment) in cases {
        println!("{name:46}{}", row(&experiment, options));
    }
    println!("bound: 50 of 1,000 with a winner where both are alike");
}

fn row(experiment: &Experiment, options: Options) -> String {
    let runs: Vec<(i64, Outcome)> = (0..options.runs)
        .map(|run| {
            let (hours, conclusion) = experiment.run(&mut Random::new(options.seed, run));
            (hours, conclusion.outcome)
        })
        .collect();
    let count = |outcome| {
        let count = runs.iter().filter(|(_, seen)| *seen == outcome).count();
        options.per_thousand(count as u64)
    };
    let mut hours: Vec<i64> = runs.iter().map(|(hours, _)| *hours).collect();
    hours.sort_unstable();
    format!(
        "{:>12.0}{:>10.0}{:>14.0}{:>14}",
        count(Outcome::ChallengerWins),
        count(Outcome::ChampionWins),
        count(Outcome::NoDifference),
        hours[hours.len() / 2] / 24,
    )
}
