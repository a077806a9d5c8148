//! How often a good version would be rolled back, and how soon a bad one is: on simulated traffic, with a
//! look every minute, by the code that the operator uses.
//!
//! `make bench-analysis` runs it. It needs no cluster; the same seed prints the same figures. It prints and
//! asserts nothing; `src/analysis/tests/simulated.rs` asserts some of it with fewer runs.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_methods, reason = "effects: measures time")]

use std::{hint::black_box, time::Instant};

use clap::Parser;
use laurel::analysis;

mod detection;
mod experiments;
mod false_alarms;
mod go_on;
mod simulation;

/// The options of all tables.
#[derive(Clone, Copy, Parser)]
pub struct Options {
    /// How often each scenario is simulated.
    #[arg(long, default_value_t = 2000)]
    runs: u64,
    /// Other seeds give other figures, within their error.
    #[arg(long, default_value_t = 20_261_129)]
    seed: u64,
}

impl Options {
    /// How many of all runs end in something.
    fn count(self, is_so: impl Fn(&mut simulation::random::Random) -> bool) -> u64 {
        let random = |run| simulation::random::Random::new(self.seed, run);
        (0..self.runs).filter(|run| is_so(&mut random(*run))).count() as u64
    }

    /// So many of all runs as a number of 1,000.
    fn per_thousand(self, count: u64) -> f64 {
        float(count) * 1000.0 / float(self.runs)
    }
}

#[expect(clippy::cast_precision_loss, reason = "small")]
fn float(count: u64) -> f64 {
    count as f64
}

fn main() {
    let options = Options::parse();
    println!("{} runs of each scenario, seed {}; one look every minute\n", options.runs, options.seed);
    false_alarms::print(options);
    detection::print(options);
    go_on::print(options);
    experiments::print(options);
    print_cost();
}

/// Prints what the evidence of one batch costs. These figures alone are not the same everywhere.
fn print_cost() {
    use analysis::{
        Pair, Tally,
        sequential::{Comparison, Direction},
    };
    const TIMES: u32 = 200;
    let tally = |bad, total| Tally::new(bad, total).unwrap_or_default();
    for failures in [1_u64, 100, 1_000_000, 1_000_000_000] {
        let n = failures * 100;
        let batch = Pair { baseline: tally(failures / 2, n), candidate: tally(failures - failures / 2, n) };
        let began = Instant::now();
        for _ in 0..TIMES {
            for direction in [Direction::Above, Direction::Below] {
                let mut comparison = Comparison::new(direction, 1.5);
                comparison.add(black_box(batch), 1.0);
                black_box(comparison);
            }
        }
        let micros = (began.elapsed() / TIMES).as_secs_f64() * 1e6;
        println!("evidence of a batch with {failures} failures: {micros:.1} µs");
    }
}
