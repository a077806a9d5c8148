//! What Laurel costs beside the same done by hand, as one table: many ModelAliases created, promoted and rolled
//! back, a restart, and at rest.
//!
//! ```text
//! site      where it runs: namespaces, accounts, MLflow; cleans up
//! operator  the operator as a process: its memory, CPU and reconciles
//! cpu       CPU time of the control plane, the registry and the operator
//! parallel  many requests, a bounded number at a time
//! tally     how many objects have reached a state, and when
//! by_hand   the same Deployments and Services without Laurel
//! laurel    ModelAliases created and promoted
//! rest      a restart, and a minute in which nothing changes
//! rollback  one rollback at a time, also beside a registry that answers late
//! table     the rows
//! ```
//!
//! `make bench` runs it against the control plane of `make cluster-api`. It prints figures and ratios, and asserts
//! nothing. `docs/scale.md` explains the rows.

#![expect(clippy::disallowed_types, reason = "effects: runs against a real API server")]
#![expect(clippy::disallowed_methods, reason = "effects: measures time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

#[path = "../../least_privilege/audit.rs"]
#[allow(dead_code, reason = "the tests of permissions use the rest")]
mod audit;
mod by_hand;
mod cpu;
mod laurel;
mod operator;
mod parallel;
mod rest;
#[path = "../../least_privilege/rights.rs"]
#[allow(dead_code, reason = "the tests of permissions use the rest")]
mod rights;
mod rollback;
#[path = "../../support/simulated/mod.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "the tests on the control plane use the rest")]
mod simulated;
mod site;
#[path = "../../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the end-to-end tests use the rest")]
mod support;
mod table;
mod tally;
#[path = "../../faults/wire/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests of faults use the rest")]
mod wire;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{site::Site, table::Table};

/// Prints what Laurel costs beside the same done by hand.
#[derive(Clone, Parser)]
pub(crate) struct Options {
    /// The number of ModelAliases; an even one, as each model has two.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) aliases: usize,
    /// The number of rollbacks in each of the last rows.
    #[arg(long, default_value_t = 50)]
    pub(crate) rollbacks: usize,
    /// The number of ModelAliases that wait for a registry that answers late.
    #[arg(long, default_value_t = 120)]
    pub(crate) waiting: usize,
    /// Another build of the operator, for instance one for a profiler.
    #[arg(long)]
    pub(crate) operator: Option<PathBuf>,
    /// Cargo passes it to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn models(&self) -> usize {
        self.aliases / 2
    }

    /// The time limit of one step.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_mins(5) + Duration::from_millis(200) * u32::try_from(self.aliases).unwrap_or(u32::MAX)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.aliases >= 2 && options.aliases.is_multiple_of(2), "N must be even");
    let rollbacks = options.rollbacks;
    ensure!(rollbacks > 0 && rollbacks * 2 <= options.models(), "N must be at least {}", rollbacks * 4);
    let site = Site::prepare(options.clone()).await?;
    let mut table = Table::new(options.clone())?;
    let measured = tokio::select! {
        measured = timeout(options.patience() * 4, Box::pin(measure(&site, &mut table))) => {
            measured.context("it takes too long").and_then(|measured| measured)
        }
        () = interrupted() => Err(anyhow!("interrupted")),
    };
    // What was measured before a failure is worth reading, too.
    table.end()?;
    println!("\n{table}");
    let cleaned = site.clean_up().await;
    measured.and(cleaned)
}

/// Resolves at SIGINT or SIGTERM.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn measure(site: &Site, table: &mut Table) -> Result<()> {
    let empty = site.operator.start_empty().await?;
    let sample = laurel::sample(site).await?;
    site.operator.stop().await?;

    let created = by_hand::create(site, &sample).await?;
    let promoted = by_hand::promote(site, &sample).await?;
    by_hand::remove(site).await?;

    let storm = laurel::create(site).await?;
    table.storm(&created, &storm);
    table.promotions(&promoted, &laurel::promote(site).await?);
    let restart = rest::restart(site).await?;
    table.memory(empty, &storm, &restart);
    table.restart(&restart);
    table.rest(&rest::at_rest(site).await?);
    let [alone, beside] = rollback::measure(site, &sample).await?;
    table.rollbacks("a rollback to a warm version", &alone)?;
    table.rollbacks("the same beside a late registry", &beside)
}

/// Returns the load of the machine over the last minute.
pub(crate) fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let load = text.split(' ').next().and_then(|load| load.parse().ok());
    load.with_context(|| format!("/proc/loadavg: {text}"))
}
