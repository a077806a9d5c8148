//! Runs the soak: promotions and rollbacks under load while the operator and MLflow are killed.
//!
//! ```sh
//! make demo                         # leaves a cluster with MLflow, its models, and Laurel
//! make soak MINUTES=30              # or CHANGES=500; SEED=7 repeats an earlier run's choices
//! ```
//!
//! It fails if a single request is lost; then it prints which ones and what happened around them, and leaves
//! its namespace, `laurel-soak`, in place.

#![expect(clippy::print_stdout, reason = "it reports progress at a terminal")]
#![expect(clippy::disallowed_types, reason = "effects: runs against a real cluster")]
#![expect(clippy::disallowed_methods, reason = "effects: faults happen at any moment")]

#[path = "mod.rs"]
mod soak;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the demo and the end-to-end tests use the rest")]
mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Parser;
use soak::{Enough, Options};

/// Promotes and rolls back under load while the operator and MLflow are killed; fails if a request is lost.
#[derive(Parser)]
struct Arguments {
    /// How long to run.
    #[arg(long, default_value_t = 10, conflicts_with = "changes")]
    minutes: u64,
    /// Number of promotions and rollbacks, instead of a duration.
    #[arg(long)]
    changes: Option<usize>,
    /// The seed of every choice; defaults to the time.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let enough = arguments
        .changes
        .map_or_else(|| Enough::Time(Duration::from_secs(60 * arguments.minutes)), Enough::Changes);
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = arguments.seed.unwrap_or_else(seconds);
    soak::soak(Options { seed, enough, stays_on_failure: true, evicts: true }).await?;
    println!("\nNot one request was lost.");
    Ok(())
}
